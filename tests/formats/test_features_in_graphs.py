"""The geometries of filter_spatial reach save_result through other processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.formats import write_outputs
from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment
from tests.formats.cubes import raster
from tests.formats.test_options import polygons
from tests.support.graphs import child

X = {"from_parameter": "x"}
DATA = {"from_parameter": "data"}


def node(process_id: str, origin: str = "filter", **arguments: Any) -> dict[str, Any]:
    return {"process_id": process_id, "arguments": {"data": {"from_node": origin}, **arguments}}


ITSELF = {"from_node": "filter"}
BETWEEN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "apply": {"a": node("apply", process=child("multiply", x=X, y=2))},
    "median over time": {"a": node("reduce_dimension", dimension="t", reducer=child("median", data=DATA))},
    "one band": {
        "a": node("reduce_dimension", dimension="bands", reducer=child("array_element", data=DATA, index=1))
    },
    "apply along time": {"a": node("apply_dimension", dimension="t", process=child("cumsum", data=DATA))},
    "months": {"a": node("aggregate_temporal_period", period="month", reducer=child("mean", data=DATA))},
    "mask": {"m": node("apply", process=child("gt", x=X, y=90)), "a": node("mask", mask={"from_node": "m"})},
    "merge": {
        "m": node("apply", process=child("multiply", x=X, y=2)),
        "a": {
            "process_id": "merge_cubes",
            "arguments": {
                "cube1": ITSELF,
                "cube2": {"from_node": "m"},
                "overlap_resolver": child("max", data=[X, {"from_parameter": "y"}]),
            },
        },
    },
    "index": {"a": node("ndvi", nir="B02", red="B01", target_band="NDVI")},
    "coarser pixels": {"a": node("resample_spatial", resolution=20)},
    "kernel": {"a": node("apply_kernel", kernel=[[0, 0, 0], [0, 1, 0], [0, 0, 0]])},
    "bands": {"a": node("filter_bands", bands=["B02"])},
    "renamed": {"a": node("rename_labels", dimension="bands", source=["B01"], target=["one"])},
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("chunks", [None, {"y": 16, "t": 1}])
def test_a_file_for_each_feature_whatever_is_between(
    tmp_path: Path, between: str, chunks: dict[str, int] | None
) -> None:
    graph = {
        "filter": {
            "process_id": "filter_spatial",
            "arguments": {"data": {"from_parameter": "cube"}, "geometries": polygons(id=["a", "b", "c"])},
        },
        **BETWEEN[between],
    }
    options = {"sample_by_feature": True, "feature_id_property": "id"}
    last = list(graph)[-1]
    graph["save"] = {**node("save_result", last, format="GTiff", options=options), "result": True}
    cube = raster().odc.assign_crs("EPSG:32632")
    env = Environment()
    process = {"process_graph": graph, "parameters": [{"name": "cube"}]}
    evaluate(process, env, {"cube": cube.chunk(chunks) if chunks else cube})
    assets = write_outputs(None, env.outputs, tmp_path)
    assert {asset.path.stem.split("_")[1] for asset in assets} == {"a", "b"}
    with rasterio.open(assets[-1].path) as file:
        assert (file.height, file.width) == ((2, 3) if between == "coarser pixels" else (4, 5))
        assert np.isfinite(file.read()).any()
