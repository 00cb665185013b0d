"""`pystac-client` and `odc.stac` read the same collections as openEO clients, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import openeo
import pytest
import shapely
import xarray as xr
from pystac.validation import validate_dict
from pystac_client import Client
from pystac_client.exceptions import APIError

from odc_openeo.indexing.samples import PRODUCTS, S2_PRODUCT, SAMPLE_AREA

BBOX = [SAMPLE_AREA[side] for side in ("west", "south", "east", "north")]
JUNE = "2022-06-01T00:00:00Z/2022-06-30T23:59:59Z"


@pytest.fixture(scope="module")
def catalogue(stack: str) -> Client:
    """The STAC API: the root of the openEO API."""
    return Client.open(f"{stack}/openeo/1.3/")


@pytest.fixture(scope="module")
def everything(catalogue: Client) -> list[dict[str, Any]]:
    """All items, in pages of seven."""
    return list(catalogue.search(limit=7).items_as_dicts())


def search_ids(catalogue: Client, **search: Any) -> set[str]:
    return {item["id"] for item in catalogue.search(limit=50, **search).items_as_dicts()}


def test_collections(catalogue: Client) -> None:
    collections = {c.id: c for c in catalogue.get_collections()}
    assert set(collections) >= set(PRODUCTS)
    assert next(collections[S2_PRODUCT].get_items()).collection_id == S2_PRODUCT
    item_assets = catalogue.get_collection(S2_PRODUCT).item_assets
    assert item_assets["B04"].properties["bands"][0]["eo:common_name"] == "red"


def test_every_item_once(
    catalogue: Client, everything: list[dict[str, Any]], connection: openeo.Connection
) -> None:
    ids = [item["id"] for item in everything]
    assert len(ids) == len(set(ids)) == catalogue.search(limit=1).matched()
    assert {item["collection"] for item in everything} >= set(PRODUCTS)
    by_method = {i["id"] for i in catalogue.search(method="GET", limit=100).items_as_dicts()}
    assert by_method == set(ids)
    for item in everything[::10]:
        assert validate_dict({**item, "stac_extensions": []})
        assert all(asset["href"].startswith("http") for asset in item["assets"].values())


def test_searches(catalogue: Client, everything: list[dict[str, Any]]) -> None:
    s2 = [item for item in everything if item["collection"] == S2_PRODUCT]
    inside = shapely.box(*BBOX)
    near = {i["id"] for i in s2 if inside.intersects(shapely.geometry.shape(i["geometry"]))}
    june = {i["id"] for i in s2 if i["properties"]["datetime"].startswith("2022-06")}
    clear = {i["id"] for i in s2 if i["properties"]["eo:cloud_cover"] < 20}
    assert min(map(len, (near & june & clear, near, june, clear))) > 0
    s2_only = {"collections": [S2_PRODUCT]}
    assert search_ids(catalogue, **s2_only, bbox=BBOX) == near
    assert search_ids(catalogue, **s2_only, intersects=shapely.geometry.mapping(inside)) == near
    assert search_ids(catalogue, **s2_only, datetime=JUNE) == june
    some = sorted(june)[:2]
    assert search_ids(catalogue, ids=some) == set(some)
    text = f"eo:cloud_cover < 20 AND collection = '{S2_PRODUCT}'"
    assert (
        search_ids(catalogue, filter=text, filter_lang="cql2-text", bbox=BBOX, datetime=JUNE)
        == near & june & clear
    )
    clouds = {"op": "<", "args": [{"property": "eo:cloud_cover"}, 20]}
    assert search_ids(catalogue, **s2_only, filter=clouds) == clear


def test_order_and_fields(catalogue: Client) -> None:
    search = catalogue.search(
        collections=[S2_PRODUCT],
        sortby="-properties.eo:cloud_cover",
        fields=["properties.eo:cloud_cover"],
        limit=9,
    )
    items = list(search.items_as_dicts())
    clouds = [item["properties"]["eo:cloud_cover"] for item in items]
    assert clouds == sorted(clouds, reverse=True)
    assert set(items[0]) == {"type", "stac_version", "id", "collection", "properties"}


@pytest.mark.filterwarnings("ignore:Server does not conform to QUERY")
def test_invalid_searches_are_refused(catalogue: Client) -> None:
    for search, why in (
        ({"collections": ["nowhere"]}, "CollectionNotFound"),
        ({"bbox": [0, 5, 1, 4]}, "south first"),
        ({"filter": "clouds < 5", "filter_lang": "cql2-text"}, "no property 'clouds'"),
        ({"query": {"eo:cloud_cover": {"lt": 5}}}, "unknown member 'query'"),
    ):
        with pytest.raises((APIError, Exception), match=why):
            list(catalogue.search(**search).items())


@pytest.fixture
def two_dates(connection: openeo.Connection, tmp_path: Path) -> Iterator[xr.Dataset]:
    """What openEO loads of two bands in a week."""
    cube = connection.load_collection(
        S2_PRODUCT, SAMPLE_AREA, ["2022-06-01", "2022-06-08"], bands=["B04", "SCL"]
    )
    cube.download(tmp_path / "cube.nc", format="netCDF")
    with xr.open_dataset(tmp_path / "cube.nc", engine="netcdf4", mask_and_scale=False) as opened:
        yield opened


def test_odc_stac_reads_the_pixels_that_openeo_reads(catalogue: Client, two_dates: xr.Dataset) -> None:
    items = catalogue.search(
        collections=[S2_PRODUCT], bbox=BBOX, datetime="2022-06-01T00:00:00Z/2022-06-07T23:59:59Z"
    ).item_collection()
    x, y = two_dates.x.values, two_dates.y.values
    loaded = odc.stac.load(
        items,
        bands=["red", "SCL"],
        crs="EPSG:32632",
        resolution=10,
        x=(x.min() - 5, x.max() + 5),
        y=(y.min() - 5, y.max() + 5),
        anchor="edge",
        groupby="time",
    ).sel(x=x, y=y)
    assert loaded.red.dtype == np.uint16
    assert loaded.red.odc.nodata == 0
    times = two_dates.t.values
    ours = two_dates["B04"].transpose("t", "y", "x").values
    assert len(times) >= 1
    theirs = loaded.red.sel(time=times).values
    np.testing.assert_array_equal(theirs, ours)
    assert len(np.unique(ours)) > 100
    np.testing.assert_array_equal(
        loaded.SCL.sel(time=times).values, two_dates["SCL"].transpose("t", "y", "x").values
    )
