"""Random process graphs, made from the process descriptions, evaluated and written to files.

Graphs are chains of a few nodes on tiny cubes; arguments are often valid, often not, constants, values of
nodes, or both mixed. Each must end in a result or in an openEO error that is not the server's fault.
"""

from __future__ import annotations

import logging
import math
import random
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import dask

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.errors import FeatureUnsupported, OpenEOError
from odc_openeo.formats import FORMATS, write_outputs
from odc_openeo.graph import evaluate
from odc_openeo.graph.estimate import Bounds, estimate_computation
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import PROCESSES, Parameter
from tests.fuzz.graph_sources import ARRAYS, CUBES, EMPTY, FEATURES, NULLS, POLYGON, VECTORS, make_sources
from tests.fuzz.trials import Outcome, Report, run_trials

DEADLINE_S = 60.0
MOST_BYTES, MOST_TASKS = 2**28, 100_000
NEED_A_CATALOG = frozenset(
    {
        *("load_collection", "load_stac", "load_url", "load_uploaded_files", "load_ml_model", "load_result"),
        *("export_workspace", "export_collection"),
    }
)
IDS = sorted(PROCESSES.keys() - NEED_A_CATALOG - {"save_result"})
DIMENSIONS = ["t", "bands", "x", "y", "geometry", "properties", "z", "new", "spatial_ref", "nodata", ""]
STRINGS = [
    *("B04", "B08", "red", "nir", "a", "value", "2022-01-03", "2022-01-13T10:00:00Z", "2022-01-01T00:00:00Z"),
    *("10:00:00", "2022", "2022-01", "month", "near", "ß" * 3, "é́", "\U0001f600", "__array__", "%Y", "mean"),
    *("9999-12-31", "0001-01-01", "2022-13-45", "+inf", "name", "common_name", "EPSG:32632", "id"),
]
NUMBERS = [0, 1, 2, 3, -1, 10, 0.5, -2.5, 1e-300, 2.0, 255, 32632, 4326, 65536]
ODD_NUMBERS = [math.nan, math.inf, -math.inf, 1e308, -1e308, 2**31, 2**53 + 1, 2**63, -(2**63), 10**400]
ODD_VALUES: list[Any] = [
    *(None, True, False, "", [], {}, [[]], [None], [True], ["a", 1], [1, [2, [3]]], [math.nan], [math.inf]),
    *(
        {"a": 1},
        {"type": "Point", "coordinates": [0, 0]},
        {"from": 1},
        [{}],
        [[None, None]],
        [1e308, 100, 1e9],
    ),
    *(EMPTY, NULLS, FEATURES, [0, 1], [1, 0], ["2022-01-01", "2022-02-01"], [["2022-01-01", "2022-02-01"]]),
    *([0] * 1000, [[1] * 3] * 3, [["B04"]], "x" * 10_000, [2**64], [-1], [2**31, 1]),
]


def run(cases: int, seed: int) -> Report:
    """Run random graphs."""
    preload = ("odc_openeo.processes", "odc_openeo.formats")
    report = Report("graphs", seed)
    return run_trials(report, make_cases(cases, seed), attempt_graph, deadline_s=DEADLINE_S, preload=preload)


def make_cases(cases: int, seed: int) -> Iterator[Mapping[str, Any]]:
    """Make processes whose outer parameters are the sources."""
    for number in range(cases):
        yield _Maker(random.Random(seed * 1_000_003 + number)).make_process()


def attempt_graph(process: Mapping[str, Any]) -> Outcome:
    """Evaluate a process and write its results."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    env = Environment()
    try:
        value = evaluate(process, env, parameters=_read_sources())
        outputs = [output.data for output in env.outputs] or [value]
        Bounds(MOST_BYTES, MOST_TASKS).check_estimate(
            estimate_computation([value, *outputs], outputs, []), "a fuzz case"
        )
        with tempfile.TemporaryDirectory() as folder:
            write_outputs(value, env.outputs, Path(folder), partial(dask.compute, scheduler="synchronous"))
    except OpenEOError as error:
        if error.status >= 500 and not isinstance(error, FeatureUnsupported):
            return Outcome(fault=_describe_fault(error))
        return Outcome(refused=True)
    except Exception as error:
        return Outcome(fault=_describe_fault(error))
    return Outcome()


def _describe_fault(error: Exception) -> str:
    """What was raised, and the last lines of the product that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames if "odc_openeo" in f.filename]
    return f"{type(error).__name__}: {str(error)[:300]}\n    at: {' > '.join(lines[-6:])}"


@cache
def _read_sources() -> dict[str, Any]:
    return make_sources()


