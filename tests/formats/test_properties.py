"""Properties of geometries of any JSON, through every writer of vector cubes and back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
import xvec  # noqa: F401  (registers the accessor)
from hypothesis import given, settings
from hypothesis import strategies as st

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.formats import Output, write_outputs
from odc_openeo.formats.read import get_input_format
from odc_openeo.processes.zonal import aggregate_spatial
from odc_openeo.spatial.vector_cubes import from_frame, from_geojson
from tests.formats.cubes import raster

FORMATS = ["netCDF", "Zarr", "Parquet", "GeoJSON", "JSON", "CSV"]
AMBIGUOUS = [
    "geometry",
    "t",
    "date",
    "bands",
    "B01",
    "b01",
    "value",
    "feature_index",
    "x",
    "y",
    "spatial_ref",
]
INTERNAL = [
    "nodata",
    "unit",
    "scale",
    "common_name",
    "node_count",
    "properties",
    "property_t",
    "id",
    "__array__",
]
ODD = [
    "",
    "a/b",
    "..",
    ".",
    "a b",
    "ä",
    "a\u0308",
    "\u00e4",
    "日本",
    "-1",
    "1",
    "n" * 400,
    "a\nb",
    "a;b,c",
    "\ud800",
]

names = st.one_of(st.sampled_from([*AMBIGUOUS, *INTERNAL, *ODD]), st.text(max_size=5))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([2**31, 2**53 + 1, 2**63, -(2**63), 10**30]),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(["", "a", "1", "null", "ü\n\"'", "\ud800", "a\0b", "x" * 7_000]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(names, inner, max_size=2)),
    max_leaves=4,
)
records = st.lists(st.dictionaries(names, values, max_size=4), min_size=1, max_size=3)


def make_features(records: list[dict[str, Any]]) -> dict[str, Any]:
    boxes = [shapely.box(600010 + 20 * i, 5099900, 600035 + 20 * i, 5099950) for i in range(len(records))]
    shapes = gpd.GeoSeries(boxes, crs=32632).to_crs(4326)
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(shape), "properties": record}
        for shape, record in zip(shapes, records, strict=True)
    ]
    return {"type": "FeatureCollection", "features": features}


def aggregate(records: list[dict[str, Any]], bands: int | None = 1) -> xr.DataArray:
    cube = raster(dates=None, bands=bands, shape=(20, 20))
    return aggregate_spatial(cube, make_features(records), lambda data, context: data.mean("__array__"))


def write(cube: Any, format_: str, folder: Path) -> Path:
    (asset,) = write_outputs(None, [Output.from_data(cube, format_)], folder)
    return asset.path


def read_columns(path: Path) -> dict[str, list[Any]]:
    """The properties of a file as another library reads them."""
    match path.suffix:
        case ".nc" | ".zarr":
            opener = xr.open_dataset if path.suffix == ".nc" else xr.open_zarr
            with opener(path) as dataset:
                return {
                    str(n): v.values.tolist() for n, v in dataset.variables.items() if v.dims == ("geometry",)
                }
        case ".parquet":
            return dict(gpd.read_parquet(path).drop(columns="geometry").to_dict("list"))
        case ".csv":
            rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
            return {name: [row[name] for row in rows] for name in rows[0]}
        case ".geojson":
            features = json.loads(path.read_text(encoding="utf-8"))["features"]
            return {name: [f["properties"][name] for f in features] for name in features[0]["properties"]}
        case _:
            document = json.loads(path.read_text(encoding="utf-8"))
            return {name: c["data"] for name, c in document["coords"].items() if c["dims"] == ["geometry"]}


@settings(deadline=None, max_examples=24)
@given(records=records, format_=st.sampled_from(FORMATS), bands=st.sampled_from([None, 1, 2]))
def test_any_properties_can_be_written(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], format_: str, bands: int | None
) -> None:
    """Each property has a column of its own, with a value for each feature."""
    cube = aggregate(records, bands)
    path = write(cube, format_, tmp_path_factory.mktemp("any"))
    columns = read_columns(path)
    count = len({name for record in records for name in record})
    assert len([c for c in columns.values() if len(c) == len(records)]) >= count
    if format_ in ("GeoJSON", "Parquet"):
        again = get_input_format(format_).read([path])
        assert again.sizes["geometry"] == len(records)


@settings(deadline=None, max_examples=15)
@given(records=records, format_=st.sampled_from(FORMATS))
def test_geometries_with_any_properties_but_no_values_can_be_written(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], format_: str
) -> None:
    cube = from_frame(from_geojson(make_features(records), "load_geojson", "data"))
    path = write(cube, format_, tmp_path_factory.mktemp("none"))
    assert path.exists()


@pytest.mark.parametrize("format_", FORMATS)
def test_a_property_with_the_name_of_a_band_is_renamed(tmp_path: Path, format_: str) -> None:
    path = write(aggregate([{"B01": "name"}, {"B01": "other"}]), format_, tmp_path)
    columns = read_columns(path)
    assert ["name", "other"] in columns.values()
    if format_ in ("netCDF", "Zarr"):
        assert columns["B01_1"] == ["name", "other"]


@pytest.mark.parametrize("format_", FORMATS)
def test_nested_and_mixed_properties_are_json(tmp_path: Path, format_: str) -> None:
    records = [{"nested": {"a": [1, None]}, "mixed": 1, "n": 3}, {"nested": None, "mixed": "a", "n": None}]
    columns = read_columns(write(aggregate(records), format_, tmp_path))
    if format_ in ("GeoJSON", "JSON"):
        assert columns["nested"] == [{"a": [1, None]}, None]
        assert columns["mixed"] == [1, "a"]
        return
    assert json.loads(columns["nested"][0]) == {"a": [1, None]}
    assert columns["nested"][1] in ("", None)
    assert [str(v) for v in columns["mixed"]] == ["1", "a"]


@pytest.mark.parametrize("format_", ["CSV", "GeoJSON", "JSON"])
def test_integers_stay_whole_where_another_feature_has_none(tmp_path: Path, format_: str) -> None:
    records = [{"n": 1, "big": 2**53 + 1, "f": 1.5}, {"n": None, "big": 1}]
    columns = read_columns(write(aggregate(records), format_, tmp_path))
    expected = {"n": [1, None], "big": [2**53 + 1, 1], "f": [1.5, None]}
    for name, column in expected.items():
        as_text = ["" if v is None else str(v) for v in column]
        assert columns[name] == (as_text if format_ == "CSV" else column)


def test_integers_with_gaps_stay_whole_through_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("lon,lat,n,s\n10,50,1,a\n11,51,,\n")
    cube = get_input_format("CSV").read([tmp_path / "a.csv"])
    assert cube["n"].values.tolist() == [1, None]
    write(cube, "CSV", tmp_path)
    assert read_columns(tmp_path / "result.csv")["n"] == ["1", ""]
    write(cube, "Parquet", tmp_path)
    again = get_input_format("Parquet").read([tmp_path / "result.parquet"])
    assert again["n"].values.tolist() == [1, None]
    assert again["s"].values.tolist() == ["a", None]


@pytest.mark.parametrize("format_", FORMATS)
def test_other_types_of_geoparquet_become_text(tmp_path: Path, format_: str) -> None:
    frame = gpd.GeoDataFrame(
        {
            "day": [pd.Timestamp("2020-01-01").date(), None],
            "list": [np.array([1, 2]), np.array([3])],
            "bytes": [b"a", b"\xff"],
            "time": pd.to_datetime(["2020-01-01", None]),
            "zone": pd.to_datetime(["2020-01-01T00:00:00+02:00", None]),
            "kind": pd.Categorical(["a", "b"]),
        },
        geometry=[shapely.Point(1, 2), shapely.Point(3, 4)],
        crs=4326,
    )
    frame.to_parquet(tmp_path / "a.parquet")
    cube = get_input_format("Parquet").read([tmp_path / "a.parquet"])
    assert write(cube, format_, tmp_path).exists()


@settings(deadline=None, max_examples=60)
@given(labels=st.lists(names, max_size=8, unique=True))
def test_names_of_variables_are_allowed_and_distinct(labels: list[str]) -> None:
    from odc_openeo.formats.properties import choose_name

    chosen: list[str] = ["x"]
    for label in labels:
        chosen.append(choose_name(label, chosen, "property"))
    assert len(set(chosen)) == len(labels) + 1
    assert all(name and "/" not in name and len(name.encode()) < 255 and name[0] != "." for name in chosen)
