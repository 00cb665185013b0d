"""Jobs in parts end to end: the results of every format are those of the same job as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import rasterio
import xarray as xr
import zarr

from tests.parts.jobs.site import (
    PartsSite,
    Worker,
    compute_expected,
    load,
    make_pixels,
    node,
    reduce_graph,
)

RASTERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "GTiff": ("GTiff", {}),
    "merged GTiff": ("GTiff", {"merge": True, "filename_prefix": "max"}),
    "Zarr": ("Zarr", {}),
    "netCDF": ("netCDF", {}),
    "merged netCDF": ("netCDF", {"merge": True}),
}
if find_spec("icechunk") is not None:
    RASTERS = {**RASTERS, "Icechunk": ("Icechunk", {})}

TABLES: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "JSON": ("JSON", {}),
    "CSV": ("CSV", {}),
    "GeoJSON": ("GeoJSON", {}),
    "Parquet": ("Parquet", {}),
    "merged Parquet": ("Parquet", {"merge": True}),
}


def make_fields() -> dict[str, Any]:
    """A grid of fields all over the scenes."""
    squares = []
    for number in range(6):
        x, y = 600200 + 5000 * (number % 3), 5199800 - 5000 * (number // 3)
        ring = [[x, y], [x + 4600, y], [x + 4600, y - 4600], [x, y - 4600], [x, y]]
        squares.append(
            {
                "type": "Feature",
                # Columns whose type only the whole tells.
                "properties": {
                    "number": number,
                    "crop": "oats" if number == 4 else None,
                    "code": [1, 2.5, None, 4, True, "x"][number],
                    "share": None if number else 0.5,
                },
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
        )
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    return {"type": "FeatureCollection", "features": squares, "crs": crs}


def zonal_graph(format_: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The mean of each field and date."""
    reducer = {"process_graph": {"mean": node("mean", data={"from_parameter": "data"}, result=True)}}
    zones = {"data": {"from_node": "load"}, "geometries": make_fields(), "reducer": reducer}
    saved = {"data": {"from_node": "zones"}, "format": format_, "options": dict(options)}
    return {
        "load": load(),
        "zones": node("aggregate_spatial", **zones),
        "save": node("save_result", result=True, **saved),
    }


@pytest.fixture(scope="module")
def tables(parts_site: PartsSite, parts_worker: Worker) -> dict[str, dict[str, Path]]:
    """The files of a job in parts for each format of tables."""
    ids = {name: parts_site.submit(zonal_graph(*case)) for name, case in TABLES.items()}
    files = {}
    for name, id_ in ids.items():
        job = parts_site.wait(id_, "finished", "error")
        messages = parts_site.list_messages(id_)
        assert job.status == "finished", (messages, parts_worker.output.read_text()[-5000:])
        assert any("parts (geometries)" in message for message in messages), messages
        files[name] = parts_site.fetch_files(id_, parts_site.folder / f"table-{name}")
    return files


@pytest.mark.parametrize("case", ["JSON", "CSV", "GeoJSON", "merged Parquet"])
def test_tables_of_geometries_are_the_whole(
    parts_site: PartsSite, tables: dict[str, dict[str, Path]], tmp_path: Path, case: str
) -> None:
    (whole,) = parts_site.write_whole(zonal_graph(*TABLES[case]), tmp_path / "whole").values()
    (path,) = tables[case].values()
    assert path.name == whole.name
    if case == "merged Parquet":
        assert gpd.read_parquet(path).equals(gpd.read_parquet(whole))
    else:
        assert path.read_text() == whole.read_text()


