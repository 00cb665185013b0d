"""Files of results."""

import geopandas as gpd
import numpy as np
import xarray as xr
from PIL import Image


def write_geotiffs(data, path):
    """Write a GeoTIFF with a layer per band; one file for each label of the other dimensions."""
    rest = [name for name in data.dims if name not in ("bands", "y", "x")]
    if rest:
        for number in range(data.sizes[rest[0]]):
            write_geotiffs(data.isel({rest[0]: number}, drop=True), path.replace(".tif", f"_{number}.tif"))
        return
    layers = data.astype("float32") if data.dtype == bool else data
    order = [name for name in ("bands", "y", "x") if name in data.dims]
    layers.transpose(*order).odc.write_cog(path, overwrite=True)


def write_pictures(data, path, **options):
    """Write a picture with values as shades from 0 to 255; a file for each label of other dimensions."""
    rest = [name for name in data.dims if name not in ("bands", "y", "x")]
    if rest:
        for number in range(data.sizes[rest[0]]):
            stem, _, suffix = path.rpartition(".")
            part = data.isel({rest[0]: number}, drop=True)
            write_pictures(part, f"{stem}_{number}.{suffix}", **options)
        return
    layers = data if "bands" in data.dims else data.expand_dims("bands")
    values = layers.astype(float).transpose("y", "x", "bands").sortby("y", ascending=False).values
    shades = np.clip(np.rint(np.nan_to_num(values, posinf=255, neginf=0)), 0, 255).astype("uint8")
    missing = np.isnan(values).any(axis=-1)
    if path.endswith(".jpg"):
        shades[missing] = 255
    elif shades.shape[-1] == 4:
        shades[missing, 3] = 0
    elif missing.any():
        shades = np.dstack([shades, np.where(missing, 0, 255).astype("uint8")])
    Image.fromarray(shades.squeeze(axis=-1) if shades.shape[-1] == 1 else shades).save(path, **options)


def make_table(data, band=None):
    """A row for each geometry, date and further label, a column for each band."""
    along = [
        name for name, coord in data.coords.items() if name != "geometry" and coord.dims == ("geometry",)
    ]
    rest = [name for name in data.sizes if name not in ("geometry", "t", band)]
    keys = [*(name for name in ("geometry", "t") if name in data.sizes), *rest]
    numbered = data.drop_vars([name for name in data.coords if name not in data.sizes])
    if "geometry" in data.sizes:
        numbered = numbered.drop_vars("geometry").assign_coords(geometry=np.arange(data.sizes["geometry"]))
    if isinstance(data, xr.DataArray):
        numbered = numbered.to_dataset(band) if band else numbered.to_dataset(name="value")
    rows = numbered.to_dataframe(dim_order=keys).reset_index()
    for position, name in enumerate(along, 1):
        rows.insert(position, name, data[name].values[rows["geometry"]])
    return rows.rename(columns={"geometry": "feature_index", "t": "date"})


def make_features(data, band=None):
    """The rows of a vector cube with their geometries."""
    rows = make_table(data, band)
    shapes = data["geometry"].values[rows["feature_index"]]
    return gpd.GeoDataFrame(rows, geometry=shapes, crs=data.xindexes["geometry"].crs)


def list_series(data):
    """For each date, a list with the values of the bands of each geometry."""
    ordered = data if data.ndim == 3 else data.expand_dims("bands")
    values = ordered.transpose("t", "geometry", ...).astype(object).where(ordered.notnull(), None)
    dates = np.datetime_as_string(data["t"], unit="s")
    return {f"{date}Z": part.tolist() for date, part in zip(dates, values.values)}


def merge_patch(target, patch):
    """A JSON merge patch (RFC 7386): null removes a member."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result
