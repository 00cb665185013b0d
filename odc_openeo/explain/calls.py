"""A call of a process as those see it who write it as code: operands with code and value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import xarray as xr

from odc_openeo import cube
from odc_openeo.cube import ARRAY, LabeledArray, is_cube
from odc_openeo.explain.code import wrap_atom, wrap_operand, write_literal
from odc_openeo.explain.program import Program
from odc_openeo.graph import Graph, Node
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import OMITTED, Parameter

ELEMENT: Final = "element"
"""The dimension along which values are stacked into a new array."""


@dataclass(frozen=True)
class Operand:
    """A value as the program has it: its code, and what the service has for it.

    ``dimension`` is the name in the program of the dimension along which a cube is an openEO array.
    ``is_nullable``: in a function that is called several times it may be null, whatever ``value`` is.
    """

    code: str
    value: Any
    dimension: str | None = None
    is_nullable: bool = False

    @property
    def atom(self) -> str:
        """The code as the beginning of a method call."""
        return wrap_atom(self.code)

    @property
    def operand(self) -> str:
        """The code as an operand of arithmetic."""
        return wrap_operand(self.code)

    @property
    def is_cube(self) -> bool:
        return is_cube(self.value)

    @property
    def is_array_of_cube(self) -> bool:
        """Whether it is a cube with an array per pixel, inside of a child process."""
        return isinstance(self.value, xr.DataArray) and ARRAY in self.value.dims

    @property
    def is_labeled(self) -> bool:
        return isinstance(self.value, LabeledArray)

    @property
    def can_miss(self) -> bool:
        """Whether it may hold no-data: floats, and integers that have a no-data value."""
        return not isinstance(self.value, xr.DataArray) or cube.has_nodata(self.value)


class NoProgram(Exception):
    """A call that cannot be written as code; the text says why, without the name of the process."""


@dataclass
class Call:
    """A call of a process in a graph, with its arguments as operands (child processes as graphs)."""

    node: Node
    path: str
    value: Any
    operands: Mapping[str, Operand]
    parameters: Mapping[str, Parameter]
    program: Program
    env: Environment
    writer: Any = field(repr=False)

    def __getitem__(self, name: str) -> Operand:
        """The operand of an argument, or of its default."""
        if name in self.operands:
            return self.operands[name]
        default = self.parameters[name].default
        default = None if default is OMITTED else default
        return Operand(write_literal(default), default)

    def has(self, name: str) -> bool:
        """Whether an argument has a value other than null."""
        operand = self.operands.get(name)
        return operand is not None and operand.value is not None

    def json(self, name: str) -> Any:
        """The JSON value of an argument."""
        return self[name].value

    @property
    def is_cube(self) -> bool:
        """Whether the result is a cube."""
        return is_cube(self.value)

    def helper(self, function: Callable[..., Any]) -> str:
        """Put a function of `snippets` into the program; return its name."""
        return self.program.use_function(function)

    def has_child(self, name: str) -> bool:
        return isinstance(self.operands.get(name), Operand) and isinstance(self.operands[name].value, Graph)

    def inline(self, name: str, **bindings: Operand) -> Operand:
        """Write the statements of a child process; return its result."""
        return self.writer.inline_child(self, name, bindings)

    def define(
        self,
        name: str,
        *parameters: str,
        wish: str | None = None,
        dimension: str | None = None,
        is_nullable: bool = False,
    ) -> str:
        """Write a child process as a function of these parameters; return its name.

        ``dimension`` is that along which the parameters are arrays, ``is_nullable`` whether they may be null.
        """
        template = Operand("", None, dimension, is_nullable)
        return self.writer.define_child(self, name, parameters, wish or name, template)

    def probe(self, name: str, **parameters: Any) -> None:
        """Evaluate a child process that is called only when pixels are read, with values like those then."""
        self.writer.probe_graph(self, self.operands[name].value, parameters)

    def assign(self, wish: str, code: str) -> str:
        """Write a statement that gives a value a name; return the name."""
        name = self.program.take_name(wish)
        self.writer.add_line(f"{name} = {code}")
        return name

    def add_line(self, line: str) -> None:
        """Write a statement."""
        self.writer.add_line(line)


Emitter = Callable[[Call], Any]
EMITTERS: dict[str, Emitter] = {}


def emits(*ids: str) -> Callable[[Emitter], Emitter]:
    """Register a function as the one that writes calls of these processes.

    It returns code, or an `Operand` if its result is an array along another dimension than its arguments.
    """

    def register(function: Emitter) -> Emitter:
        for id_ in ids:
            EMITTERS[id_] = function
        return function

    return register
