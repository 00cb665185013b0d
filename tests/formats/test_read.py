"""Files as cubes, compared with rasterio and geopandas reading the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import geopandas as gpd
import h5py
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from rasterio.transform import from_origin

from odc_openeo.cube import valid
from odc_openeo.errors import FileContentInvalid, FileTypeInvalid, IncompatibleDataCubes
from odc_openeo.formats import Output, write_outputs
from odc_openeo.formats.read import get_input_format
from odc_openeo.processes.filters import filter_bands
from odc_openeo.spatial import vector_cubes
from tests.formats.cubes import raster

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
    return get_input_format(format_).read(paths)


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
    cube = read("GTiff", tmp_path / "a.tif").values
    np.testing.assert_array_equal(cube, np.where(values == 7, np.nan, values))


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
    with pytest.raises(FileContentInvalid, match=r"a\.tif"):
        read("GTiff", tmp_path / "a.tif")


# --- netCDF --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["variables", "cube"])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_netcdf_written_here_is_the_same_cube(tmp_path: Path, layout: str, dtype: str) -> None:
    cube = raster(dtype, bands=2).odc.assign_crs("EPSG:32632")
    cube.attrs = {"nodata": np.int16(7)} if dtype == "int16" else {}
    (asset,) = write_outputs(None, [Output.from_data(cube, "netCDF", {"layout": layout})], tmp_path)
    read_cube = read("netCDF", asset.path)
    assert dask.is_dask_collection(read_cube)
    assert read_cube.dims == ("t", "bands", "y", "x")
    xr.testing.assert_equal(read_cube.drop_vars("spatial_ref"), cube.drop_vars("spatial_ref"))
    assert read_cube.odc.geobox == cube.odc.geobox
    assert read_cube.attrs.get("nodata") == cube.attrs.get("nodata")
    both = read("netCDF", asset.path, renamed(asset.path, tmp_path / "other.nc", layout))
    assert list(both.bands.values) == ["B01", "B02", "X01", "X02"]


@pytest.mark.parametrize("name", ["var", "value"])
def test_netcdf_without_bands_has_its_band_by_either_name(tmp_path: Path, name: str) -> None:
    cube = raster(bands=None).odc.assign_crs("EPSG:32632")
    (asset,) = write_outputs(None, [Output.from_data(cube, "netCDF")], tmp_path)
    with xr.open_dataset(asset.path, mask_and_scale=False) as dataset:
        dataset.rename({} if name == "var" else {"var": name}).to_netcdf(tmp_path / "a.nc")
    read_cube = read("netCDF", tmp_path / "a.nc")
    for band in ("var", "value"):
        selected = filter_bands(read_cube, [band])
        assert selected.bands.values.tolist() == [band]
        np.testing.assert_array_equal(selected[:, 0].values, cube.values)


def renamed(path: Path, target: Path, layout: str) -> Path:
    with xr.open_dataset(path, mask_and_scale=False) as dataset:
        if layout == "cube":
            dataset["bands"] = ["X01", "X02"]
        else:
            dataset = dataset.rename(B01="X01", B02="X02")
        dataset.to_netcdf(target)
    return target


@pytest.mark.parametrize("kind", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_netcdf_of_others(tmp_path: Path, kind: str) -> None:
    """Longitude and latitude from south to north, no grid mapping, packed integers."""
    values = np.arange(2 * 3 * 4, dtype="int16").reshape(2, 3, 4)
    coords = {
        "time": pd.date_range("2022-06-01", periods=2),
        "lat": ("lat", [45.0, 45.5, 46.0], {"standard_name": "latitude"}),
        "lon": ("lon", [10.0, 10.5, 11.0, 11.5], {"standard_name": "longitude"}),
    }
    packed = {"scale_factor": 0.1, "_FillValue": np.int16(5)}
    dataset = xr.Dataset({"temp": (("time", "lat", "lon"), values, packed), "label": ((), 3)}, coords)
    dataset.to_netcdf(tmp_path / "a.nc", format=kind)
    cube = read("netCDF", tmp_path / "a.nc")
    assert cube.dims == ("t", "bands", "y", "x")
    np.testing.assert_array_equal(cube.values, values[:, None, ::-1])
    assert (cube.odc.crs.epsg, cube.attrs["nodata"], cube.dtype) == (4326, 5, np.int16)
    assert list(cube.y.values) == [46.0, 45.5, 45.0]
    assert str(cube.t.values[1])[:10] == "2022-06-02"


def test_netcdf_that_is_no_cube(tmp_path: Path) -> None:
    uneven = {"y": [0.0, 1.0, 2.0], "x": [0.0, 1.0, 5.0]}
    several = xr.Dataset({"a": (("y", "x"), np.ones((3, 3))), "b": (("y", "x"), np.ones((3, 3), "int16"))})
    cases = (
        (xr.Dataset({"v": ("n", [1.0])}), FileContentInvalid),
        (xr.Dataset({"v": (("y", "x"), np.ones((3, 3)))}, uneven), FileContentInvalid),
        (xr.Dataset({"v": (("y", "x"), np.ones((3, 3)))}), FileContentInvalid),
        (several, IncompatibleDataCubes),
    )
    for number, (dataset, error) in enumerate(cases):
        path = tmp_path / f"a{number}.nc"
        dataset.to_netcdf(path)
        with pytest.raises(error, match=path.name):
            read("netCDF", path)


@pytest.mark.parametrize("how", ["raw", "link", "virtual", "deep"])
def test_hdf5_files_that_take_from_others_are_refused(tmp_path: Path, how: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret!!")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.arange(8)
    with h5py.File(tmp_path / "a.nc", "w") as file:
        if how == "link":
            file["v"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        elif how == "virtual":
            layout = h5py.VirtualLayout((8,), "int64")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (8,))
            file.create_virtual_dataset("v", layout)
        else:
            group = file.create_group("g") if how == "deep" else file
            group.create_dataset("v", (8,), "uint8", external=[(str(tmp_path / "secret"), 0, 8)])
    with pytest.raises(FileContentInvalid, match="refers to other files"):
        read("netCDF", tmp_path / "a.nc")


# --- Vectors -------------------------------------------------------------------------------------


def test_tables_of_points(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('Lon,Lat,name\n11.5,46.5,Bözen\n12,47,"a,b"\n', encoding="utf-8")
    result = vector_cubes.to_frame(read("CSV", tmp_path / "a.csv"))
    assert [(p.x, p.y) for p in result.geometry] == [(11.5, 46.5), (12, 47)]
    assert list(result["name"]) == ["Bözen", "a,b"]
    (tmp_path / "b.csv").write_text('id,geometry\n1,"POLYGON ((0 0, 1 0, 1 1, 0 0))"\n')
    result = vector_cubes.to_frame(read("csv", tmp_path / "b.csv"))
    assert (result.geometry[0].area, result.crs.to_epsg()) == (0.5, 4326)
    for text in ("a,b\n1,2\n", "lon,lat\nx,y\n", "wkt\nPOINT(\n", ""):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(FileContentInvalid, match=r"bad\.csv"):
            read("CSV", tmp_path / "bad.csv")


def test_vector_files_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odc_openeo.formats.read_vector.MAX_BYTES", 10)
    (tmp_path / "a.csv").write_text("lon,lat\n1,2\n")
    for format_ in ("CSV", "GeoJSON", "Parquet"):
        with pytest.raises(FileContentInvalid, match="larger than"):
            read(format_, tmp_path / "a.csv")


@pytest.mark.parametrize("crs", [32632, 4326])
def test_vector_files_are_read(tmp_path: Path, crs: int) -> None:
    shapes = [shapely.box(i, 0, i + 1, 1) for i in range(3)]
    frame = gpd.GeoDataFrame({"name": ["a", "b", "c"]}, geometry=shapes, crs=crs)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_file(tmp_path / "a.geojson", driver="GeoJSON")
    for name in ("Parquet", "GeoJSON"):
        path = tmp_path / f"a.{name.lower()}"
        cube = read(name, path, path)
        result = vector_cubes.to_frame(cube)
        assert list(result["name"]) == ["a", "b", "c"] * 2
        assert result.geometry.geom_equals(gpd.GeoSeries(shapes * 2, crs=result.crs)).all()
        assert result.crs.to_epsg() == crs


@pytest.mark.parametrize("format_", ["GTiff", "netCDF", "GeoJSON", "Parquet", "CSV"])
def test_files_of_wrong_format_are_refused(tmp_path: Path, format_: str) -> None:
    (tmp_path / "bad.bin").write_bytes(b"\x00\xffnothing of the kind")
    with pytest.raises(FileContentInvalid, match=r"'bad\.bin'") as failure:
        read(format_, tmp_path / "bad.bin")
    assert str(tmp_path) not in failure.value.message


def test_unknown_formats() -> None:
    with pytest.raises(FileTypeInvalid, match="GTiff, netCDF, GeoJSON, Parquet, CSV"):
        get_input_format("SHP")
