"""Measurements with a dimension besides time and space: their layers are read as bands, then put along it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import dask.array as da
import xarray as xr

from odc_openeo.catalog import Band, ExtraDimension, Scene
from odc_openeo.catalog.scenes import File
from odc_openeo.cube import BANDS, T, X, Y
from odc_openeo.cube.coordinates import RESERVED, make_coordinate
from odc_openeo.errors import FeatureUnsupported


def find_extra_dimension(bands: Sequence[Band]) -> ExtraDimension | None:
    """Find the dimension that bands have besides those of all cubes, None if they have none.

    Raises:
        FeatureUnsupported: the bands differ in it, or its name means something else in cubes.
    """
    dimensions = {band.extra_dimension: band.name for band in bands}
    if len(dimensions) > 1:
        described = " and ".join(
            f"'{band}' ({'without an extra dimension' if d is None else f'with {d.name}'})"
            for d, band in dimensions.items()
        )
        raise FeatureUnsupported(feature=f"loading {described} into one cube. Select 'bands' of one kind")
    dimension = next(iter(dimensions), None)
    if dimension is not None and dimension.name in (*RESERVED, T, BANDS, Y, X):
        raise FeatureUnsupported(feature=f"an extra dimension with the name '{dimension.name}'")
    return dimension


def list_layers(bands: Sequence[Band], dimension: ExtraDimension) -> list[Band]:
    """List the layers of bands, all of the first band first, as bands that all names of theirs select."""
    return [
        replace(band, name=_name_layer(band, label), aliases=(band.name, *band.aliases), extra_dimension=None)
        for band in bands
        for label in dimension.values
    ]


def find_layer_files(
    scenes: Sequence[Scene], bands: Sequence[Band], dimension: ExtraDimension
) -> list[Scene]:
    """Scenes with a file for each layer: the bands of a measurement's file, in the order of the labels."""
    return [
        replace(scene, files={**scene.files, **_make_layer_files(scene, bands, dimension)})
        for scene in scenes
    ]


def _make_layer_files(scene: Scene, bands: Sequence[Band], dimension: ExtraDimension) -> dict[str, File]:
    return {
        _name_layer(band, label): replace(scene.files[band.name], band=scene.files[band.name].band + i)
        for band in bands
        if band.name in scene.files
        for i, label in enumerate(dimension.values)
    }


def _name_layer(band: Band, label: object) -> str:
    return f"{band.name}[{label}]"


def fold_layers(data: xr.DataArray, bands: Sequence[Band], dimension: ExtraDimension) -> xr.DataArray:
    """Put layers along their dimension: (t, bands, y, x) becomes (t, bands, dimension, y, x), lazily."""
    count = len(dimension.values)
    names = {_name_layer(band, dimension.values[0]): band.name for band in bands}
    first = data.isel({BANDS: slice(0, None, count)})
    pixels = da.stack([data.data[:, start::count] for start in range(count)], axis=2)
    coords = {name: coord.variable for name, coord in first.coords.items() if name != BANDS}
    labels = make_coordinate(dimension.name, dimension.values, "other")
    folded = xr.DataArray(pixels, dims=(T, BANDS, dimension.name, Y, X), coords=coords, attrs=data.attrs)
    band_names = [names[str(layer)] for layer in first.coords[BANDS].values]
    return folded.assign_coords({BANDS: band_names, dimension.name: labels})
