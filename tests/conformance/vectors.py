"""Run official process test vectors: ``python -m tests.conformance.vectors [DIR]``.

Each case runs through `odc_openeo.graph.evaluate`: with JSON values and eager cubes, and again with cubes
backed by dask (computing during evaluation is an error then). Cases of numbers and arrays of numbers also
run inside a cube, once eagerly and once in dask chunks. A case passes if all its runs do.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import xarray as xr

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.cube import LabeledArray
from odc_openeo.errors import OpenEOError
from odc_openeo.graph import evaluate
from odc_openeo.registry.process import PROCESSES
from tests.conformance.comparison import difference
from tests.conformance.encoding import chunked, decode, in_cube, out_of_cube, read
from tests.conformance.faults import correct_case

DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "openeo" / "process-tests"
NUMBERS = frozenset({"number", "integer"})
ARRAYS = frozenset({"array"})
COMPUTING = frozenset({"trim_cube"})
"""Processes whose result has labels that only the values tell: they may compute while they are evaluated."""


@dataclass(frozen=True)
class Case:
    """One test of a vector file."""

    process: str
    index: int
    test: Mapping[str, Any]
    folder: Path
    fault: str | None = None

    @property
    def delta(self) -> float:
        """The tolerance of the comparison."""
        return float(self.test.get("delta", 1e-10))


def cases(folder: Path) -> Iterator[Case]:
    """All cases of a folder of vectors, in the order of file names."""
    for path in sorted(folder.glob("*.json*")):
        content = read(path)
        for index, test in enumerate(content["tests"]):
            right, fault = correct_case(content["id"], test)
            yield Case(content["id"], index, right, folder, fault)


def failures(case: Case) -> list[str]:
    """What is wrong in each run of a case; an empty list if it passes."""
    if case.process not in PROCESSES:
        return ["the process does not exist"]
    try:
        return [f"{name}: {problem}" for name, problem in _runs(case).items() if problem]
    except Exception as error:
        return [f"the case can't be run: {type(error).__name__}: {error}"]


def _runs(case: Case) -> dict[str, str | None]:
    runs = {"eager": _run_plain(case, False), "dask": _run_plain(case, True)}
    embedded = _arguments_in_cube(case)
    if embedded is not None:
        runs["in a cube"] = _run_in_cube(case, embedded, False)
        runs["in a dask cube"] = _run_in_cube(case, embedded, True)
    return runs


def _run_plain(case: Case, lazy: bool) -> str | None:
    arguments = {k: decode(v, case.folder) for k, v in case.test["arguments"].items()}
    result = _outcome(case.process, chunked(arguments) if lazy else arguments, lazy)
    if isinstance(result, Exception):
        return _wrong_error(case, result)
    if "returns" not in case.test:
        return f"got {result!r}, but it must raise {case.test['throws']}"
    expected = _decode_expected(case.test["returns"], case.folder)
    return difference(result, expected, case.delta)


def _wrong_error(case: Case, error: Exception) -> str | None:
    """What is wrong with an exception; nothing is if the case may raise it, whatever else it may do."""
    expected = isinstance(error, OpenEOError) and case.test.get("throws") in (True, error.code)
    return None if expected else f"raised {type(error).__name__}: {error}"


def _decode_expected(value: Any, folder: Path) -> Any:
    content = read(folder / value["$ref"]) if isinstance(value, Mapping) and "$ref" in value else value
    expected = decode(content, folder)
    if isinstance(expected, xr.DataArray) and content.get("data") is None:
        expected.attrs["irrelevant"] = True
    return expected


def _outcome(process: str, arguments: Mapping[str, Any], lazy: bool) -> Any:
    """The result of a one-node graph, or the exception it raised; cubes are computed afterwards."""
    children = {k: v for k, v in arguments.items() if _has_graph(v)}
    values = {k: v for k, v in arguments.items() if k not in children}
    node = {
        "process_id": process,
        "arguments": {**children, **{k: {"from_parameter": k} for k in values}},
        "result": True,
    }
    try:
        refuse = lazy and process not in COMPUTING
        with dask.config.set(scheduler=_refuse if refuse else "synchronous"):
            result = evaluate({"process_graph": {"it": node}}, parameters=values)
    except Exception as error:
        return error
    return result.compute(scheduler="synchronous") if isinstance(result, xr.DataArray) else result


def _has_graph(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "process_graph" in value or any(_has_graph(v) for v in value.values())
    return isinstance(value, list) and any(_has_graph(v) for v in value)


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("dask computed during evaluation")


# --- numbers and arrays inside a cube ------------------------------------------------------------


def _arguments_in_cube(case: Case) -> dict[str, Any] | None:
    """The arguments with numbers and arrays of them spread over pixels; None where that means nothing."""
    if "returns" not in case.test or not _representable(case.test["returns"], case.folder):
        return None
    arguments = {k: decode(v, case.folder) for k, v in case.test["arguments"].items()}
    embedded = dict(arguments)
    first = next(iter(PROCESSES[case.process].parameters.values()), None)
    if first is None or first.name not in arguments:
        return None
    expected = ARRAYS if isinstance(arguments[first.name], list) else NUMBERS
    if not _takes(first.schema, expected):
        return None
    result = in_cube(arguments[first.name])
    if result is None or any(isinstance(v, LabeledArray) for v in arguments.values()):
        return None
    return {**embedded, first.name: result}


def _takes(schema: Any, wanted_name: frozenset[str]) -> bool:
    alternatives = schema if isinstance(schema, list) else [schema]
    types = [s.get("type", "number") for s in alternatives if isinstance(s, Mapping)]
    return any(bool(wanted_name & ({t} if isinstance(t, str) else set(t))) for t in types)


def _representable(returns: Any, folder: Path) -> bool:
    value = decode(returns, folder)
    items = value if isinstance(value, list) else [value]
    return all(v is None or isinstance(v, bool | int | float) for v in items)


def _run_in_cube(case: Case, arguments: Mapping[str, Any], lazy: bool) -> str | None:
    result = _outcome(case.process, chunked(arguments) if lazy else arguments, lazy)
    if isinstance(result, Exception):
        return _wrong_error(case, result)
    try:
        value = out_of_cube(result)
    except AssertionError as error:
        return str(error)
    expected = decode(case.test["returns"], case.folder)
    value = _without_padding(value, expected)
    return difference(value, expected, max(case.delta, 1e-9), nan_is_null=True)


def _without_padding(value: Any, expected: Any) -> Any:
    """All pixels of a cube have arrays of one length: no-data is at the end, or where one was left out.

    The value without as much of it as it is longer than what is expected.
    """
    if not isinstance(value, list) or not isinstance(expected, list):
        return value
    surplus, kept = len(value) - len(expected), []
    for item in value:
        awaited = expected[len(kept)] if len(kept) < len(expected) else 0
        if surplus > 0 and _is_nan(item) and awaited is not None:
            surplus -= 1
        else:
            kept.append(item)
    return kept


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def main(arguments: list[str]) -> int:
    """Run a folder, print a line a process, return the exit code."""
    folder = Path(arguments[0]) if arguments else DEFAULT
    passed: dict[str, int] = {}
    failed: dict[str, list[str]] = {}
    for case in cases(folder):
        problems = failures(case)
        if case.fault:
            print(f"{case.process} #{case.index} is corrected: {case.fault}")
        passed[case.process] = passed.get(case.process, 0) + (not problems)
        failed.setdefault(case.process, []).extend(
            [f"#{case.index} {'; '.join(problems)}"] if problems else []
        )
    for process, problems in sorted(failed.items()):
        print(f"{process}: {passed[process]} passed, {len(problems)} failed")
        for problem in problems:
            print(f"    {problem[:600]}")
    total = sum(passed.values()), sum(map(len, failed.values()))
    print(f"{total[0]} passed, {total[1]} failed")
    return 1 if total[1] or not total[0] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
