"""Programs load what the service loads from files of users, from the web, from STAC and from results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
from rasterio.warp import transform_bounds

from odc_openeo.config import Config
from odc_openeo.formats import Output
from odc_openeo.processes import learning
from odc_openeo.registry.environment import Environment
from odc_openeo.storage import get_storage
from odc_openeo.user_data import files
from odc_openeo.users import accounts
from tests.conftest import Site
from tests.explain.cases import (
    STATES,
    TRIANGLE,
    collect,
    make_cube,
    make_feature,
    make_integers,
    make_vectors,
    refer,
)
from tests.explain.programs import Comparison, compare_program
from tests.support.finished_jobs import finish_job
from tests.support.graphs import child, value
from tests.support.items import GEOTIFF, PIXELS, write_raster

USER = "5f1f4f1e-6a3c-4f0e-9c7b-1f2d3c4b5a69"
POINTS = "name,lat,lon\na,46.95,10.32\nb,46.94,10.31\n"
SHAPES = 'kind,geometry\n1,"POLYGON ((10 46, 11 46, 10 47, 10 46))"\n2,POINT (10 46)\n'


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """The environment of a run of a user, who may read this machine's web servers."""
    config = Config(data_dir=tmp_path / "data", outgoing_allow="127.0.0.1")
    return Environment(catalog=SimpleNamespace(config=config), user=USER, exports=[])


def write_tiff(path: Path, **options: Any) -> None:
    write_raster(path, np.stack([PIXELS, PIXELS[::-1]]), 7, descriptions=("red", "nir"), **options)


def write_netcdf(path: Path) -> None:
    cube = make_cube(2).isel(x=slice(5), y=slice(4)).drop_vars("spatial_ref")
    packed = cube.to_dataset("bands").rename(t="time").fillna(-1).round().astype("int16")
    for variable in packed.data_vars.values():
        variable.attrs = {"_FillValue": np.int16(-1), "scale_factor": 0.1, "grid_mapping": "crs"}
        variable.encoding = {}
    mapping = make_cube().spatial_ref.rename("crs")
    packed.drop_vars(["common_name", "wavelength"], errors="ignore").assign(crs=mapping).to_netcdf(path)


def write_features(path: Path) -> None:
    path.write_text(json.dumps(STATES))


def write_geoparquet(path: Path) -> None:
    frame = gpd.GeoDataFrame({"n": [1, 2]}, geometry=[TRIANGLE, shapely.Point(600050, 5199900)], crs=32632)
    frame.to_parquet(path)


WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "two bands": ("GTiff", write_tiff),
    "alpha": (
        "GTiff",
        lambda path: write_raster(path, np.stack([PIXELS, (PIXELS > 30) * 255]).astype("uint16"), alpha=True),
    ),
    "mask": ("GTiff", lambda path: write_raster(path, PIXELS, mask=(PIXELS % 3 > 0) * np.uint8(255))),
    "floats": ("GTiff", lambda path: write_raster(path, PIXELS.astype("float32"), 5)),
    "variables": ("netCDF", write_netcdf),
    "features": ("GeoJSON", write_features),
    "one feature": (
        "GeoJSON",
        lambda path: path.write_text(json.dumps(make_feature(shapely.Point(10, 46), a=1))),
    ),
    "table": ("Parquet", write_geoparquet),
    "points": ("CSV", lambda path: path.write_text(POINTS)),
    "shapes": ("CSV", lambda path: path.write_text(SHAPES)),
}


def make_graph(process: str, **arguments: Any) -> dict[str, Any]:
    return {"process_graph": {"it": {"process_id": process, "arguments": arguments, "result": True}}}


def check(environment: Environment, graph: dict[str, Any], folder: Path | None = None) -> Comparison:
    comparison = compare_program(graph, env=environment, folder=folder)
    assert comparison.explanation.incomplete == []
    return comparison


