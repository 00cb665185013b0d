"""Measurements with a dimension besides time and space, as wavelengths of hyperspectral data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.catalog import Catalog
from odc_openeo.errors import FeatureUnsupported
from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment
from tests.catalog.scenes import Grid, Index, document, product

WAVELENGTHS = [450.0, 550.0, 650.0]
PIXELS = np.arange(1, 101, dtype="uint16").reshape(10, 10)
LAYERS = np.stack([PIXELS, PIXELS + 100, PIXELS + 200])
GRID = Grid(600000, 5200000, 10, (10, 10))
SPECTRUM = {"wavelength": [440, 450, 460], "response": [0.1, 1, 0.1]}
LAYERED = {"dtype": "uint16", "nodata": 0, "units": "1", "extra_dim": "wavelength", "scale_factor": 0.01}


def write_layers(path: Path) -> None:
    profile = {"driver": "GTiff", "count": 3, "height": 10, "width": 10, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", **profile, crs="EPSG:32632", transform=GRID.transform) as file:
        file.write(LAYERS)


@pytest.fixture
def spectral(index: Index, catalog: Catalog, tmp_path: Path) -> Catalog:
    """A catalogue with a product of two measurements with wavelengths and one without."""
    index.add_product(
        product(
            "spectral",
            extra_dimensions=[{"name": "wavelength", "values": WAVELENGTHS, "dtype": "float64"}],
            measurements=[
                {"name": "refl", **LAYERED, "spectral_definition": [SPECTRUM] * 3, "aliases": ["r"]},
                {"name": "error", **LAYERED},
                {"name": "plain", "dtype": "uint16", "nodata": 0, "units": "1"},
            ],
        )
    )
    write_layers(tmp_path / "a.tif")
    files = {name: {"path": "a.tif"} for name in ("refl", "error", "plain")}
    index.add(document(tmp_path, files, {"default": GRID}, "spectral", "2022-06-01T10:00:00Z"))
    return catalog


def run(catalog: Catalog, *steps: tuple[str, dict[str, Any]], **arguments: Any) -> Any:
    arguments = {"id": "spectral", "spatial_extent": None, "temporal_extent": None, **arguments}
    nodes: dict[str, Any] = {"n0": {"process_id": "load_collection", "arguments": arguments}}
    for number, (process, more) in enumerate(steps, 1):
        data = {"data": {"from_node": f"n{number - 1}"}}
        nodes[f"n{number}"] = {"process_id": process, "arguments": {**data, **more}}
    nodes[f"n{len(steps)}"]["result"] = True
    return evaluate({"process_graph": nodes}, Environment(catalog))


def test_the_dimension_is_one_of_the_collection_and_of_its_cubes(spectral: Catalog) -> None:
    dimensions = spectral.get_collection("spectral")["cube:dimensions"]
    assert dimensions["wavelength"] == {"type": "other", "values": WAVELENGTHS}
    cube = run(spectral, bands=["refl"])
    assert cube.dims == ("t", "bands", "wavelength", "y", "x")
    assert cube.wavelength.values.tolist() == WAVELENGTHS
    assert cube.bands.values.tolist() == ["refl"]
    assert (cube.dtype, cube.attrs["nodata"], cube["scale"].values.tolist()) == (np.uint16, 0, [0.01])
    np.testing.assert_array_equal(cube.values[0, 0], LAYERS)


@pytest.mark.parametrize("bands", [["error", "refl"], ["r", "error"]])
def test_several_measurements_share_the_dimension(spectral: Catalog, bands: list[str]) -> None:
    cube = run(spectral, bands=bands)
    assert cube.bands.values.tolist() == [{"r": "refl"}.get(b, b) for b in bands]
    np.testing.assert_array_equal(cube.values[0], np.stack([LAYERS, LAYERS]))
    chosen = run(spectral, ("filter_bands", {"bands": ["refl"]}), bands=bands)
    np.testing.assert_array_equal(chosen.values[0, 0], LAYERS)


def test_processes_take_the_dimension(spectral: Catalog) -> None:
    equal = {"process_id": "eq", "arguments": {"x": {"from_parameter": "value"}, "y": 550}, "result": True}
    mean = {"process_id": "mean", "arguments": {"data": {"from_parameter": "data"}}, "result": True}
    box = {"west": 600020, "south": 5199950, "east": 600050, "north": 5199980, "crs": 32632}
    condition = {"dimension": "wavelength", "condition": {"process_graph": {"eq": equal}}}
    filtered = run(spectral, ("filter_labels", condition), ("filter_bbox", {"extent": box}), bands=["refl"])
    np.testing.assert_array_equal(filtered.values[0, 0, 0], LAYERS[1, 2:5, 2:5])
    reducer = {"dimension": "wavelength", "reducer": {"process_graph": {"mean": mean}}}
    np.testing.assert_array_equal(
        run(spectral, ("reduce_dimension", reducer), bands=["refl"]).values[0, 0], LAYERS.mean(axis=0)
    )
    labels = run(spectral, ("dimension_labels", {"dimension": "wavelength"}), bands=["refl"])
    assert list(labels) == WAVELENGTHS


def test_bands_with_and_without_the_dimension_are_not_loaded_together(spectral: Catalog) -> None:
    for bands in (None, ["plain", "refl"]):
        with pytest.raises(FeatureUnsupported, match="Select 'bands' of one kind"):
            run(spectral, bands=bands)
    plain: xr.DataArray = run(spectral, bands=["plain"])
    assert plain.dims == ("t", "bands", "y", "x")
    np.testing.assert_array_equal(plain.values[0, 0], PIXELS)
