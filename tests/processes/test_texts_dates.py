"""Texts, dates, and the log."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from odc_openeo.errors import ProcessParameterInvalid
from odc_openeo.processes import dates
from tests.processes.pixels import floats, run


def test_positions_count_characters_of_the_text_itself() -> None:
    assert run("text_find", data="Straße Nord", pattern="NORD", case_sensitive=False) == 7
    assert run("text_find", data="abc", pattern="") == 0
    assert run("text_find", data="STRASSE", pattern="ß", case_sensitive=False) == 4


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1, "1"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (True, "true"),
        (None, "null"),
        (float("nan"), "nan"),
        (1e300, "1e+300"),
    ],
)
def test_values_are_written_as_in_json(value: Any, written: str) -> None:
    assert run("text_concat", data=[value, "x"], separator=value) == f"{written}{written}x"


def test_joining_arrays_is_refused() -> None:
    for wrong in ([[1]], floats()):
        with pytest.raises(ProcessParameterInvalid):
            run("text_concat", data=wrong)


def test_labels_of_a_cube_are_searched_one_by_one() -> None:
    names = xr.DataArray(np.array(["B04", "B08", "SCL"]), dims="bands")
    assert run("text_begins", data=names, pattern="B").values.tolist() == [True, True, False]
    assert run("text_find", data=names, pattern="0").values.tolist() == [1, 1, None]


@pytest.mark.parametrize(
    ("date", "value", "unit", "shifted"),
    [
        ("2020-01-31", 13, "month", "2021-02-28"),
        ("2020-02-29", -4, "year", "2016-02-29"),
        ("2020-01-01T00:00:00+05:30", 1, "week", "2020-01-08T00:00:00+05:30"),
        ("2016-12-31T23:59:60Z", 1, "day", "2017-01-01T23:59:59Z"),
        ("2020-01-01T00:00:00.500Z", 500, "millisecond", "2020-01-01T00:00:01Z"),
        ("2020-01-01T12:00:00", 1, "hour", "2020-01-01T13:00:00"),
        ("2020-01-01T12:00:00Z", 0, "year", "2020-01-01T12:00:00Z"),
    ],
)
def test_shifting_keeps_form_and_zone(date: str, value: int, unit: str, shifted: str) -> None:
    assert run("date_shift", date=date, value=value, unit=unit) == shifted


@pytest.mark.parametrize("value", [10**4, -(10**4), 10**40])
@pytest.mark.parametrize("unit", ["year", "millisecond"])
def test_shifting_out_of_the_calendar_is_refused(value: int, unit: str) -> None:
    if unit == "millisecond" and abs(value) < 10**5:
        return
    with pytest.raises(ProcessParameterInvalid):
        run("date_shift", date="2020-01-01", value=value, unit=unit)


@pytest.mark.parametrize(
    ("date", "replaced", "component", "result"),
    [
        ("2020-02-01T17:22:45Z", 15, "day", "2020-02-15T17:22:45Z"),
        ("2020-01-31", 2, "month", "2020-02-29"),
        ("2020-02-29", 2021, "year", "2021-02-28"),
        ("2020-02-10", 31, "day", "2020-02-29"),
        ("2020-02-01T17:22:45.123+01:00", 0, "hour", "2020-02-01T00:22:45.123+01:00"),
        ("2020-02-01T17:22:45.123Z", 5, "minute", "2020-02-01T17:05:45.123Z"),
        ("2020-02-01T17:22:45.5Z", 59, "second", "2020-02-01T17:22:59.500Z"),
        ("2020-02-01T17:22:45.5Z", 7, "millisecond", "2020-02-01T17:22:45.007Z"),
    ],
)
def test_components_of_dates_are_replaced(date: str, replaced: int, component: str, result: str) -> None:
    assert dates.date_replace_component(date, replaced, component) == result


def test_components_of_labels_of_a_cube_are_replaced() -> None:
    labels = xr.DataArray(["2020-01-31T10:00:00Z", "2020-02-03T10:00:00Z"], dims="t")
    result = dates.date_replace_component(labels, 15, "day")
    assert result.values.tolist() == ["2020-01-15T10:00:00Z", "2020-02-15T10:00:00Z"]


@pytest.mark.parametrize(
    ("date", "replaced", "component", "reason"),
    [
        ("2020-01-31", 3, "hour", "no time of day"),
        ("2020-01-31", 13, "month", "from 1 to 12"),
        ("2020-01-31", 0, "day", "from 1 to 31"),
        ("2020-01-31", 10_000, "year", "from 1 to 9999"),
        ("2020-01-31T00:00:00Z", -1, "second", "from 0 to 59"),
        ("yesterday", 1, "day", "not a date"),
    ],
)
def test_components_that_no_date_has(date: str, replaced: int, component: str, reason: str) -> None:
    with pytest.raises(ProcessParameterInvalid, match=reason):
        dates.date_replace_component(date, replaced, component)


@settings(max_examples=30, deadline=None)
@given(st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)), st.integers(-(10**6), 10**6))
def test_differences_undo_shifts(start: datetime, hours: int) -> None:
    text = start.replace(microsecond=0).isoformat() + "Z"
    later = run("date_shift", date=text, value=hours, unit="hour")
    assert run("date_difference", date1=text, date2=later, unit="hour") == hours
    assert datetime.fromisoformat(later[:-1]) - start.replace(microsecond=0) == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("first", "second", "unit", "difference"),
    [
        ("2020-01-15", "2020-03-15", "month", 2),
        ("2020-01-31", "2020-02-29", "month", 1),
        ("2020-01-01", "2020-01-16T12:00:00Z", "month", 0.5),
        ("2020-03-15", "2020-01-15", "month", -2),
        ("2000-01-01", "2020-01-01", "year", 20),
        ("2020-01-01", "2020-01-08", "week", 1),
        ("2016-12-31T23:59:60Z", "2017-01-01", "second", 0),
    ],
)
def test_differences_in_calendar_units(first: str, second: str, unit: str, difference: float) -> None:
    assert run("date_difference", date1=first, date2=second, unit=unit) == difference


def test_times_of_the_day() -> None:
    within = {"min": "10:00:00", "max": "12:00:00"}
    assert run("date_between", x="11:00:00", **within) is True
    assert run("date_between", x="2020-01-01T13:00:00+02:00", **within) is True
    assert run("date_between", x="12:00:00", **within, exclude_max=True) is False
    with pytest.raises(ProcessParameterInvalid):
        run("date_between", x="11:00:00", min="2020-01-01", max="2020-01-02")


@pytest.mark.parametrize(
    "wrong", ["2020-02-30", "2020", "yesterday", "2020-01-01T25:00:00Z", "0001-01-01T00:00:00+01:00"]
)
def test_invalid_dates_are_refused(wrong: str) -> None:
    with pytest.raises(ProcessParameterInvalid):
        run("date_shift", date=wrong, value=1, unit="day")


def test_inspect_logs_and_computes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    data = floats().chunk({"y": 1})
    with caplog.at_level(logging.DEBUG, logger="odc_openeo.run"):
        assert run("inspect", data=data, message="here", code="mine", level="warning") is data
    (record,) = caplog.records
    assert (record.levelname, record.getMessage(), record.code) == ("WARNING", "here", "mine")
    assert record.data["data type"] == "float32"
    assert [d["size"] for d in record.data["dimensions"]] == [7, 4, 5]