def upload(environment: Environment, path: Path, name: str) -> None:
    content = path.read_bytes()
    files.receive_file(environment.catalog.config, USER, name, BytesIO(content), len(content))


@pytest.mark.parametrize("kind", WRITERS)
def test_uploaded_files(environment: Environment, tmp_path: Path, kind: str) -> None:
    format_, write = WRITERS[kind]
    (tmp_path / "my").mkdir()
    write(tmp_path / "my" / "file")
    upload(environment, tmp_path / "my" / "file", "my/file")
    comparison = check(
        environment, make_graph("load_uploaded_files", paths=["my/file"], format=format_), tmp_path
    )
    assert '\nFILE = "my/file"\n' in comparison.explanation.program
    check_properties(comparison)


def check_properties(comparison: Comparison) -> None:
    """Columns of tables are properties of the geometries in both."""
    if isinstance(comparison.expected, xr.Dataset):
        for name, column in comparison.expected.coords.items():
            if name != "geometry" and column.dims == ("geometry",):
                pd.testing.assert_series_equal(
                    pd.Series(comparison.result[name].values), pd.Series(column.values), check_dtype=False
                )


def test_several_files(environment: Environment, tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", PIXELS, 7, descriptions=("red",))
    write_raster(tmp_path / "b.tif", PIXELS * 2, 7, descriptions=("nir",))
    for name in ("a.tif", "b.tif"):
        upload(environment, tmp_path / name, name)
    check(environment, make_graph("load_uploaded_files", paths=["a.tif", "b.tif"], format="GTiff"), tmp_path)


@pytest.mark.parametrize("kind", ["two bands", "variables", "features", "table", "points"])
def test_files_on_the_web(environment: Environment, site: Site, kind: str) -> None:
    format_, write = WRITERS[kind]
    write(site.folder / "file")
    url = f"{site.root}/file"
    comparison = check(environment, make_graph("load_url", url=url, format=format_))
    assert f'\nURL = "{url}"\n' in comparison.explanation.program
    check_properties(comparison)


# --- STAC ----------------------------------------------------------------------------------------


def write_item(folder: Path, name: str, day: int, **options: Any) -> pystac.Item:
    """A GeoTIFF and an Item that describes it as most catalogues do."""
    pixels = np.stack([PIXELS + day, PIXELS[::-1] * day])
    path = write_raster(folder / f"{name}.tif", pixels.astype("uint16"), 7, **options)
    with rasterio.open(path) as file:
        box = shapely.box(*transform_bounds(file.crs, 4326, *file.bounds))
    time = datetime(2022, 6, day, 10, tzinfo=UTC)
    item = pystac.Item(name, box.__geo_interface__, list(box.bounds), time, {"eo:cloud_cover": day * 10})
    bands = [{"name": "B04", "eo:common_name": "red"}, {"name": "B08", "eo:common_name": "nir"}]
    item.add_asset("data", pystac.Asset(f"./{name}.tif", media_type=GEOTIFF, extra_fields={"bands": bands}))
    return item


@pytest.fixture
def stac(site: Site) -> str:
    """The address of a static collection of three dates, of which one is elsewhere."""
    extent = pystac.Extent(
        pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]])
    )
    collection = pystac.Collection("c", "Scenes.", extent)
    origins = [(600000, 5200000), (600000, 5200000), (600050, 5199970)]
    for day, origin in enumerate(origins, 1):
        item = write_item(site.folder, f"i{day}", day, origin=origin)
        item.set_self_href(str(site.folder / f"i{day}.json"))
        collection.add_item(item)
    collection.normalize_hrefs(str(site.folder), skip_unresolved=False)
    for item in collection.get_items():
        item.set_self_href(str(site.folder / f"{item.id}.json"))
    collection.set_self_href(str(site.folder / "collection.json"))
    collection.save(pystac.CatalogType.SELF_CONTAINED)
    return f"{site.root}/collection.json"


