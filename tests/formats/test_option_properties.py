"""Any options of any format: either an error that names the option, or files that other libraries open."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import rasterio
import xarray as xr
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning

from odc_openeo.errors import OpenEOError
from odc_openeo.formats import FORMATS, Output, write_outputs
from odc_openeo.formats.options import HINTS
from odc_openeo.spatial.geometry_masks import clip_to_geometries
from tests.formats.cubes import raster, vector
from tests.formats.test_options import polygons

STRINGS = ["../x", "a/b", "\x00", "result", "CON", "é" * 100, "thumbnail", "red", "viridis", "id", "utm-20km"]
TEXTS = st.text(max_size=30) | st.sampled_from(STRINGS)
COLORS = st.one_of(
    st.sampled_from(["red", "#010203", "#01020304", "nope", "rgb(1,2,3)"]),
    st.lists(st.integers(-1, 256) | st.floats(-0.1, 1.1), min_size=2, max_size=5),
    st.integers(-1, 2**33),
)
COLORMAPS = st.one_of(
    st.dictionaries(st.sampled_from(["0", "1", "255", "256", "65535", "1.0", "-1", "x", "1e3", "٣"]), COLORS),
    st.lists(COLORS, max_size=4),
    TEXTS,
)
KEYS = st.sampled_from(["SCALE", "offset", "UNIT", "a", "a=b", "x y", "STATISTICS_MEAN"]) | st.text(
    max_size=5
)
TAGS = TEXTS | st.floats() | st.integers() | st.booleans() | st.none()
METADATA = st.dictionaries(
    st.sampled_from(["B01", "B02", "nope", ""]), st.dictionaries(KEYS, TAGS, max_size=3), max_size=3
)
ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), TEXTS, st.just([]), st.just({})
)
SPECIAL = {"colormap": COLORMAPS, "bands_metadata": METADATA, "filename_prefix": TEXTS}


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that are right or nearly right for an option."""
    if "enum" in schema:
        return st.sampled_from([*schema["enum"], *(str(e).lower() for e in schema["enum"])]) | ANY
    if "minimum" in schema:
        low, high = schema["minimum"], schema["maximum"]
        return st.integers(low - 1, high + 1) | st.integers(low, min(high, low + 8)).map(str) | ANY
    return ANY


@st.composite
def calls(draw: st.DrawFn, format_: str) -> dict[str, Any]:
    """Options of a format: some of its own, perhaps in another casing, hints of others, unknown ones."""
    schemas = FORMATS[format_].options
    names = draw(st.lists(st.sampled_from(sorted(schemas)), max_size=4, unique=True))
    options = {}
    for name in names:
        key = draw(st.sampled_from([name, name.upper()]))
        options[key] = draw(SPECIAL[name] if name in SPECIAL else values_of(dict(schemas[name])))
    if draw(st.integers(0, 5)) == 0:
        options[draw(st.sampled_from(sorted(HINTS)) | st.text(max_size=8))] = draw(ANY)
    return options


def _clipped(dtype: str) -> xr.DataArray:
    cube = raster(dtype, dates=2, bands=2, shape=(16, 16)).odc.assign_crs("EPSG:32632")
    return clip_to_geometries(cube, polygons(id=["a/b", None, 7]), "filter_spatial", "geometries")


RASTERS = {
    "floats": _clipped("float32"),
    "bytes": (_clipped("float32").fillna(0) % 200).astype("uint8").isel(bands=[0], t=0, drop=True),
    "without bands": raster("uint16", dates=None, bands=None, shape=(9, 8)),
    "dates": raster("int16", dates=3, bands=1, shape=(9, 8)).chunk({"t": 1, "y": 4}),
    "pixel": raster("float64", dates=1, bands=3, shape=(1, 1)),
}
CUBES = RASTERS | {"vector": vector(), "vector without bands": vector(dates=None, bands=None)}


def open_file(path: Path, format_: str) -> None:
    """Open a file with a library of its format and read all of it."""
    if format_ in ("GTiff", "PNG", "JPEG"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as file:
                assert file.read().size
    elif format_ in ("netCDF", "Zarr"):
        engine: dict[str, Any] = {"engine": "netcdf4" if format_ == "netCDF" else "zarr"}
        if (path / "0").is_dir():
            engine["group"] = "0"
        with xr.open_dataset(path, **engine) as dataset:
            assert dataset.load().data_vars
    elif format_ == "Icechunk":
        import icechunk

        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))
        with xr.open_zarr(repository.readonly_session("main").store, consolidated=False) as dataset:
            assert dataset.load().data_vars
    elif format_ == "JSON":
        json.loads(path.read_text())
    elif format_ == "CSV":
        assert len(pd.read_csv(path, sep=None, engine="python"))
    elif format_ == "GeoJSON":
        assert len(gpd.read_file(path))
    else:
        assert len(pd.read_parquet(path))


def make_output(cube: Any, format_: str, options: dict[str, Any]) -> Output | None:
    """The output; None if the options are refused by an error that names one of them."""
    try:
        return Output.from_data(cube, format_, options)
    except OpenEOError as error:
        event(error.code)
        refusal = error
    assert refusal.status == 400
    assert len(refusal.message) < 2000
    if refusal.code == "ProcessParameterInvalid":
        assert any(name[:100] in refusal.message or name.lower() in refusal.message for name in options)
    return None


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(data=st.data(), format_=st.sampled_from(sorted(FORMATS)), kind=st.sampled_from(sorted(CUBES)))
def test_any_options(data: st.DataObject, format_: str, kind: str) -> None:
    options = data.draw(calls(format_))
    output = make_output(CUBES[kind], format_, options)
    if output is None:
        return
    assume(len(output.pieces) < 20)
    event(f"{format_} written")
    with tempfile.TemporaryDirectory() as folder:
        assets = write_outputs(None, [output], Path(folder))
        paths = [asset.path for asset in assets]
        assert assets
        assert len({path.name.casefold() for path in paths}) == len(paths)
        assert sorted(Path(folder).iterdir()) == sorted(paths)
        for path in paths:
            assert path.parent == Path(folder)
            assert path.name.isprintable()
            assert len(path.name.encode()) <= 255
            assert not path.name.startswith(".")
            open_file(path, format_)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.none() | st.text(max_size=40).filter(str.isalnum), min_size=1, max_size=5))
def test_stems_of_outputs_never_clash(prefixes: list[str | None]) -> None:
    cubes = RASTERS["without bands"]
    options = [{} if prefix is None else {"filename_prefix": prefix} for prefix in prefixes]
    outputs = [Output.from_data(cubes, "JSON", o) for o in options]
    with tempfile.TemporaryDirectory() as folder:
        assets = write_outputs(None, outputs, Path(folder))
        assert len({asset.path for asset in assets}) == len(prefixes) == len(list(Path(folder).iterdir()))
    assert [asset.output for asset in assets] == list(range(len(prefixes)))
