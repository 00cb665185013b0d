"""The runner of test vectors: special objects, exceptions, what it prints, its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import vectors
from tests.support.graphs import child

NODATA = {"type": "nodata"}
X = {"from_parameter": "x"}


def raster(values: list[Any], nodata: Any) -> dict[str, Any]:
    axis = {"type": "spatial", "axis": "x", "values": list(range(len(values)))}
    return {"type": "datacube", "nodata": nodata, "order": ["x"], "dimensions": {"x": axis}, "data": values}


def series(labels: list[str], values: list[Any]) -> dict[str, Any]:
    dimension = {"type": "temporal", "values": labels}
    return {"type": "datacube", "order": ["t"], "dimensions": {"t": dimension}, "data": values}


def run(
    folder: Path, capsys: pytest.CaptureFixture[str], process: str, *tests: dict[str, Any]
) -> tuple[int, list[str]]:
    (folder / f"{process}.json").write_text(json.dumps({"id": process, "tests": tests}))
    code = vectors.main([str(folder)])
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("process", "test"),
    [
        # What is filtered out of arrays in a cube leaves no-data behind, wherever it was.
        ("array_filter", {"data": [1, 5, 2, 6], "condition": child("gt", x=X, y=4), "returns": [5, 6]}),
        (
            "array_filter",
            {"data": [None, 5, None, 6], "condition": child("neq", x=X, y=5), "returns": [6]},
        ),
        (
            "array_apply",
            {"data": [1, None], "process": child("if", value=True, accept=NODATA), "returns": [None] * 2},
        ),
        (
            "apply",
            {"data": raster([1, 9], [9]), "process": child("add", x=X, y=1), "returns": raster([2, 9], [9])},
        ),
        (
            "apply",
            {
                "data": raster([-5.0, 0.5], -5),
                "process": child("add", x=X, y=1),
                "returns": raster([NODATA, 1.5], None),
            },
        ),
        (
            "drop_dimension",
            {
                "data": raster([7], None),
                "name": "x",
                "returns": {"type": "datacube", "order": [], "dimensions": {}, "data": 7},
            },
        ),
        (
            "filter_temporal",
            {
                "data": series(["2020-01-01", "2020-01-02"], [1, 2]),
                "extent": ["2020-01-02", None],
                "returns": series(["2020-01-02T00:00:00Z"], [2]),
            },
        ),
        (
            "trim_cube",
            {
                "data": raster([None, 2.5, None], None),
                "returns": {
                    **raster([2.5], None),
                    "dimensions": {"x": {"type": "spatial", "axis": "x", "values": [1]}},
                },
            },
        ),
        ("constant", {"x": {"a": [1.0, {"b": NODATA}]}, "returns": {"a": [1.0 + 1e-12, {"b": None}]}}),
        ("array_create", {"data": ["},]", ",}"], "returns": ["},]", ",}"]}),
        ("divide", {"x": 1, "y": 0, "returns": 5, "throws": "DivisionByZero"}),
        ("add", {"x": 10, "y": 1, "returns": 12, "delta": 1}),
    ],
)
def test_right_results_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], process: str, test: dict[str, Any]
) -> None:
    document = {name: test.pop(name) for name in ("returns", "throws", "delta") if name in test}
    if process == "divide":
        document["returns"] = float("inf")
    code, lines = run(tmp_path, capsys, process, {"arguments": test, **document})
    assert (code, lines) == (0, [f"{process}: 1 passed, 0 failed", "1 passed, 0 failed"])


@pytest.mark.parametrize(
    ("process", "test"),
    [
        ("add", {"arguments": {"x": 1, "y": 1}, "returns": 3}),
        ("add", {"arguments": {"x": 1, "y": 1}, "throws": True}),
        ("array_element", {"arguments": {"data": []}, "throws": "ArrayElementNotAvailable"}),
        ("constant", {"arguments": {"x": {"a": 1}}, "returns": {"a": 2}}),
        ("constant", {"arguments": {"x": "soon"}, "returns": "2020-01-01T00:00:00Z"}),
        ("constant", {"arguments": {"x": {"$ref": "missing.json"}}, "returns": 1}),
        ("no_process", {"arguments": {}, "returns": 1}),
        (
            "reduce_dimension",
            {
                "arguments": {"data": raster([1], None), "reducer": {"process_graph": {}}, "dimension": "x"},
                "returns": 1,
            },
        ),
    ],
)
def test_wrong_results_and_broken_cases_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], process: str, test: dict[str, Any]
) -> None:
    code, lines = run(tmp_path, capsys, process, test)
    assert (code, lines[0], lines[-1]) == (1, f"{process}: 0 passed, 1 failed", "0 passed, 1 failed")


def test_files_may_be_json5_and_refer_to_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "list.json5").write_text("[+1, .5, NaN, -Infinity, /* none */ null,]")
    (tmp_path / "assets" / "system.wkt2").write_text('LOCAL["x"]')
    (tmp_path / "constant.json5").write_text(
        """{id: 'constant', // of any kind
        tests: [{arguments: {x: {$ref: 'assets/list.json5'}}, returns: [1, 0.5, NaN, -Infinity, null]},
                {arguments: {x: {$ref: 'assets/system.wkt2'}}, returns: 'LOCAL["x"]'}]}"""
    )
    assert vectors.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 passed, 0 failed"


def test_an_empty_folder_fails(tmp_path: Path) -> None:
    assert vectors.main([str(tmp_path)]) == 1