WHERE = {"west": 600020, "south": 5199920, "east": 600080, "north": 5199980, "crs": 32632}
OUTLINE = {
    "type": "Polygon",
    "coordinates": [[[600010, 5199910], [600090, 5199920], [600040, 5199990], [600010, 5199910]]],
    "crs": {"type": "name", "properties": {"name": "EPSG:32632"}},
}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"bands": ["B08"]},
        {"spatial_extent": WHERE, "temporal_extent": ["2022-06-01", "2022-06-02"], "bands": ["nir", "B04"]},
        {"temporal_extent": ["2022-06-02", None]},
        {"spatial_extent": OUTLINE},
        {"properties": {"eo:cloud_cover": child("lte", x=value("value"), y=20)}},
    ],
)
def test_stac(environment: Environment, stac: str, arguments: dict[str, Any]) -> None:
    comparison = check(environment, make_graph("load_stac", url=stac, **arguments))
    assert f'\nSTAC_URL = "{stac}"\n' in comparison.explanation.program
    assert "odc.stac.load(" in comparison.explanation.program


def test_an_item(environment: Environment, stac: str) -> None:
    check(environment, make_graph("load_stac", url=stac.replace("collection", "i2")))


# --- Results of jobs -----------------------------------------------------------------------------


@pytest.fixture
def owner(config: Config) -> Environment:
    """The environment of a run of a user of a service with a database."""
    user = accounts.create_user(config, "ada", "correct horse battery").id
    return Environment(catalog=SimpleNamespace(config=config), user=str(user), exports=[])


def finish(owner: Environment, folder: Path, *outputs: Output) -> str:
    """The id of a job with these results, whose files are in the folder ``results`` of another one."""
    job = finish_job(owner.catalog.config, UUID(owner.user), outputs)
    stored = get_storage(owner.catalog.config).find_local_path(f"results/{job}")
    assert stored is not None
    (attempt,) = stored.iterdir()
    shutil.copytree(attempt, folder / "results")
    return job


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"bands": ["B08"]},
        {"temporal_extent": ["2021-12-01", None]},
        {"spatial_extent": WHERE},
        {"spatial_extent": OUTLINE},
    ],
)
def test_results(owner: Environment, tmp_path: Path, arguments: dict[str, Any]) -> None:
    cube = make_cube(3, ("B04", "B08"))
    job = finish(owner, tmp_path, Output.from_data(cube, "GTiff"))
    comparison = check(owner, make_graph("load_result", id=job, **arguments), tmp_path)
    assert '\nRESULTS = "results"\n' in comparison.explanation.program


def test_integers_in_results(owner: Environment, tmp_path: Path) -> None:
    job = finish(owner, tmp_path, Output.from_data(make_integers(), "GTiff"))
    check(owner, make_graph("load_result", id=job), tmp_path)


def test_models(owner: Environment, tmp_path: Path) -> None:
    bands = ("a", "b", "c")
    predictors = make_vectors(bands, 20)
    features = [make_feature(g, target=i % 3) for i, g in enumerate(predictors.geometry.values)]
    model = learning.fit_class_random_forest(predictors, collect(*features), num_trees=5, seed=1)
    env = Environment()
    learning.save_ml_model(model, env=env)
    job = finish(owner, tmp_path, *env.outputs)
    (path,) = (tmp_path / "results").glob("*.skops")
    path.rename(tmp_path / "result.skops")
    predict = child("predict_random_forest", data=value("data"), model=value("context"))
    graph = {
        "model": {"process_id": "load_ml_model", "arguments": {"id": job}},
        "predict": {
            "process_id": "reduce_dimension",
            "arguments": {
                "data": value("cube"),
                "dimension": "bands",
                "reducer": predict,
                "context": refer("model"),
            },
            "result": True,
        },
    }
    cube = make_cube(1, bands) / 10
    comparison = compare_program({"process_graph": graph}, {"cube": cube}, owner, folder=tmp_path)
    assert comparison.explanation.incomplete == []
