"""What the graph needs reaches the loads, and the values are the same as without any planning."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.catalog import Catalog
from odc_openeo.errors import ProcessGraphComplexity
from odc_openeo.graph import evaluate
from odc_openeo.indexing.cog import write_cog
from odc_openeo.load import chunking
from odc_openeo.load.driver import RasterReader
from odc_openeo.registry.environment import Environment, RunLimits
from tests.catalog.scenes import Grid, Index, document
from tests.load.test_load_collection import BOX, two  # noqa: F401  (a fixture)
from tests.support.graphs import child

Graph = dict[str, dict[str, Any]]


def node(process_id: str, source: str | None = "load", **arguments: Any) -> dict[str, Any]:
    data = {"data": {"from_node": source}} if source else {}
    return {"process_id": process_id, "arguments": {**data, **arguments}}


X = {"from_parameter": "x"}
DATA = {"from_parameter": "data"}
LOAD = node("load_collection", None, id="tiny_s2", spatial_extent=None, temporal_extent=None)
HALF = {**BOX, "east": BOX["west"] + 50}
DEGREES = {"west": 10.3153, "south": 46.9424, "east": 10.3163, "north": 46.9431}

GRAPHS: dict[str, Graph] = {
    "box": {"end": node("filter_bbox", extent=BOX)},
    "box in degrees": {"end": node("filter_bbox", extent=DEGREES)},
    "box outside": {"end": node("filter_bbox", extent={**BOX, "west": 700000, "east": 700100})},
    "two boxes": {"a": node("filter_bbox", extent=BOX), "end": node("filter_bbox", "a", extent=HALF)},
    "time": {"end": node("filter_temporal", extent=["2022-06-03", None])},
    "time without data": {"end": node("filter_temporal", extent=["2020-01-01", "2020-02-01"])},
    "bands": {"end": node("filter_bands", bands=["SCL", "B04"])},
    "bands by alias and common name": {"end": node("filter_bands", bands=["infrared"])},
    "after a mean over time": {
        "a": node("reduce_dimension", dimension="t", reducer=child("mean", data=DATA)),
        "end": node("filter_bbox", "a", extent=BOX),
    },
    "after a band": {
        "a": node("reduce_dimension", dimension="bands", reducer=child("array_element", data=DATA, index=1)),
        "end": node("filter_temporal", "a", extent=["2022-06-01", "2022-06-02"]),
    },
    "mask": {
        "scl": node("filter_bands", bands=["SCL"]),
        "flat": node("drop_dimension", "scl", name="bands"),
        "clouds": node("apply", "flat", process=child("gt", x=X, y=100)),
        "masked": node("mask", mask={"from_node": "clouds"}),
        "end": node("filter_bbox", "masked", extent=BOX),
    },
    "merged": {
        "a": node("filter_bands", bands=["B04"]),
        "b": node("filter_bands", bands=["B08"]),
        "m": {
            "process_id": "merge_cubes",
            "arguments": {"cube1": {"from_node": "a"}, "cube2": {"from_node": "b"}},
        },
        "end": node("filter_bbox", "m", extent=BOX),
    },
    "months": {
        "a": node("aggregate_temporal_period", period="month", reducer=child("max", data=DATA)),
        "end": node("filter_bbox", "a", extent=BOX),
    },
    "two consumers": {
        "a": node("filter_bbox", extent=HALF),
        "b": node("filter_temporal", extent=["2022-06-03", None]),
        "r": node("reduce_dimension", "b", dimension="t", reducer=child("max", data=DATA)),
        "end": {
            "process_id": "merge_cubes",
            "arguments": {
                "cube1": {"from_node": "a"},
                "cube2": {"from_node": "r"},
                "overlap_resolver": child("subtract", x=X, y={"from_parameter": "y"}),
            },
        },
    },
}


def run(catalog: Catalog, graph: Graph, *, plan: bool = True) -> xr.DataArray:
    nodes = {"load": LOAD, **graph}
    nodes["end"] = {**nodes["end"], "result": True}
    result = evaluate({"process_graph": nodes}, Environment(catalog), plan=plan)
    return result.compute(scheduler="threads")


@pytest.mark.parametrize("name", GRAPHS)
def test_values_are_the_same_without_a_plan(
    catalog: Catalog,
    two: Path,  # noqa: F811
    name: str,
) -> None:
    planned = run(catalog, GRAPHS[name])
    unplanned = run(catalog, GRAPHS[name], plan=False)
    xr.testing.assert_equal(planned.drop_attrs(), unplanned.drop_attrs())
    assert planned.dtype == unplanned.dtype
    assert planned.attrs.get("nodata") == unplanned.attrs.get("nodata")


def test_a_load_that_is_filtered_afterwards_is_not_refused(catalog: Catalog, two: Path) -> None:  # noqa: F811
    """The limit counts what is needed, not what the arguments of the load alone would give."""
    limited: Callable[[Graph], Any] = lambda graph: evaluate(  # noqa: E731
        {"process_graph": {"load": LOAD, **graph}},
        Environment(catalog, limits=RunLimits(load_bytes=20_000)),
    )
    with pytest.raises(ProcessGraphComplexity, match="80 x 60 pixels"):
        limited({"end": {**node("apply", process=child("absolute", x=X)), "result": True}})
    small = limited({"end": {**node("filter_bbox", extent=BOX), "result": True}})
    assert small.sizes["x"] == 10


# --- Fewer pixels --------------------------------------------------------------------------------

SIZE = 512
GRID = GeoBox((SIZE, SIZE), Affine(10, 0, 600000, 0, -10, 5200000), "EPSG:32632")


@pytest.fixture
def large(catalog: Catalog, index: Index, tmp_path: Path) -> dict[str, np.ndarray]:
    """A scene of Cloud Optimized GeoTIFFs with one overview each; the values of its bands."""
    generator = np.random.default_rng(1)
    bands = {name: generator.integers(1, 200, (SIZE, SIZE), "uint16") for name in ("B04", "B08", "B11")}
    bands["SCL"] = generator.integers(1, 12, (SIZE, SIZE), "uint8")
    grid = Grid(600000, 5200000, 10, (SIZE, SIZE))
    for name, values in bands.items():
        averaged = name != "SCL"
        write_cog(
            tmp_path / f"{name}.tif", values, GRID, 255 if name == "SCL" else 0, averaged=averaged, title=""
        )
    files = {name: {"path": f"{name}.tif"} for name in bands}
    index.add(document(tmp_path, files, {"default": grid}, "tiny_s2", "2022-06-01T10:00:00Z"))
    for name in files:
        with rasterio.open(tmp_path / f"{name}.tif", overview_level=0) as file:
            bands[f"{name} overview"] = file.read(1)
    return bands


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is read: the bands, and how many pixels of them."""
    items: list[tuple[str, int]] = []
    read = RasterReader.read

    def recording(self: Any, cfg: Any, dst_geobox: GeoBox, **options: Any) -> Any:
        items.append((self._place["name"], dst_geobox.shape[0] * dst_geobox.shape[1]))
        return read(self, cfg, dst_geobox, **options)

    monkeypatch.setattr(RasterReader, "read", recording)
    return items


