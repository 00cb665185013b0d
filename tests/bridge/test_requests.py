"""Opening, computing and saving with the running stack: what is sent, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import openeo
import pytest
import xarray as xr

import openeo_xarray
from odc_openeo.indexing.samples import CLIMATE_PRODUCT, DEM_PRODUCT, S2_PRODUCT
from tests.bridge.conftest import BOX, PERIOD
from tests.bridge.equality import check_equal

mpl.use("Agg")


@pytest.fixture
def requests(
    connection: openeo.Connection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[tuple[str, str]]]:
    """The requests that a test sends: methods and paths."""
    sent: list[tuple[str, str]] = []
    send = connection.request

    def record(method: str, path: str, *arguments: Any, **options: Any) -> Any:
        sent.append((method.upper(), path))
        return send(method, path, *arguments, **options)

    monkeypatch.setattr(connection, "request", record)
    return sent


def test_opening_reads_metadata_only(
    recorded: xr.Dataset, downloaded: xr.Dataset, stack: str, connection: openeo.Connection, requests: list
) -> None:
    dataset = openeo_xarray.open(
        connection, S2_PRODUCT, bbox=BOX, crs=32632, time=PERIOD, bands=["red", "SCL"]
    )
    assert {path for _, path in requests} <= {f"/collections/{S2_PRODUCT}", "/result"}
    assert sum(path == "/result" for _, path in requests) == 3
    assert list(dataset.data_vars) == ["red", "SCL"]
    assert dataset.red.dims == downloaded.red.dims
    for name in ("time", "y", "x"):
        np.testing.assert_array_equal(dataset[name], downloaded[name])
    assert dataset.red.dtype == downloaded.red.dtype
    assert dataset.SCL.dtype == downloaded.scl.dtype
    assert dataset.red.attrs["common_name"] == "red"
    assert dataset.spatial_ref.attrs["spatial_ref"] == "EPSG:32632"
    assert recorded.sizes == downloaded.sizes


def test_one_request_for_all_arrays(recorded: xr.Dataset, downloaded: xr.Dataset, requests: list) -> None:
    def analyse(ds: xr.Dataset) -> xr.Dataset:
        return xr.Dataset(
            {
                "mean": ds.red.mean("time"),
                "monthly": ds.nir.resample(time="1MS").max().rename(time="month"),
                "total": ds.red.sum(),
                "series": ds.nir.mean(["y", "x"]),
            }
        )

    result = analyse(recorded).compute()
    assert requests == [("POST", "/result")]
    check_equal(result, analyse(downloaded))


def test_load_changes_the_object(recorded: xr.Dataset, downloaded: xr.Dataset, requests: list) -> None:
    part = recorded[["red", "nir"]].isel(time=slice(0, 2)).copy()
    part.load()
    assert requests == [("POST", "/result")]
    check_equal(part, downloaded[["red", "nir"]].isel(time=slice(0, 2)))
    part.load()
    assert len(requests) == 1


def test_values_of_an_array_are_one_request(
    recorded: xr.Dataset, downloaded: xr.Dataset, requests: list
) -> None:
    np.testing.assert_allclose(recorded.red.max().values, downloaded.red.max().values, rtol=1e-5)
    assert requests == [("POST", "/result")]


def test_plot(recorded: xr.Dataset, requests: list) -> None:
    figure, axes = plt.subplots()
    recorded.red.mean("time").plot(ax=axes)
    assert requests == [("POST", "/result")]
    assert len(figure.axes) == 2
    plt.close(figure)


def test_raw_numbers(stack: str, connection: openeo.Connection, downloaded: xr.Dataset) -> None:
    dataset = xr.open_dataset(
        f"{stack}/collections/{S2_PRODUCT}",
        engine="openeo",
        connection=connection,
        bbox=BOX,
        crs=32632,
        time=("2022-06-01", "2022-06-10"),
        bands=["B04"],
        mask_and_scale=False,
    )
    assert dataset.B04.attrs["scale"] == 0.0001
    raw = np.rint((downloaded.red.isel(time=slice(0, 2)) + 0.01) / 0.0001)
    np.testing.assert_array_equal(dataset.B04.compute(), raw)


@pytest.mark.parametrize("chunks", [{}, {"time": 1}, "auto"])
def test_chunks_are_refused(stack: str, connection: openeo.Connection, chunks: Any) -> None:
    with pytest.raises(ValueError, match="leave out `chunks`"):
        xr.open_dataset(
            f"{stack}/collections/{S2_PRODUCT}",
            engine="openeo",
            connection=connection,
            bbox=BOX,
            crs=32632,
            time=PERIOD,
            bands=["B04"],
            chunks=chunks,
        )


def test_a_band_that_is_not_there(connection: openeo.Connection) -> None:
    with pytest.raises(ValueError, match="has no band 'B99', but B02"):
        openeo_xarray.open(connection, S2_PRODUCT, bbox=BOX, crs=32632, time=PERIOD, bands=["B99"])


def test_collections_without_bands_or_in_degrees(connection: openeo.Connection, tmp_path: Path) -> None:
    elevation = openeo_xarray.open(connection, DEM_PRODUCT)
    box = {"west": 11.33, "south": 46.48, "east": 11.34, "north": 46.49}
    near = openeo_xarray.open(connection, DEM_PRODUCT, bbox=box)
    assert near.sizes["x"] < elevation.sizes["x"]
    name = next(iter(near.data_vars))
    connection.load_collection(DEM_PRODUCT, spatial_extent=box).download(tmp_path / "dem.nc", format="netCDF")
    with xr.open_dataset(tmp_path / "dem.nc") as file:
        np.testing.assert_allclose(near[name].max().compute(), file[name].max(), rtol=1e-6)


def test_a_climatology_of_a_global_grid(connection: openeo.Connection) -> None:
    climate = openeo_xarray.open(connection, CLIMATE_PRODUCT)
    name = next(iter(climate.data_vars))
    whole, mean = openeo_xarray.compute(climate[name], climate[name].mean("time"))
    np.testing.assert_allclose(mean, whole.mean("time"), rtol=1e-5)


def test_graph_explanation_and_file(recorded: xr.Dataset, downloaded: xr.Dataset, tmp_path: Path) -> None:
    mean = recorded.red.mean("time")
    assert "load_collection" in {n["process_id"] for n in mean.openeo.graph().values()}
    path = mean.openeo.save(tmp_path / "mean.tif", format="GTiff")
    with xr.open_dataset(path, engine="rasterio") as file:
        np.testing.assert_allclose(file.band_data[0], downloaded.red.mean("time"), rtol=1e-5)


def test_explanation_of_the_service(recorded: xr.Dataset, requests: list) -> None:
    explanation = recorded.red.mean("time").openeo.explain()
    assert [r for r in requests if r != ("GET", "/")] == [("POST", "/explain")]
    plan, _, program = explanation.partition('"""A process graph as a program')
    assert f"(load_collection): {S2_PRODUCT}" in plan
    assert "20 x 12 pixels" in plan
    assert "dc.load(" in program
    assert '.mean("t")' in program
    compile('"""' + program, "program.py", "exec")


def test_job(recorded: xr.Dataset) -> None:
    job = recorded.red.mean("time").openeo.create_job(title="A mean of the bridge")
    try:
        description = job.describe()
        assert description["title"] == "A mean of the bridge"
        assert description["status"] == "created"
        processes = {n["process_id"] for n in description["process"]["process_graph"].values()}
        assert {"load_collection", "reduce_dimension", "save_result"} <= processes
    finally:
        job.delete()


def test_nothing_recorded(downloaded: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="nothing is recorded"):
        downloaded.red.openeo.graph()
