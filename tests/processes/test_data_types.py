"""Conversion of data types, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.processes.data_types import convert_data_type
from tests.processes.rasters import grid, nothing_computes, raster

VALUES = np.array([[1.75, -3.2, 300.0, np.nan, 1e19, -1e19, np.inf, 127.0, 255.0, 0.0]])


@pytest.mark.parametrize(
    ("data_type", "expected", "nodata"),
    [
        ("uint8", [1, 255, 255, 255, 255, 255, 255, 127, 255, 0], 255),
        ("uint8ud0", [1, 0, 0, 0, 0, 0, 0, 127, 255, 0], 0),
        ("int8", [1, -3, -128, -128, -128, -128, -128, 127, -128, 0], -128),
        ("int16ud32767", [1, -3, 300, *[32767] * 4, 127, 255, 0], 32767),
        ("int16ud-1", [1, -3, 300, *[-1] * 4, 127, 255, 0], -1),
        ("int64", [1, -3, 300, *[-(2**63)] * 4, 127, 255, 0], -(2**63)),
        ("uint64", [1, 2**64 - 1, 300, 2**64 - 1, 10**19, *[2**64 - 1] * 2, 127, 255, 0], 2**64 - 1),
    ],
)
@pytest.mark.parametrize("chunks", [None, {"x": 3}])
def test_floats_become_integers(data_type: str, expected: list[int], nodata: int, chunks: Any) -> None:
    data = raster(VALUES, grid(1, 10), chunks)
    with nothing_computes():
        result = convert_data_type(data, data_type)
    assert str(result.dtype) == data_type.partition("ud")[0]
    assert result.values.tolist() == [expected]
    assert result.attrs["nodata"] == nodata
    assert result.odc.geobox == data.odc.geobox


def test_integers_keep_their_no_data_value_where_it_fits() -> None:
    data = raster(np.array([[1, 7, 300, -9999]], "int32"), grid(1, 4), nodata=7)
    result = convert_data_type(data, "uint8")
    assert (result.values.tolist(), result.attrs["nodata"]) == ([[1, 7, 7, 7]], 7)
    other = convert_data_type(data.assign_attrs(nodata=-9999), "uint8")
    assert (other.values.tolist(), other.attrs["nodata"]) == ([[1, 7, 255, 255]], 255)
    floats = convert_data_type(data, "float32")
    np.testing.assert_array_equal(floats.values, np.array([[1, np.nan, 300, -9999]], "float32"))
    assert "nodata" not in floats.attrs


def test_no_data_of_bands() -> None:
    data = raster(np.array([[[[1, 0]], [[2, 9]]]], "uint16"), grid(1, 2)).assign_coords(
        nodata=("bands", np.array([0, 9], "uint16"))
    )
    result = convert_data_type(data, "int16")
    assert result.values.tolist() == [[[[1, -32768]], [[2, -32768]]]]
    assert "nodata" not in result.coords


@pytest.mark.parametrize("data_type", ["complex64", "uint8ud300", "int128", "int16raw", ""])
def test_types_that_do_not_exist(data_type: str) -> None:
    with pytest.raises(ProcessParameterInvalid, match="data_type"):
        convert_data_type(raster(VALUES, grid(1, 10)), data_type)
