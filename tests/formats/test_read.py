"""Files as cubes, compared with rasterio and geopandas reading the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from odc_openeo import geometry
from odc_openeo.cube import valid
from odc_openeo.errors import FileContentInvalid, FileTypeInvalid, IncompatibleDataCubes
from odc_openeo.formats.read import find_input_format

SHAPE = (1300, 1100)


def write_tiff(path: Path, bands: list[str | None], dtype: str = "int16", **more: Any) -> np.ndarray:
    values = np.random.default_rng(len(bands)).integers(0, 100, (len(bands), *SHAPE)).astype(dtype)
    profile = {"crs": "EPSG:32632", "transform": from_origin(680000, 5152000, 10, 10), "nodata": 7, **more}
    with rasterio.open(
        path, "w", driver="GTiff", dtype=dtype, count=len(bands), height=SHAPE[0], width=SHAPE[1], **profile
    ) as file:
        file.write(values)
        for i, name in enumerate(bands, 1):
            if name:
                file.set_band_description(i, name)
    return values


def read(format_: str, *paths: Path) -> Any:
    return find_input_format(format_).read(paths)


def test_integers_stay_raw_and_lazy(tmp_path: Path) -> None:
    values = write_tiff(tmp_path / "a.tif", ["red", None], tiled=True)
    cube = read("gtiff", tmp_path / "a.tif")
    assert dask.is_dask_collection(cube)
    assert cube.chunksizes["y"] == (1024, 276)
    assert list(cube.bands.values) == ["red", "band_2"]
    np.testing.assert_array_equal(cube.transpose("bands", "y", "x").values, values)
    np.testing.assert_array_equal(valid(cube).values, values != 7)
    assert (cube.odc.crs.epsg, cube.dtype) == (32632, np.int16)
    assert (float(cube.x[0]), float(cube.y[0])) == (680005, 5151995)


def test_nodata_of_floats_is_nan(tmp_path: Path) -> None:
    values = write_tiff(tmp_path / "a.tif", ["red"], "float32")
    found = read("GTiff", tmp_path / "a.tif").values
    np.testing.assert_array_equal(found, np.where(values == 7, np.nan, values))


def test_several_rasters_are_one_cube(tmp_path: Path) -> None:
    one = write_tiff(tmp_path / "a.tif", ["red"])
    two = write_tiff(tmp_path / "b.tif", ["nir", "swir"])
    cube = read("GTiff", tmp_path / "b.tif", tmp_path / "a.tif")
    assert list(cube.bands.values) == ["nir", "swir", "red"]
    np.testing.assert_array_equal(cube.values, np.concatenate([two, one]))
    assert cube.odc.geobox.shape == SHAPE
    with pytest.raises(IncompatibleDataCubes, match="same band"):
        read("GTiff", tmp_path / "a.tif", tmp_path / "a.tif")
    write_tiff(tmp_path / "c.tif", ["x"], transform=from_origin(680005, 5152000, 10, 10))
    with pytest.raises(IncompatibleDataCubes, match="grid"):
        read("GTiff", tmp_path / "a.tif", tmp_path / "c.tif")


def test_a_disguised_vrt_is_not_followed(tmp_path: Path) -> None:
    write_tiff(tmp_path / "secret.tif", ["red"])
    source = f"<SimpleSource><SourceFilename>{tmp_path}/secret.tif</SourceFilename></SimpleSource>"
    band = f'<VRTRasterBand dataType="Int16" band="1">{source}</VRTRasterBand>'
    text = f'<VRTDataset rasterXSize="{SHAPE[1]}" rasterYSize="{SHAPE[0]}">{band}</VRTDataset>'
    (tmp_path / "a.tif").write_text(text)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.driver == "VRT", "GDAL itself would follow it"
    with pytest.raises(FileContentInvalid, match=r"a\.tif"):
        read("GTiff", tmp_path / "a.tif")


@pytest.mark.parametrize("crs", [32632, 4326])
def test_vectors(tmp_path: Path, crs: int) -> None:
    shapes = [shapely.box(i, 0, i + 1, 1) for i in range(3)]
    frame = gpd.GeoDataFrame({"name": ["a", "b", "c"]}, geometry=shapes, crs=crs)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_file(tmp_path / "a.geojson", driver="GeoJSON")
    for name in ("Parquet", "GeoJSON"):
        path = tmp_path / f"a.{name.lower()}"
        cube = read(name, path, path)
        found = geometry.to_frame(cube)
        assert list(found["name"]) == ["a", "b", "c"] * 2
        assert found.geometry.geom_equals(gpd.GeoSeries(shapes * 2, crs=found.crs)).all()
        assert found.crs.to_epsg() == crs


@pytest.mark.parametrize("format_", ["GTiff", "GeoJSON", "Parquet"])
def test_what_is_no_such_file(tmp_path: Path, format_: str) -> None:
    (tmp_path / "bad.bin").write_bytes(b"\x00\xffnothing of the kind")
    with pytest.raises(FileContentInvalid, match=r"'bad\.bin'") as failure:
        read(format_, tmp_path / "bad.bin")
    assert str(tmp_path) not in failure.value.message


def test_unknown_formats() -> None:
    with pytest.raises(FileTypeInvalid, match="GTiff, GeoJSON, Parquet"):
        find_input_format("SHP")
