"""`load_stac` and `load_result` by the real client: STAC on a web server, results of batch jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import openeo
import pytest
import rasterio
import requests
from openeo.rest import OpenEoApiError
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from tests.clients.test_values import load
from tests.conftest import Site

SHAPE = (40, 50)
BOX = {"west": 680100, "south": 5151750, "east": 680300, "north": 5151900, "crs": 32632}


def write_item(folder: Path, name: str, day: int = 1, bands: int = 1, **more: Any) -> np.ndarray:
    """A raster of integers and the STAC Item that describes it as most catalogues do."""
    values = np.random.default_rng(day).integers(0, 100, (bands, *SHAPE)).astype("uint16")
    grid = {"crs": "EPSG:32632", "transform": from_origin(680000, 5152000, 10, 10), "nodata": 7}
    profile = {"driver": "GTiff", "dtype": "uint16", "count": bands, "height": SHAPE[0], "width": SHAPE[1]}
    with rasterio.open(folder / f"{name}.tif", "w", **profile, **grid) as file:
        file.write(values)
    west, south, east, north = transform_bounds("EPSG:32632", "EPSG:4326", 680000, 5151600, 680500, 5152000)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    names = [{"name": n, "eo:common_name": c} for n, c in [("B04", "red"), ("B08", "nir")][:bands]]
    asset = {"href": f"./{name}.tif", "type": "image/tiff; application=geotiff", "bands": names}
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {"datetime": f"2022-06-{day:02}T10:00:00Z", "eo:cloud_cover": day * 10},
        "assets": {"data": asset, "preview": {"href": "p.png", "type": "image/png", "roles": ["thumbnail"]}},
        "links": [],
        **more,
    }
    (folder / f"{name}.json").write_text(json.dumps(item))
    return values


def write_collection(folder: Path, *names: str) -> None:
    links = [{"rel": "item", "href": f"./{name}.json"} for name in names]
    (folder / "collection.json").write_text(json.dumps({"type": "Collection", "id": "c", "links": links}))


def pixels(cube: openeo.DataCube, tmp_path: Path) -> np.ndarray:
    cube.save_result("netCDF", options={"layout": "cube"}).download(tmp_path / "cube.nc")
    import xarray as xr

    with xr.open_dataset(tmp_path / "cube.nc", decode_coords="all", mask_and_scale=False) as dataset:
        (name,) = [n for n, v in dataset.data_vars.items() if {"x", "y"} <= set(v.dims)]
        return dataset[name].transpose("t", "bands", "y", "x").values


def test_a_static_collection(connection: openeo.Connection, site: Site, tmp_path: Path) -> None:
    first, second = (write_item(site.folder, name, day, 2) for name, day in (("a", 1), ("b", 2)))
    write_collection(site.folder, "b", "a")
    url = f"{site.root}/collection.json"
    actual_pixels = pixels(connection.load_stac(url), tmp_path)
    np.testing.assert_array_equal(actual_pixels, [first, second])
    part = connection.load_stac(
        url, spatial_extent=BOX, temporal_extent=["2022-06-02", "2022-06-03"], bands=["nir", "B04"]
    )
    np.testing.assert_array_equal(pixels(part, tmp_path), second[None, ::-1, 10:25, 10:30])
    clear = connection.load_stac(url, properties={"eo:cloud_cover": lambda value: value <= 15})
    np.testing.assert_array_equal(pixels(clear, tmp_path), [first])


def test_items_of_different_assets(connection: openeo.Connection, site: Site, tmp_path: Path) -> None:
    """As most catalogues have it: a file a band, its key being its name."""
    red, nir = (write_item(site.folder, name, day) for name, day in (("r", 1), ("n", 2)))
    assets = {"red": {"href": "r.tif", "type": "image/tiff"}, "nir": {"href": "n.tif", "type": "image/tiff"}}
    write_item(site.folder, "both", 3, assets=assets)
    cube = connection.load_stac(f"{site.root}/both.json", bands=["nir", "red"])
    np.testing.assert_array_equal(pixels(cube, tmp_path), [[nir[0], red[0]]])
    ndvi = (cube.band("nir") - cube.band("red")) / 2
    ndvi.download(tmp_path / "x.tif")
    with rasterio.open(tmp_path / "x.tif") as file:
        valid = (red[0] != 7) & (nir[0] != 7)
        expected = (nir[0].astype(float) - red[0]) / 2
        np.testing.assert_allclose(file.read(1)[valid], expected[valid])
        assert np.isnan(file.read(1)[~valid]).all()


def test_unreadable_sources_are_refused(connection: openeo.Connection, site: Site) -> None:
    write_item(site.folder, "a")
    write_item(site.folder, "inner", assets={"d": {"href": "http://127.0.0.2/a.tif", "type": "image/tiff"}})
    write_item(site.folder, "file", assets={"d": {"href": "file:///etc/a.tif", "type": "image/tiff"}})
    write_item(site.folder, "none", assets={})
    write_item(site.folder, "vrt")
    (site.folder / "vrt.tif").write_text("<VRTDataset rasterXSize='1' rasterYSize='1'/>")
    (site.folder / "other.json").write_text("{}")
    for name, code in [
        ("inner", "UrlForbidden"),
        ("file", "FeatureUnsupported"),
        ("none", "NoDataAvailable"),
        ("vrt", "UrlUnreachable"),
        ("other", "UrlUnreachable"),
        ("missing", "UrlUnreachable"),
    ]:
        with pytest.raises(OpenEoApiError) as failure:
            connection.load_stac(f"{site.root}/{name}.json").download("/dev/null", format="GTiff")
        assert failure.value.code == code, name
    late = connection.load_stac(f"{site.root}/a.json", temporal_extent=["2023-01-01", "2024-01-01"])
    with pytest.raises(OpenEoApiError) as failure:
        late.download("/dev/null", format="GTiff")
    assert failure.value.code == "NoDataAvailable"
    with pytest.raises(OpenEoApiError) as failure:
        connection.load_stac(f"{site.root}/a.json", bands=["B99"]).download("/dev/null", format="GTiff")
    assert "B04" in failure.value.message


# --- Results of jobs -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def job(connection: openeo.Connection) -> openeo.BatchJob:
    """A finished job with the raw June of two bands, a file a date."""
    new_job = load(connection, ["B04", "B08"]).save_result("GTiff").create_job()
    return new_job.start_and_wait(print=lambda _: None, max_poll_interval=1)


def test_results_equal_saved_cube(
    connection: openeo.Connection, job: openeo.BatchJob, tmp_path: Path
) -> None:
    expected = pixels(load(connection, ["B04", "B08"]), tmp_path)
    metadata = job.get_results().get_metadata()
    signed = next(link["href"] for link in metadata["links"] if link["rel"] == "canonical")
    url = f"{connection.root_url}/jobs/{job.job_id}/results"
    for cube in (
        connection.load_result(job.job_id),
        connection.load_stac(url),
        connection.load_stac(signed),
        connection.load_stac_from_job(job),
    ):
        np.testing.assert_array_equal(pixels(cube, tmp_path), expected)
    only = connection.load_result(job.job_id, bands=["B08"], temporal_extent=["2022-06-01", "2022-06-15"])
    actual_pixels = pixels(only, tmp_path)
    np.testing.assert_array_equal(actual_pixels, expected[: len(actual_pixels), 1:])
    assert 0 < len(actual_pixels) < len(expected)


def test_results_in_a_job(connection: openeo.Connection, job: openeo.BatchJob, tmp_path: Path) -> None:
    cube = connection.load_result(job.job_id).reduce_dimension("t", reducer="max")
    second = cube.save_result("GTiff").create_job()
    second.start_and_wait(print=lambda _: None, max_poll_interval=1)
    (path,) = [p for p in second.get_results().download_files(tmp_path) if p.suffix == ".tif"]
    cube.download(tmp_path / "now.tif")
    with rasterio.open(path) as later, rasterio.open(tmp_path / "now.tif") as now:
        np.testing.assert_array_equal(later.read(), now.read())


def test_results_of_other_users_and_of_no_job(connection: openeo.Connection, job: openeo.BatchJob) -> None:
    unfinished = load(connection, ["B04"]).save_result("GTiff").create_job()
    metadata = job.get_results().get_metadata()
    signed = next(link["href"] for link in metadata["links"] if link["rel"] == "canonical")
    *start, signature, name = signed.split("/")
    forged = "/".join([*start, signature[::-1], name])
    assert requests.get(forged, timeout=60).status_code == 410
    for cube, code in [
        (connection.load_result("00000000-0000-0000-0000-000000000000"), "JobNotFound"),
        (connection.load_result("nothing"), "JobNotFound"),
        (connection.load_result(unfinished.job_id), "JobNotFinished"),
        (connection.load_stac(forged), "ResultLinkExpired"),
    ]:
        with pytest.raises(OpenEoApiError) as failure:
            cube.download("/dev/null", format="GTiff")
        assert failure.value.code == code
    assert parse_qs(urlsplit(signed).query) == {}