def test_parquet_files_of_parts_are_one_dataset(
    parts_site: PartsSite, tables: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    files = tables["Parquet"]
    assert list(files) == [f"result_part-{number:05d}.parquet" for number in range(1, len(files) + 1)]
    assert len(files) > 1
    (whole,) = parts_site.write_whole(zonal_graph("Parquet", {}), tmp_path / "whole").values()
    expected = gpd.read_parquet(whole)
    joined = gpd.read_parquet(next(iter(files.values())).parent)
    pd.testing.assert_frame_equal(joined, expected)
    assert joined.crs == expected.crs
    dataset = pyarrow.dataset.dataset(list(map(str, files.values())))
    assert dataset.schema.equals(pq.read_schema(whole))
    assert dataset.to_table().drop_columns("geometry").equals(pq.read_table(whole).drop_columns("geometry"))
    for path in files.values():
        column = json.loads(pq.read_schema(path).metadata[b"geo"])["columns"]["geometry"]
        np.testing.assert_allclose(column["bbox"], gpd.read_parquet(path).total_bounds)
    # Values by numpy: the mean of the pixels in the field, straight from what the scenes were made of.
    row = expected[(expected["number"] == 4) & (expected["date"] == expected["date"].max())].iloc[0]
    pixels = np.ma.masked_equal(make_pixels(2)[520:980, 520:980], 0)
    assert row["B04"] == pytest.approx(pixels.mean(), rel=1e-6)


def reduction_graph() -> dict[str, Any]:
    """The mean of all pixels of each date and band."""
    reducer = {"process_graph": {"mean": node("mean", data={"from_parameter": "data"}, result=True)}}
    return {
        "load": load(),
        "mean": node("reduce_spatial", data={"from_node": "load"}, reducer=reducer),
        "save": node("save_result", result=True, data={"from_node": "mean"}, format="netCDF"),
    }


def test_reductions_in_two_stages_are_those_of_the_whole(
    parts_site: PartsSite, parts_worker: Worker, tmp_path: Path
) -> None:
    id_ = parts_site.submit(reduction_graph())
    job = parts_site.wait(id_, "finished", "error")
    messages = parts_site.list_messages(id_)
    assert job.status == "finished", (messages, parts_worker.output.read_text()[-5000:])
    assert any("parts (stages)" in message for message in messages), messages
    (joined,) = parts_site.fetch_files(id_, tmp_path / "parts").values()
    (whole,) = parts_site.write_whole(reduction_graph(), tmp_path / "whole").values()
    with xr.open_dataset(joined) as cube, xr.open_dataset(whole) as expected:
        xr.testing.assert_allclose(cube, expected)
        assert cube.B04.attrs == expected.B04.attrs


@pytest.fixture(scope="module")
def finished(parts_site: PartsSite, parts_worker: Worker) -> dict[str, dict[str, Path]]:
    """The files of a job in parts for each of the cases."""
    ids = {name: parts_site.submit(reduce_graph(*case)) for name, case in RASTERS.items()}
    files = {}
    for name, id_ in ids.items():
        job = parts_site.wait(id_, "finished", "error")
        messages = parts_site.list_messages(id_)
        assert job.status == "finished", (messages, parts_worker.output.read_text()[-5000:])
        assert any("6 of 6 parts are done" in message for message in messages), messages
        assert not any(message.startswith("warning") for message in messages), messages
        files[name] = parts_site.fetch_files(id_, parts_site.folder / name)
    return files


def write_whole(site: PartsSite, case: str, folder: Path) -> Path:
    """The single file of the same graph as a whole."""
    (path,) = site.write_whole(reduce_graph(*RASTERS[case]), folder / "whole").values()
    return path


def read_raster(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What a file says of its raster, and its pixels."""
    with rasterio.open(path) as file:
        about = {"transform": file.transform, "crs": file.crs, "names": file.descriptions}
        return about | {"nodata": file.nodatavals, "dtypes": file.dtypes, "scales": file.scales}, file.read()


def test_geotiffs_of_parts_and_their_mosaic_are_the_whole(
    parts_site: PartsSite, finished: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    files = finished["GTiff"]
    assert sorted(files) == ["result.vrt", *(f"result_part-0000{n}.tif" for n in range(1, 7))]
    about, pixels = read_raster(files["result.vrt"])
    np.testing.assert_array_equal(pixels, compute_expected())
    whole_about, whole_pixels = read_raster(write_whole(parts_site, "GTiff", tmp_path))
    np.testing.assert_array_equal(pixels, whole_pixels)
    assert about == whole_about


def test_a_merged_geotiff_is_the_file_of_the_whole(
    parts_site: PartsSite, finished: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    files = finished["merged GTiff"]
    assert list(files) == ["max.tif"]
    whole = write_whole(parts_site, "merged GTiff", tmp_path)
    with rasterio.open(files["max.tif"]) as file, rasterio.open(whole) as expected:
        assert [file.tags(n) for n in (1, 2)] == [expected.tags(n) for n in (1, 2)]
        assert file.overviews(1) == expected.overviews(1)
    about, pixels = read_raster(files["max.tif"])
    whole_about, whole_pixels = read_raster(whole)
    assert about == whole_about
    np.testing.assert_array_equal(pixels, whole_pixels)


def test_regions_of_a_zarr_store_are_the_whole(
    parts_site: PartsSite, finished: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    files = finished["Zarr"]
    assert list(files) == ["result.zarr"]
    whole = write_whole(parts_site, "Zarr", tmp_path)
    with xr.open_zarr(files["result.zarr"]) as store, xr.open_zarr(whole) as expected:
        xr.testing.assert_identical(store.load(), expected.load())
    with xr.open_zarr(files["result.zarr"], mask_and_scale=False) as store:
        np.testing.assert_array_equal(store["B08"], compute_expected()[1])


def test_stores_of_parts_have_shards(finished: dict[str, dict[str, Path]]) -> None:
    array = zarr.open_group(finished["Zarr"]["result.zarr"])["B08"]
    assert isinstance(array, zarr.Array)
    assert (array.shards, array.chunks) == ((512, 512), (256, 256))
    assert len(list((finished["Zarr"]["result.zarr"] / "B08" / "c").glob("*/*"))) == 6


def test_a_repository_has_a_commit_for_each_part(
    parts_site: PartsSite, finished: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    icechunk = pytest.importorskip("icechunk", reason="needs the extra icechunk")
    path = finished["Icechunk"]["result.icechunk"]
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path.resolve())))
    messages = [commit.message for commit in repository.ancestry(branch="main")]
    assert sorted(messages[1:7]) == [f"Part {number}" for number in range(1, 7)]
    store = repository.readonly_session("main").store
    with (
        xr.open_zarr(store, consolidated=False) as cube,
        xr.open_zarr(write_whole(parts_site, "Zarr", tmp_path)) as expected,
    ):
        xr.testing.assert_identical(cube.load(), expected.load())
    with xr.open_zarr(store, consolidated=False, mask_and_scale=False) as cube:
        np.testing.assert_array_equal(cube["B08"], compute_expected()[1])


def test_netcdf_files_of_parts_are_the_whole(
    parts_site: PartsSite, finished: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    whole = write_whole(parts_site, "netCDF", tmp_path)
    parts = [xr.load_dataset(path, decode_coords="all") for path in finished["netCDF"].values()]
    assert len(parts) == 6
    names = [part.drop_vars("spatial_ref") for part in parts]
    joined = xr.combine_by_coords(names, combine_attrs="override").sortby("y", ascending=False)
    with xr.open_dataset(whole, decode_coords="all") as expected:
        xr.testing.assert_equal(joined, expected.load().drop_vars("spatial_ref"))
    assert list(finished["merged netCDF"]) == ["result.nc"]
    with xr.open_dataset(finished["merged netCDF"]["result.nc"]) as one, xr.open_dataset(whole) as expected:
        xr.testing.assert_identical(one.load(), expected.load())
