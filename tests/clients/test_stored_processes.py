"""Stored processes by the real `openeo` client: saved, called in graphs and jobs, by address, shared."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import openeo
import pytest
from openeo.api.process import Parameter
from openeo.processes import multiply, process
from openeo.rest import OpenEoApiError

from odc_openeo.indexing.samples import S2_PRODUCT
from tests.clients import truth
from tests.clients.test_values import BOX, JUNE, extent, load
from tests.conftest import Site

CELSIUS = {"f": {"process_id": "multiply", "arguments": {"x": {"from_parameter": "x"}, "y": 1.8}}}
FAHRENHEIT = {
    **CELSIUS,
    "sum": {"process_id": "add", "arguments": {"x": {"from_node": "f"}, "y": 32}, "result": True},
}


@pytest.fixture
def fahrenheit(connection: openeo.Connection) -> openeo.rest.udp.RESTUserDefinedProcess:
    x = Parameter.number(name="x", description="Degrees Celsius")
    saved = connection.save_user_defined_process("fahrenheit", FAHRENHEIT, parameters=[x], public=True)
    yield saved
    saved.delete()


def test_saved_called_and_deleted(connection: openeo.Connection, fahrenheit) -> None:
    listed = {entry["id"]: entry for entry in connection.list_user_defined_processes()}
    assert [p["name"] for p in listed["fahrenheit"]["parameters"]] == ["x"]
    assert fahrenheit.describe()["process_graph"] == FAHRENHEIT
    assert connection.execute(process("fahrenheit", x=100)) == 212
    assert connection.execute(process("fahrenheit", x=100, namespace="user")) == 212
    with pytest.raises(OpenEoApiError, match="ProcessParameterInvalid"):
        connection.execute(process("fahrenheit", x="hot"))
    other = connection.user_defined_process("other")
    other.store(multiply(x=2, y=3))
    other.delete()
    with pytest.raises(OpenEoApiError, match="ProcessGraphNotFound"):
        other.describe()


def test_over_the_pixels_of_a_cube(
    connection: openeo.Connection, fahrenheit, samples: Path, tmp_path
) -> None:
    """A definition for a whole cube that calls one for each pixel, in a synchronous request and in a job."""
    days = Parameter(name="days", description="", schema={"type": "array"}, default=list(JUNE))
    cube = connection.load_collection(
        S2_PRODUCT, spatial_extent=extent(BOX), temporal_extent=days, bands=["B04"]
    )
    mean = cube.reduce_dimension("t", "mean").apply(lambda x: process("fahrenheit", x=x))
    saved = connection.save_user_defined_process("mean_in_fahrenheit", mean, parameters=[days])
    try:
        warm = connection.datacube_from_process("mean_in_fahrenheit").save_result("netCDF")
        warm.download(tmp_path / "warm.nc")
        (path,) = (
            warm.create_job()
            .start_and_wait(print=lambda _: None)
            .get_results()
            .download_files(tmp_path / "job", include_stac_metadata=False)
        )
    finally:
        saved.delete()
    scenes = [s for s in truth.scenes(samples / S2_PRODUCT, *JUNE) if s.epsg == 32632]
    scenes = [s for s in scenes if "TPS" in str(s.properties["odc:region_code"])]
    expected = np.nanmean(truth.series(scenes, "B04", BOX), axis=0) * 1.8 + 32
    import xarray as xr

    for source in (tmp_path / "warm.nc", path):
        with xr.open_dataset(source) as dataset:
            np.testing.assert_allclose(dataset["B04"].values, expected, rtol=1e-6)


def test_called_by_address(connection: openeo.Connection, fahrenheit, site: Site) -> None:
    (site.folder / "f.json").write_text(json.dumps({**fahrenheit.describe(), "id": "f"}))
    assert connection.execute(process("f", x=0, namespace=f"{site.root}/f.json")) == 32
    shared = next(entry["href"] for entry in fahrenheit.describe()["links"] if entry["rel"] == "canonical")
    assert connection.execute(process("fahrenheit", x=10, namespace=shared)) == 50
    local = shared.replace("127.0.0.1", "localhost")
    assert connection.execute(process("fahrenheit", x=10, namespace=local)) == 50
    with pytest.raises(OpenEoApiError, match="ProcessNamespaceInvalid"):
        connection.execute(process("g", x=0, namespace=f"{site.root}/f.json"))


def test_recursion(connection: openeo.Connection) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = connection.save_user_defined_process("first", process("second", x=1))
        with pytest.raises(OpenEoApiError, match="calls itself"):
            connection.save_user_defined_process("second", process("first", x=1))
    first.delete()


def test_the_name_of_a_predefined_process(connection: openeo.Connection) -> None:
    y = Parameter.number(name="y", description="")
    with pytest.warns(UserWarning, match="same id as a pre-defined process"):
        saved = connection.save_user_defined_process("absolute", multiply(x=y, y=-1), parameters=[y])
    try:
        assert connection.execute(process("absolute", y=-7)) == 7
        assert connection.execute(process("absolute", x=-7, namespace="backend")) == 7
        job = connection.create_job(process("absolute", y=5)).start_and_wait(print=lambda _: None)
        assert any("your own process" in entry["message"] for entry in job.logs())
    finally:
        saved.delete()


def test_load_is_called_with_declared_arguments(connection: openeo.Connection) -> None:
    """Extents reach the load inside the definition: the estimate is that of the small area."""
    small = load(connection, ["B04"]).save_result("GTiff").create_job()
    bands = Parameter.array(name="bands", description="")
    whole = connection.load_collection(S2_PRODUCT, extent(BOX), list(JUNE), bands)
    saved = connection.save_user_defined_process("of_june", whole, parameters=[bands])
    try:
        job = connection.datacube_from_process("of_june", bands=["B04"]).save_result("GTiff").create_job()
        assert job.estimate()["size"] == small.estimate()["size"]
    finally:
        saved.delete()