@dataclass
class _Maker:
    """Makes one process; ``names`` are the parameters that may be referred to, by kind."""

    rng: random.Random
    names: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"cube": CUBES, "vector": VECTORS, "array": ARRAYS}
    )
    depth: int = 0
    oddness: float = 0.0

    def make_process(self) -> dict[str, Any]:
        nodes: dict[str, Any] = {}
        self.oddness = self.rng.choice([0.0, 0.02, 0.1])
        for _ in range(self.rng.choice([1, 1, 1, 2, 2, 3, 4, 6])):
            self._add_node(nodes, self._pick_process())
        last = list(nodes)[-1]
        if self.rng.random() < (0.9 if "cube" in _list_kinds(nodes[last]["process_id"]) else self.oddness):
            arguments = {"data": {"from_node": last}, "format": self.rng.choice(list(FORMATS)).upper()}
            nodes["save"] = {"process_id": "save_result", "arguments": arguments}
        last = list(nodes)[-1]
        nodes[last]["result"] = True
        return {"process_graph": nodes}

    def _pick_process(self) -> str:
        if self.depth == 0 and self.rng.random() < 0.6:
            return self.rng.choice(_list_cube_processes())
        return self.rng.choice(IDS)

    def _add_node(self, nodes: dict[str, Any], id_: str) -> None:
        arguments = {}
        for parameter in PROCESSES[id_].parameters.values():
            if not parameter.optional or self.rng.random() < 0.4:
                arguments[parameter.name] = self._make_argument(parameter, nodes)
        nodes[f"n{len(nodes)}"] = {"process_id": id_, "arguments": arguments}

    def _refer(self, nodes: Mapping[str, Any]) -> Any:
        if nodes and (self.rng.random() < 0.9 or not self.names):
            return {"from_node": list(nodes)[-1] if self.rng.random() < 0.8 else self.rng.choice(list(nodes))}
        return self._refer_outside(self.rng.choice(list(self.names)))

    def _refer_outside(self, kind: str) -> Any:
        names = self.names.get(kind) or next(iter(self.names.values()))
        return {"from_parameter": self.rng.choice(names)}

    def _make_argument(self, parameter: Parameter, nodes: dict[str, Any]) -> Any:
        choice = self.rng.random()
        if choice < self.oddness:
            return self._make_odd()
        if choice < self.oddness * 2:
            return self._refer(nodes)
        if choice < self.oddness * 3:
            name = f"n{len(nodes)}"
            nodes[name] = {"process_id": "constant", "arguments": {"x": self._make_odd()}}
            return {"from_node": name}
        schema = self.rng.choice(parameter.alternatives)
        if parameter.child_schema is not None:
            return self._make_child(parameter.child_schema)
        if self.depth and parameter.name in ("x", "y", "data") and choice < 0.85:
            return self._refer(nodes)
        return self._make_valid(schema, parameter.name, nodes)

    def _make_child(self, schema: Mapping[str, Any]) -> Any:
        given = tuple(p["name"] for p in schema.get("parameters", ()))
        names = {"array": given[:1], "first": given[:1], "given": given} if given else self.names
        maker = _Maker(self.rng, names, self.depth + 1, self.oddness)
        nodes: dict[str, Any] = {}
        for _ in range(self.rng.choice([0, 0, 1, 2])):
            maker._add_node(nodes, self._pick_inner())
        maker._add_node(nodes, self._pick_last(given[:1]))
        nodes[list(nodes)[-1]]["result"] = True
        return {"process_graph": nodes}

    def _pick_inner(self) -> str:
        return self.rng.choice(_list_value_processes()) if self.rng.random() < 0.95 else self._pick_process()

    def _pick_last(self, given: tuple[str, ...]) -> str:
        likely = _list_processes_of("reducer" if self.rng.random() < 0.7 else "arrays")
        if given == ("x",):
            likely = _list_processes_of("math" if self.rng.random() < 0.7 else "comparison")
        return self.rng.choice(likely) if self.rng.random() < 0.8 else self._pick_inner()

    def _make_valid(self, schema: Mapping[str, Any], name: str, nodes: dict[str, Any]) -> Any:
        subtype = str(schema.get("subtype", ""))
        if subtype.endswith("cube"):
            vector = {"type": "geometry"}.items() <= {
                k: v for d in schema.get("dimensions", ()) for k, v in d.items()
            }.items()
            cubes = [id_ for id_, node in nodes.items() if "cube" in _list_kinds(node["process_id"])]
            if cubes and self.rng.random() < 0.7:
                return {"from_node": cubes[-1] if self.rng.random() < 0.8 else self.rng.choice(cubes)}
            return self._refer_outside("vector" if vector or self.rng.random() < 0.1 else "cube")
        if subtype == "geojson":
            return self.rng.choice([POLYGON, FEATURES, NULLS, EMPTY])
        if self.depth and self.rng.random() < 0.3:
            return self._refer(nodes)
        types = schema.get("type", ())
        expected = {types} if isinstance(types, str) else set(types)
        cubes = [id_ for id_, node in nodes.items() if expected & _list_kinds(node["process_id"])]
        if cubes and self.rng.random() < 0.3:
            return {"from_node": self.rng.choice(cubes)}
        return self._make_constant(schema, name, nodes)

    def _make_constant(self, schema: Mapping[str, Any], name: str, nodes: dict[str, Any]) -> Any:
        if "enum" in schema:
            return self.rng.choice(schema["enum"])
        types = schema.get("type")
        if types is None:
            return self._make_odd() if self.rng.random() < self.oddness * 3 else self._refer(nodes)
        type_ = self.rng.choice(types) if isinstance(types, list) else types
        makers = {"string": self._make_string, "number": self._make_number, "integer": self._make_integer}
        if type_ in makers:
            return makers[type_](name)
        if type_ == "array":
            length = self.rng.choice([0, 1, 2, 2, 3, 5]) if "minItems" not in schema else schema["minItems"]
            items = schema.get("items", {})
            items = self.rng.choice(items["anyOf"]) if "anyOf" in items else items
            if not items:
                return [self._make_number(name) for _ in range(length)]
            return [self._make_item(items, name, nodes) for _ in range(length)]
        if type_ == "object":
            return self._make_object(schema, name, nodes)
        return self.rng.choice([True, False]) if type_ == "boolean" else None

    def _make_item(self, schema: Mapping[str, Any], name: str, nodes: dict[str, Any]) -> Any:
        return self._refer(nodes) if self.rng.random() < 0.04 else self._make_constant(schema, name, nodes)

    def _make_object(self, schema: Mapping[str, Any], name: str, nodes: dict[str, Any]) -> Any:
        if schema.get("subtype") == "bounding-box":
            box = {"west": 600_010, "south": 4_999_960, "east": 600_040, "north": 4_999_990, "crs": 32632}
            return box | ({self.rng.choice(list(box)): self._make_odd()} if self.rng.random() < 0.2 else {})
        properties = schema.get("properties", {})
        return {key: self._make_constant(inner, key, nodes) for key, inner in properties.items()}

    def _make_string(self, name: str) -> str:
        if "dimension" in name or name in ("name", "source", "target"):
            pick = self.rng.random()
            return self.rng.choice(DIMENSIONS[:6] if pick < 0.8 else DIMENSIONS if pick < 0.95 else STRINGS)
        return self.rng.choice(STRINGS)

    def _make_number(self, name: str) -> Any:
        return self.rng.choice(ODD_NUMBERS if self.rng.random() < self.oddness else NUMBERS)

    def _make_integer(self, name: str) -> Any:
        if name in ("crs", "projection") and self.rng.random() < 0.8:
            return self.rng.choice([32632, 4326, 3035])
        numbers = [n for n in NUMBERS if isinstance(n, int)]
        return self.rng.choice([*ODD_NUMBERS[5:], 2.0] if self.rng.random() < self.oddness else numbers)

    def _make_odd(self) -> Any:
        pick = self.rng.random()
        if pick < 0.1:
            node = {"process_id": "add", "arguments": {"x": 1, "y": 2}, "result": True}
            child = {"process_graph": {"a": node}}
            return child if self.rng.random() < 0.5 else [child]
        if pick < 0.3:
            return self.rng.choice(NUMBERS)
        if pick < 0.5:
            return self.rng.choice(ODD_NUMBERS)
        return self.rng.choice(STRINGS) if pick < 0.6 else self.rng.choice(ODD_VALUES)


@cache
def _list_cube_processes() -> list[str]:
    """The processes that take a cube."""
    return [id_ for id_ in IDS if any(_takes_cube(p) for p in PROCESSES[id_].parameters.values())]


@cache
def _list_value_processes() -> list[str]:
    """The processes for children: those of numbers, arrays and strings."""
    return [id_ for id_ in IDS if id_ not in _list_cube_processes()]


@cache
def _list_kinds(id_: str) -> frozenset[str]:
    """The kinds of values that a process returns: types of JSON, or ``cube``."""
    schemas = PROCESSES[id_].returns
    kinds: set[str] = set()
    for schema in schemas if isinstance(schemas, list) else [schemas]:
        types = "cube" if str(schema.get("subtype", "")).endswith("cube") else schema.get("type", "cube")
        kinds |= {types} if isinstance(types, str) else set(types)
    return frozenset(kinds)


@cache
def _list_processes_of(category: str) -> list[str]:
    return [id_ for id_ in _list_value_processes() if category in PROCESSES[id_].categories]


def _takes_cube(parameter: Parameter) -> bool:
    return any(str(s.get("subtype", "")).endswith("cube") for s in parameter.alternatives)
