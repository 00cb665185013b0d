"""Cubes from files and from STAC."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import rasterio
import shapely
import xarray as xr

if TYPE_CHECKING:  # Only programs need them.
    import pystac_client
    import rioxarray


def read_geotiff(path):
    """The bands of a GeoTIFF from north to south, as floats with NaN for no-data; without an alpha band."""
    with rasterio.open(path) as file:
        numbers = [n for n, color in zip(file.indexes, file.colorinterp) if color.name != "alpha"]
    layers = rioxarray.open_rasterio(path, masked=True).sel(band=numbers).rename(band="bands")
    return layers.drop_attrs().sortby("y", ascending=False).sortby("x")


def read_netcdf(path):
    """The variables with a grid as bands: the numbers of the file, with NaN for no-data."""
    raw = xr.open_dataset(path, engine="netcdf4", decode_coords="all", mask_and_scale=False)
    for variable in raw.data_vars.values():
        variable.attrs = {k: v for k, v in variable.attrs.items() if k in ("_FillValue", "missing_value")}
    names = {"time": "t", "lat": "y", "latitude": "y", "lon": "x", "longitude": "x"}
    dataset = xr.decode_cf(raw).rename({name: new for name, new in names.items() if name in raw.dims})
    layers = dataset[[name for name, v in dataset.data_vars.items() if {"y", "x"} <= set(v.dims)]]
    layers = layers.drop_vars([name for name in layers.coords if name not in layers.dims])
    bare = layers.to_dataarray("bands") if "bands" not in layers.dims else next(iter(layers.values()))
    return bare.drop_attrs().sortby("y", ascending=False).sortby("x")


def read_geojson(path):
    """The features of a GeoJSON file as a table."""
    document = json.loads(Path(path).read_text())
    features = document["features"] if document["type"] == "FeatureCollection" else [document]
    rows = [
        {"type": "Feature", "properties": {}, "geometry": feature}
        if feature["type"] != "Feature"
        else feature
        | {"properties": ({"id": feature["id"]} if "id" in feature else {}) | (feature["properties"] or {})}
        for feature in features
    ]
    return gpd.GeoDataFrame.from_features(rows)


def read_csv(path):
    """The rows of a CSV file with points by columns lon and lat, or with geometries as WKT."""
    table = pd.read_csv(path)
    names = {column.strip().lower(): column for column in table.columns}
    for name in ("geometry", "wkt"):
        if name in names:
            return gpd.GeoDataFrame(table, geometry=gpd.GeoSeries.from_wkt(table.pop(names[name])))
    x, y = (
        next(names[n] for n in usual if n in names)
        for usual in (("lon", "longitude", "x"), ("lat", "latitude", "y"))
    )
    return gpd.GeoDataFrame(table, geometry=gpd.points_from_xy(table.pop(x), table.pop(y)))


def read_items(url, **search):
    """The Items at an address: an Item, a catalogue in files, or a collection of a STAC API."""
    document = pystac.read_file(url)
    if isinstance(document, pystac.Item):
        return [document]
    if document.get_single_link("items") is None:
        return list(document.get_items(recursive=True))
    root = document.get_single_link("root").get_absolute_href()
    return list(pystac_client.Client.open(root).search(collections=[document.id], **search).items())


def select_items(items, start=None, end=None, grid=None):
    """The Items from a start to before an end, and those that touch a grid."""
    selected = []
    for item in items:
        time = np.datetime64(
            (item.datetime or item.common_metadata.start_datetime).replace(tzinfo=None), "us"
        )
        if (start is None or time >= np.datetime64(start)) and (end is None or time < np.datetime64(end)):
            shape = shapely.geometry.shape(item.geometry)
            if grid is None or grid.geographic_extent.geom.intersects(shape):
                selected.append(item)
    return selected


def find_band(item, name):
    """Where odc-stac has the band of a name: the key of the asset, with a number if it has several bands."""
    if name in item.assets:
        return name
    for key, asset in item.assets.items():
        bands = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
        for number, band in enumerate(bands, 1):
            if name in (band.get("name"), band.get("eo:common_name"), band.get("common_name")):
                return key if len(bands) == 1 else f"{key}.{number}"
    raise KeyError(name)
