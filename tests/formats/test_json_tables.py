from __future__ import annotations

import json
import math

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from openeo.rest.conversions import timeseries_json_to_pandas

from odc_openeo.cube import LabeledArray
from odc_openeo.errors import FormatUnsuitable
from odc_openeo.formats import Target, get_format, vector_tables
from odc_openeo.formats.json import to_json
from tests.formats.cubes import raster, vector


def save(data, folder, name, **options):
    format_ = get_format(name)
    format_.check(data)
    return format_.write(data, Target(folder), format_.complete_options(options))[0].path


def strict(path):
    def refuse(constant):
        raise ValueError(constant)

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, 2),
        (math.nan, None),
        (-math.inf, None),
        (None, None),
        (True, True),
        ("å", "å"),
        ([1, None, math.nan, [2.5]], [1, None, None, [2.5]]),
        (LabeledArray(["a", 2], [1, math.nan]), {"labels": ["a", 2], "values": [1, None]}),
        (np.float32(0.5), 0.5),
        (np.array([np.nan, 1]), [None, 1.0]),
        ({"a": {"b": math.inf}}, {"a": {"b": None}}),
        (2**60, 2**60),
    ],
)
def test_json_values(tmp_path, value, expected):
    assert strict(save(value, tmp_path, "json")) == expected


def test_json_refuses_unserializable_values():
    with pytest.raises(FormatUnsuitable, match="type object"):
        to_json([object()])


@pytest.mark.parametrize("lazy", [False, True])
def test_json_cubes_read_back(tmp_path, lazy):
    cube = raster(shape=(4, 3))
    cube[0, 0, 0, 0] = np.nan
    document = strict(save(cube.chunk({"x": 2}) if lazy else cube, tmp_path, "JSON", indent=2))
    assert document["dims"] == ["t", "bands", "y", "x"]
    assert document["coords"]["t"]["data"] == ["2022-06-01T10:00:00Z", "2022-06-06T10:00:00Z"]
    assert document["attrs"] == {"crs": "EPSG:32632"}
    assert document["data"][0][0][0][0] is None
    back = xr.DataArray.from_dict(document)
    np.testing.assert_array_equal(back.values.astype("float32"), cube.values)
    assert back["bands"].values.tolist() == ["B01", "B02", "B03"]


def test_json_integers_stay_integers_and_nodata_is_null(tmp_path):
    cube = xr.DataArray(np.array([1, 2, 3], "uint8"), dims="bands", attrs={"nodata": 2})
    assert strict(save(cube, tmp_path, "JSON"))["data"] == [1, None, 3]


def test_json_timeseries_is_readable_by_the_client(tmp_path):
    cube = vector()
    document = strict(save(cube.transpose("bands", "t", "geometry").chunk(), tmp_path, "JSON"))
    assert document["2022-06-01T00:00:00Z"] == [[None, 1.0], [4.0, 5.0], [8.0, 9.0]]
    frame = timeseries_json_to_pandas(document)
    assert frame.shape == (2, 6)
    assert frame.loc["2022-06-02T00:00:00Z", (2, 1)] == 11
    bare = strict(save(vector(bands=None), tmp_path, "JSON"))
    assert bare["2022-06-02T00:00:00Z"] == [[1.0], [3.0], [5.0]]


def test_json_of_vector_cubes_without_dates(tmp_path):
    document = strict(save(vector(dates=None), tmp_path, "JSON"))
    assert document["dims"] == ["geometry", "bands"]
    assert document["coords"]["geometry"]["data"][1]["type"] == "Polygon"
    assert document["coords"]["field"]["data"] == ["a", "b", "c"]
    assert document["data"] == [[None, 1.0], [2.0, 3.0], [4.0, 5.0]]


def test_csv_is_tidy(tmp_path):
    frame = pd.read_csv(save(vector().transpose("t", "bands", "geometry").chunk(), tmp_path, "CSV"))
    assert frame.columns.tolist() == ["feature_index", "field", "date", "B01", "B02"]
    assert frame["feature_index"].tolist() == [0, 0, 1, 1, 2, 2]
    assert frame["field"].tolist() == ["a", "a", "b", "b", "c", "c"]
    assert frame["date"].tolist()[:2] == ["2022-06-01T00:00:00Z", "2022-06-02T00:00:00Z"]
    np.testing.assert_array_equal(frame[["B01", "B02"]], vector().values.reshape(6, 2))


def test_csv_without_bands_and_with_semicolons(tmp_path):
    path = save(vector(dates=None, bands=None), tmp_path, "CSV", separator=";")
    assert path.read_text() == "feature_index;field;value\n0;a;\n1;b;1.0\n2;c;2.0\n"


def test_csv_of_datasets(tmp_path):
    cube = vector().to_dataset("bands").reset_coords("field")
    frame = pd.read_csv(save(cube, tmp_path, "CSV"))
    assert frame.columns.tolist() == ["feature_index", "field", "date", "B01", "B02"]
    np.testing.assert_array_equal(frame["B02"], vector()[..., 1].values.ravel())


def test_csv_of_rasters_and_integers(tmp_path, monkeypatch):
    cube = raster("int16", shape=(4, 3))
    frame = pd.read_csv(save(cube, tmp_path, "CSV"))
    assert frame.columns.tolist() == ["date", "y", "x", "B01", "B02", "B03"]
    row = frame.iloc[7]
    at = cube.sel(t=row["date"].rstrip("Z"), y=row["y"], x=row["x"])
    assert row[["B01", "B02", "B03"]].tolist() == at.values.tolist()
    monkeypatch.setattr(vector_tables, "ROWS", 10)
    with pytest.raises(FormatUnsuitable, match="too many"):
        save(cube, tmp_path, "CSV")


def test_colliding_names_are_made_unique(tmp_path):
    cube = vector().assign_coords(bands=["date", "field"])
    frame = pd.read_csv(save(cube, tmp_path, "CSV"))
    assert frame.columns.tolist() == ["feature_index", "field_", "date", "date_", "field"]


def test_geojson_is_in_longitude_and_latitude(tmp_path):
    path = save(vector(crs=32631).chunk(), tmp_path, "GeoJSON")
    document = strict(path)
    assert len(document["features"]) == 6
    first = document["features"][0]["properties"]
    assert first == {
        "feature_index": 0,
        "field": "a",
        "date": "2022-06-01T00:00:00Z",
        "B01": None,
        "B02": 1.0,
    }
    frame = gpd.read_file(path)
    np.testing.assert_allclose(frame.total_bounds, [0, 50, 2.5, 52.5], atol=1e-6)
    with pytest.raises(FormatUnsuitable, match="no geometries"):
        save(raster(), tmp_path, "GeoJSON")


def test_geoparquet_keeps_crs_and_types(tmp_path):
    frame = gpd.read_parquet(save(vector(crs=32631), tmp_path, "parquet", compression="zstd"))
    assert frame.crs.to_epsg() == 32631
    assert frame["date"].dtype.kind == "M"
    np.testing.assert_array_equal(frame["B02"], vector()[..., 1].values.ravel())
    plain = pd.read_parquet(save(raster(shape=(2, 2)), tmp_path, "parquet"))
    assert len(plain) == 8
