"""Job options: sizes as people write them, and the options of other back-ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odc_openeo.errors import RequestInvalid
from odc_openeo.jobs.options import MEMORY, SLOTS, parse_resources, parse_size, parse_soft_errors


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4g", 4 * 2**30),
        ("512m", 512 * 2**20),
        ("2048M", 2 * 2**30),
        ("1.5GB", 1.5e9),
        ("2GiB", 2 * 2**30),
        (" 3 KB ", 3000),
        ("100", 100),
        ("7b", 7),
        ("1t", 2**40),
    ],
)
def test_sizes(text: str, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0g", "-1g", "4 giga", "1e3", "nan", "inf", "4ib", "g", "9" * 40, 5, None]
)
def test_what_is_not_a_size(text: Any) -> None:
    assert parse_size(text) is None


def parse(options: Any) -> Any:
    return parse_resources({"job_options": options})


def test_the_largest_memory_of_other_back_ends_counts() -> None:
    resources = parse(
        {
            "executor-memory": "2g",
            "executor-memoryOverhead": "3000m",
            "driver-memory": "1G",
            "python-memory": 100,
        }
    )
    assert resources.amounts == {MEMORY: 3000 * 2**20}
    assert resources.is_adapted
    named = [warning.split("'")[1] for warning in resources.warnings]
    assert named == ["executor-memoryOverhead", "executor-memory", "driver-memory", "python-memory"]


def test_memory_goes_before_that_of_other_back_ends() -> None:
    resources = parse({"memory": "1GiB", "executor-memory": "8g", "threads": 2})
    assert resources.amounts[MEMORY] == 2**30
    assert 0 < resources.amounts[SLOTS] <= 0.5
    assert not resources.is_adapted
    (warning,) = resources.warnings
    assert "'executor-memory'" in warning


def test_values_that_mean_nothing_do_not_refuse_a_job() -> None:
    resources = parse({"executor-memory": "lots", "python-memory": "disable", "max-executors": 20})
    assert resources.amounts == {}
    assert len(resources.warnings) == 3


@pytest.mark.parametrize("options", [None, {}, {"memory": None, "executor-memory": None}])
def test_nothing_to_say(options: Any) -> None:
    resources = parse(options)
    assert (resources.amounts, resources.warnings) == ({}, ())


@pytest.mark.parametrize("options", [3, "4g", [], {"memory": 4}, {"memory": "4 x"}, {"threads": True}])
def test_wrong_options_are_refused(options: Any) -> None:
    with pytest.raises(RequestInvalid):
        parse(options)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
)


USED_OPTIONS = ("memory", "threads", "soft-errors", "udf-dependency-archives")


@settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(st.text() | st.sampled_from(["executor-memory", "python-memory", "driver-cores"]), JSON)
)
def test_every_option_is_used_or_named(options: dict[str, Any]) -> None:
    options = {name: value for name, value in options.items() if name not in USED_OPTIONS}
    set_options = [name for name, value in options.items() if value is not None]
    warnings = parse(options).warnings
    assert len(warnings) >= min(len(set_options), 20)


@pytest.mark.parametrize(("value", "share"), [(None, 0), (False, 0), (True, 1), (0.25, 0.25), (1, 1)])
def test_soft_errors_are_a_share_of_the_parts(value: Any, share: float) -> None:
    extras = {"job_options": {"soft-errors": value}}
    assert parse_soft_errors(extras) == share
    assert parse_resources(extras).warnings == ()


@pytest.mark.parametrize("value", ["yes", -0.1, 1.5, [], {}, float("nan")])
def test_other_soft_errors_are_refused(value: Any) -> None:
    with pytest.raises(RequestInvalid, match="soft-errors"):
        parse_soft_errors({"job_options": {"soft-errors": value}})
