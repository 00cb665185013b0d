"""An explanation says how the process is split as a batch job: as JSON, in words, in the diagrams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from odc_openeo import jobs
from odc_openeo.config import Config
from odc_openeo.errors import ProcessGraphComplexity
from odc_openeo.evaluation.estimates import estimate_job
from odc_openeo.evaluation.validation import find_all_problems
from odc_openeo.explain import draw_plan, explain_process
from odc_openeo.jobs import JobDraft
from odc_openeo.parts import plan_parts, read_part_limits
from odc_openeo.user_data.run_environment import make_environment
from odc_openeo.users import accounts
from tests.catalog.scenes import Grid, Index, document
from tests.support.graphs import child, value

SIDE = 550_000
"""Rows and columns of a scene of which two bands are 1.2 TB, more than one graph may load."""


def make_graph(*, reducer: str = "max", over: str = "t", extra: Any = None) -> dict[str, Any]:
    """A reduction of all pixels of a collection, saved."""
    extents = {"spatial_extent": None, "temporal_extent": None, "bands": ["B04", "B08"]}
    process = "reduce_spatial" if over == "pixels" else "reduce_dimension"
    arguments = {"reducer": child(reducer, data=value("data"))} | (
        {} if over == "pixels" else {"dimension": over}
    )
    return {
        "load": {"process_id": "load_collection", "arguments": {"id": "tiny_s2", **extents}},
        "few": {"process_id": process, "arguments": {"data": {"from_node": "load"}, **arguments}},
        "save": {
            "process_id": "save_result",
            "arguments": {"data": {"from_node": "few"}, "format": "GTiff" if over == "t" else "JSON"},
            "result": True,
        },
        **(extra or {}),
    }


SECOND = {
    "again": {"process_id": "save_result", "arguments": {"data": {"from_node": "load"}, "format": "netCDF"}}
}


@pytest.fixture
def huge(index: Index, tmp_path: Path) -> Index:
    """A scene that only the index has."""
    grid = Grid(-2_750_000, 2_750_000, 10, (SIDE, SIDE), 3857)
    bands = ("B04", "B08", "B11", "SCL")
    files = {band: {"path": f"{band}.tif", "grid": "default"} for band in bands}
    index.add(document(tmp_path, files, {"default": grid}, "tiny_s2", "2022-06-01T10:00:00Z"))
    return index


@pytest.fixture
def config(odc_config: Config) -> Config:
    """Settings by which parts are measured soon."""
    return odc_config.model_copy(update={"part_tasks": 2000})


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({}, "space", "parts of up to"),
        ({"over": "pixels"}, "stages", "a last step combines their values"),
        ({"extra": SECOND}, "whole", "It saves several results."),
    ],
    ids=["windows", "two stages", "two results"],
)
def test_a_large_process_is_split_as_the_worker_splits_it(
    huge: Index, config: Config, arguments: dict[str, Any], kind: str, words: str
) -> None:
    process = {"process_graph": make_graph(**arguments)}
    explained = explain_process(config, process, None)
    parts = explained["plan"]["parts"]
    split = plan_parts(process, make_environment(config, None), read_part_limits(config))
    assert (parts["kind"], parts["count"], parts["reason"]) == (kind, len(split.parts), split.reason)
    assert words in explained["text"]
    drawing = draw_plan(explained["plan"])
    (note,) = [box for box in drawing.boxes if box.is_note]
    assert note.y + 58 <= drawing.height
    assert note.title in explained["diagram"]
    if kind == "whole":
        assert parts["count"] == 1
        assert str(parts["reason"]) in explained["text"]
        return
    assert parts["count"] > 1
    windows = [part.window for part in split.parts if part.window]
    assert (parts["rows"], parts["columns"]) == tuple(max(w.shape[i] for w in windows) for i in (0, 1))
    assert parts["most_tasks"] <= config.part_tasks
    assert (
        f"in {parts['count']:,} parts of up to {parts['rows']} x {parts['columns']} pixels"
        in explained["text"]
    )
    assert f"{parts['count']:,} parts" in note.title


def test_what_runs_in_parts_is_not_refused_for_its_size(huge: Index, config: Config) -> None:
    process = {"process_graph": make_graph()}
    assert find_all_problems(config, process, None) == []
    user = accounts.create_user(config, "ada", "correct horse").id
    job = jobs.create_job(config, user, JobDraft(process))
    estimate = estimate_job(config, jobs.get_job(config, user, str(job)))
    assert estimate["input_size"] == SIDE * SIDE * 2 * 2
    assert estimate["parts"] == explain_process(config, process, user)["plan"]["parts"]["count"]


def test_what_does_not_split_and_is_too_much_at_once_is_refused(huge: Index, config: Config) -> None:
    with pytest.raises(ProcessGraphComplexity, match="and 1,099.5 GB may be read"):
        explain_process(config, {"process_graph": make_graph(over="pixels", reducer="median")}, None)


def test_a_small_process_is_one_part(tiny: Any, config: Config) -> None:
    explained = explain_process(config, {"process_graph": make_graph()}, None)
    parts = explained["plan"]["parts"]
    assert (parts["count"], parts["kind"], parts["reason"]) == (1, "whole", None)
    assert parts["tasks"] == explained["plan"]["estimate"]["tasks"]
    assert "in one part: it is small enough" in explained["text"]
    assert "parts" not in explained["diagram"]
    assert not any(box.is_note for box in draw_plan(explained["plan"]).boxes)
