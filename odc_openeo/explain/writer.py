"""Walk over an evaluated graph and write it as a program, one statement per node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import xarray as xr

from odc_openeo.cube import ARRAY, LabeledArray, is_cube
from odc_openeo.explain.calls import ELEMENT, EMITTERS, Call, NoProgram, Operand
from odc_openeo.explain.code import join_items, write_literal, write_string
from odc_openeo.explain.names import choose_name
from odc_openeo.explain.program import Program, write_function
from odc_openeo.graph import Graph, Node
from odc_openeo.graph.evaluate import run_graph
from odc_openeo.graph.model import find_free_parameters
from odc_openeo.graph.plan import Plan, sort_topologically
from odc_openeo.graph.trace import Trace
from odc_openeo.graph.validate import get_process
from odc_openeo.registry.environment import Environment

MISSING: Final = "None"


@dataclass
class Scope:
    """A graph that is being written: the operands of its nodes and parameters, and the graph around it."""

    graph: Graph
    path: str
    bindings: Mapping[str, Operand]
    parent: Scope | None = None
    operands: dict[str, Operand] = field(default_factory=dict)

    def find_parameter(self, name: str) -> Operand:
        """The operand of a parameter: the innermost scope that binds it, else the outermost default."""
        scope: Scope | None = self
        default: Any = None
        while scope is not None:
            if name in scope.bindings:
                return scope.bindings[name]
            declared = next((p for p in scope.graph.parameters if p.get("name") == name), {})
            default = declared.get("default", default)
            scope = scope.parent
        return Operand(write_literal(default), default)


@dataclass
class Writer:
    """Writes the graphs of a traced evaluation into a program."""

    program: Program
    trace: Trace
    env: Environment
    lines: list[str] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    """The lines of the innermost function, and the scopes around what is written, the innermost last."""

    def __post_init__(self) -> None:
        self.lines = self.program.lines

    def add_line(self, line: str) -> None:
        """Add a statement to the function that is being written."""
        self.lines.append(line)

    def bind_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Operand]:
        """The operands of outer parameters: JSON as it is, cubes by a variable of their name."""
        return {name: self._bind_parameter(name, value) for name, value in parameters.items()}

    def _bind_parameter(self, name: str, value: Any) -> Operand:
        operand = _make_operand(value)
        if operand.code == MISSING and value is not None:
            is_array = isinstance(value, xr.DataArray) and ARRAY in value.dims
            return Operand(self.program.take_name(name), value, ELEMENT if is_array else None)
        return operand

    def write_graph(self, graph: Graph, bindings: Mapping[str, Operand]) -> Operand:
        """Write the outermost graph; return its result."""
        return self._write_scope(Scope(graph, "", bindings), keep_result=True)

    def _write_scope(self, scope: Scope, *, keep_result: bool) -> Operand:
        """Write the nodes of a graph; its result is given a name only with ``keep_result``."""
        self.scopes.append(scope)
        plan = self.trace.plans.get(scope.path)
        result = plan.get_original(scope.graph.result) if plan else scope.graph.result
        for id_ in sort_topologically(scope.graph):
            original = plan.get_original(id_) if plan else id_
            if original == id_ and f"{scope.path}{id_}" in self.trace.values:
                node = scope.graph.nodes[id_]
                operand = self._write_node(scope, node)
                if id_ != result or keep_result:
                    operand = self._name(node, operand)
                scope.operands[id_] = operand
        for id_ in scope.graph.nodes:
            original = plan.get_original(id_) if plan else id_
            if original in scope.operands:
                scope.operands[id_] = scope.operands[original]
        self.scopes.pop()
        return scope.operands.get(scope.graph.result, Operand(MISSING, None))

    def _name(self, node: Node, operand: Operand) -> Operand:
        """Give the value of a node a name, unless it is one already."""
        if operand.code.isidentifier():
            return operand
        name = self.program.take_name(choose_name(node))
        self.add_line(f"{name} = {operand.code}")
        return replace(operand, code=name)

    def _write_node(self, scope: Scope, node: Node) -> Operand:
        path = f"{scope.path}{node.id}"
        value = self.trace.values[path]
        process = get_process(node)
        operands = {
            name: self._resolve(scope, argument)
            for name, argument in node.arguments.items()
            if name in process.parameters
        }
        if node.definition is not None:
            inner = Scope(node.definition.graph, f"{path}.", self._bind_definition(node, operands))
            return self._write_scope(inner, keep_result=False)
        call = Call(node, path, value, operands, process.parameters, self.program, self.env, self)
        return self._emit(call)

    def _bind_definition(self, node: Node, operands: Mapping[str, Operand]) -> dict[str, Operand]:
        return {
            name: (
                operand
                if operand.code.isidentifier() or not is_cube(operand.value)
                else self._name(node, operand)
            )
            for name, operand in operands.items()
        }

    def _emit(self, call: Call) -> Operand:
        try:
            emitter = EMITTERS.get(call.node.process_id)
            if emitter is None:
                raise NoProgram("no way to write it as a program is known here.")
            result = emitter(call)
        except NoProgram as reason:
            return self._leave_out(call, str(reason))
        if isinstance(result, str):
            result = Operand(result, call.value)
        is_nullable = result.is_nullable or any(o.is_nullable for o in call.operands.values())
        return replace(
            result,
            value=call.value,
            dimension=result.dimension or _find_dimension(call),
            is_nullable=is_nullable,
        )

    def _leave_out(self, call: Call, reason: str) -> Operand:
        """Say that a call is not in the program; what it returns has to be put there by hand."""
        self.program.leave_out(call, reason)
        value = call.value
        passed_on = next(
            (o.code for o in call.operands.values() if o.value is value and is_cube(value)), None
        )
        return Operand(passed_on or MISSING, value)

    # --- Arguments -------------------------------------------------------------------------------

    def _resolve(self, scope: Scope, argument: Any) -> Operand:
        """The operand of an argument."""
        if isinstance(argument, Graph):
            return Operand(MISSING, argument)
        if isinstance(argument, Mapping):
            if len(argument) == 1 and isinstance(argument.get("from_node"), str):
                return scope.operands.get(argument["from_node"], Operand(MISSING, None))
            if len(argument) == 1 and isinstance(argument.get("from_parameter"), str):
                return scope.find_parameter(argument["from_parameter"])
            items = {k: self._resolve(scope, v) for k, v in argument.items()}
            codes = [f"{write_string(k)}: {o.code}" for k, o in items.items()]
            return Operand(join_items("{", codes, "}"), {k: o.value for k, o in items.items()})
        if isinstance(argument, list):
            elements = [self._resolve(scope, v) for v in argument]
            return Operand(join_items("[", [e.code for e in elements], "]"), [e.value for e in elements])
        return Operand(write_literal(argument), argument)

    # --- Child processes -------------------------------------------------------------------------

    def inline_child(self, call: Call, name: str, bindings: Mapping[str, Operand]) -> Operand:
        """Write the statements of a child process where it is called; return its result."""
        return self._inline_graph(call, call.operands[name].value, bindings)

    def _inline_graph(self, call: Call, graph: Graph, bindings: Mapping[str, Operand]) -> Operand:
        path = f"{call.path}."
        operands = self._with_values(path, bindings)
        if path not in self.trace.parameters:
            raise NoProgram("its child process was not evaluated.")
        parent = self.scopes[-1]
        return self._write_scope(Scope(graph, path, operands, parent), keep_result=False)

    def _with_values(self, path: str, bindings: Mapping[str, Operand]) -> dict[str, Operand]:
        """The operands of parameters, with the values that the child process was called with."""
        values = self.trace.parameters.get(path, {})
        return {
            name: replace(bindings[name], value=values[name]) if name in bindings else _make_operand(value)
            for name, value in values.items()
        } | {name: operand for name, operand in bindings.items() if name not in values}

    def define_child(
        self, call: Call, name: str, parameters: tuple[str, ...], wish: str, template: Operand
    ) -> str:
        """Write a child process as a function; return its name."""
        return self.define_graph(call, call.operands[name].value, parameters, wish, template)

    def define_graph(
        self, call: Call, graph: Graph, parameters: tuple[str, ...], wish: str, template: Operand
    ) -> str:
        """Write a graph as a function; return its name."""
        function = self.program.take_name(wish)
        taken = {p: self.program.take_name(p) for p in parameters}
        bindings = {p: replace(template, code=taken[p]) for p in parameters}
        with self._inside_function() as lines:
            result = self._inline_graph(call, graph, bindings)
        source = write_function(function, list(taken.values()), lines, result.code)
        self.lines.extend(source.split("\n"))
        return function

    def probe_graph(self, call: Call, graph: Graph, parameters: Mapping[str, Any]) -> None:
        """Evaluate a graph that the process calls only when pixels are read, with values like those then."""
        path = f"{call.path}."
        outer = {name: self.scopes[-1].find_parameter(name).value for name in find_free_parameters(graph)}
        for record in (self.trace.parameters, self.trace.values):
            for name in [name for name in record if name.startswith(path)]:
                del record[name]
        run_graph(graph, self.env, {**outer, **parameters}, Plan(), path=path)

    @contextmanager
    def _inside_function(self) -> Iterator[list[str]]:
        outer, self.lines = self.lines, []
        try:
            yield self.lines
        finally:
            self.lines = outer


def _make_operand(value: Any) -> Operand:
    """The operand of a JSON value."""
    if isinstance(value, LabeledArray):
        labels = [
            f"{write_literal(k)}: {write_literal(v)}" for k, v in zip(value.labels, value.values, strict=True)
        ]
        return Operand(join_items("{", labels, "}"), value)
    if isinstance(value, xr.Dataset):
        return Operand(MISSING, value)  # It is a mapping as well.
    try:
        return Operand(write_literal(value), value)
    except TypeError:
        return Operand(MISSING, value)


def _find_dimension(call: Call) -> str | None:
    """The array dimension of a result: that of its arguments."""
    if not (isinstance(call.value, xr.DataArray) and ARRAY in call.value.dims):
        return None
    return next((o.dimension for o in call.operands.values() if o.dimension is not None), ELEMENT)