def band(name: str) -> dict[str, Any]:
    return {**LOAD, "arguments": {**LOAD["arguments"], "bands": [name]}}


COARSER = {"resolution": 20, "method": "near"}


def test_a_preview_is_read_from_overviews(
    catalog: Catalog, large: dict[str, np.ndarray], reads: list[tuple[str, int]]
) -> None:
    result = run(catalog, {"load": band("B04"), "end": node("resample_spatial", **COARSER)})
    np.testing.assert_array_equal(result[0, 0], large["B04 overview"])
    assert result.odc.geobox == GRID.zoom_out(2)
    assert reads == [("B04", (SIZE // 2) ** 2)]
    assert result.dtype == "uint16"


def test_preview_in_other_crs_equals_odc_stac(
    catalog: Catalog, large: dict[str, np.ndarray], tmp_path: Path
) -> None:
    arguments = {"resolution": 30, "projection": 3035}
    result = run(catalog, {"load": band("B04"), "end": node("resample_spatial", **arguments)})
    outline = GRID.extent.to_crs("EPSG:4326")
    scenes = pystac.Item("i", outline.json, None, datetime(2022, 6, 1, 10, tzinfo=UTC), {})
    scenes.add_asset("B04", pystac.Asset(str(tmp_path / "B04.tif"), roles=["data"]))
    by_hand = odc.stac.load([scenes], bands=["B04"], geobox=result.odc.geobox, resampling="nearest")
    np.testing.assert_array_equal(result[0, 0], by_hand["B04"][0].fillna(0))
    assert (result != 0).mean() > 0.8


def test_pixelwise_processes_keep_pushdown(
    catalog: Catalog, large: dict[str, np.ndarray], reads: list[tuple[str, int]]
) -> None:
    """Two loads, one of which masks the other, meet on the coarser grid."""
    graph = {
        "load": band("B04"),
        "scl": band("SCL"),
        "flat": node("drop_dimension", "scl", name="bands"),
        "clouds": node("apply", "flat", process=child("gt", x=X, y=6)),
        "masked": node("mask", mask={"from_node": "clouds"}),
        "mean": node("reduce_dimension", "masked", dimension="t", reducer=child("mean", data=DATA)),
        "end": node("resample_spatial", "mean", **COARSER),
    }
    result = run(catalog, graph)
    expected = np.where(large["SCL overview"] > 6, np.nan, large["B04 overview"])
    np.testing.assert_array_equal(result[0], expected)
    assert sorted(reads) == [("B04", (SIZE // 2) ** 2), ("SCL", (SIZE // 2) ** 2)]


@pytest.mark.parametrize(
    "graph",
    [
        {"end": node("resample_spatial", resolution=20, method="average")},
        {"end": node("resample_spatial", resolution=15)},
        {"a": node("filter_bbox", extent=BOX), "end": node("resample_spatial", "a", **COARSER)},
        {
            "a": node("apply_kernel", kernel=[[1, 1, 1]]),
            "end": node("resample_spatial", "a", **COARSER),
        },
        {
            "a": node("resample_spatial", **COARSER),
            "end": {
                "process_id": "merge_cubes",
                "arguments": {
                    "cube1": {"from_node": "a"},
                    "cube2": {"from_node": "load"},
                    "overlap_resolver": child("max", data=[X, {"from_parameter": "y"}]),
                },
            },
        },
    ],
)
def test_all_pixels_are_read_where_others_would_give_other_values(
    catalog: Catalog, large: dict[str, np.ndarray], graph: Graph
) -> None:
    graph = {"load": band("B04"), **graph}
    xr.testing.assert_equal(*(run(catalog, graph, plan=plan).drop_attrs() for plan in (True, False)))


def test_only_bands_and_dates_that_count_are_read(
    catalog: Catalog,
    two: Path,  # noqa: F811
    reads: list[tuple[str, int]],
) -> None:
    pick = child("array_element", data=DATA, label="B08")
    graph = {
        "a": node("reduce_dimension", dimension="bands", reducer=pick),
        "b": node("filter_temporal", "a", extent=["2022-06-03", None]),
        "end": node("filter_bbox", "b", extent=BOX),
    }
    result = run(catalog, graph)
    assert [name for name, _ in reads] == ["B08"]
    assert sum(pixels for _, pixels in reads) < 3 * result.size


def test_geometries_limit_pixels_read(catalog: Catalog, two: Path, reads: list[tuple[str, int]]) -> None:  # noqa: F811
    west, south = 10.3153, 46.9424
    ring = [[west, south], [west + 0.001, south], [west, south + 0.001], [west, south]]
    zone = {"type": "Polygon", "coordinates": [ring]}
    graph = {
        "a": node("filter_bands", bands=["B04"]),
        "end": node("aggregate_spatial", "a", geometries=zone, reducer=child("mean", data=DATA)),
    }
    result = run(catalog, graph)
    assert result.sizes["t"] == 2
    assert {name for name, _ in reads} == {"B04"}
    assert sum(pixels for _, pixels in reads) < 2 * 20 * 25


def test_distant_geometries_read_few_pixels_between(
    catalog: Catalog,
    two: Path,  # noqa: F811
    reads: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunking, "CHUNK", 32)
    monkeypatch.setattr(chunking, "BLOCK", 16)
    monkeypatch.setattr(chunking, "SPARSE_CHUNKS", (8,))
    corners = [(BOX["west"], BOX["south"]), (BOX["west"] + 650, BOX["south"] - 450)]
    rings = [[[x, y], [x + 25, y], [x + 25, y + 25], [x, y]] for x, y in corners]
    areas = [{"type": "Polygon", "coordinates": [ring]} for ring in rings]
    zones = [{"type": "Feature", "properties": {}, "geometry": area} for area in areas]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    collection = {"type": "FeatureCollection", "features": zones, "crs": crs}
    graph = {
        "a": node("filter_bands", bands=["B04"]),
        "end": node("aggregate_spatial", "a", geometries=collection, reducer=child("mean", data=DATA)),
    }
    result = run(catalog, graph)
    assert 0 < sum(pixels for _, pixels in reads) <= 2 * 2 * 4 * 64
    files = len(reads)
    reads.clear()
    monkeypatch.setattr(chunking, "SPARSE_BYTES", 1)
    xr.testing.assert_equal(result, run(catalog, graph))
    assert len(reads) == files
    reads.clear()
    xr.testing.assert_equal(result, run(catalog, graph, plan=False))


def test_loads_start_the_work_of_the_cluster(catalog: Catalog, two: Path) -> None:  # noqa: F811
    """The scheduler of dask starts no more of such tasks than it finishes, so that memory stays bounded."""
    result = evaluate({"process_graph": {"load": {**LOAD, "result": True}}}, Environment(catalog))
    layers = result.data.dask.layers
    sources = [layer for name, layer in layers.items() if not result.data.dask.dependencies[name]]
    tasks = [task for layer in sources for task in layer.values()]
    assert len(tasks) == result.sizes["bands"] * result.sizes["t"]
    assert not any(task.dependencies for task in tasks)


def test_stored_process_passes_demand_on(
    catalog: Catalog,
    two: Path,  # noqa: F811
    reads: list[tuple[str, int]],
) -> None:
    inner = {
        "first": {
            "process_id": "filter_bands",
            "arguments": {"data": DATA, "bands": {"from_parameter": "names"}},
        },
        "last": {**node("apply", "first", process=child("absolute", x=X)), "result": True},
    }
    stored = {"parameters": [parameter("data"), parameter("names")], "process_graph": inner}
    graph = {
        "load": LOAD,
        "own": node("own", names=["B04"]),
        "end": {**node("filter_bbox", "own", extent=BOX), "result": True},
    }
    env = Environment(catalog, lookup=lambda id_, _: stored if id_ == "own" else None)
    result = evaluate({"process_graph": graph}, env).compute(scheduler="sync")
    assert result.shape == (2, 1, 10, 10)
    assert {name for name, _ in reads} == {"B04"}
    assert sum(pixels for _, pixels in reads) < 2 * 20 * 20


def parameter(name: str) -> dict[str, Any]:
    return {"name": name, "description": "", "schema": {}}
