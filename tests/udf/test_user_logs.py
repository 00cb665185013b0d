"""Entries of user code in the log of a run, as many as a database can bear."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from odc_openeo.errors import UdfResultInvalid
from odc_openeo.jobs.records import make_entry
from odc_openeo.udf.user_logs import LogTarget
from tests.udf.conftest import Run, udf_arguments

NOISY = """
import logging
import warnings
from openeo.udf import StructuredData, UdfData, inspect

def apply_udf_data(data: UdfData):
    print("printed")
    logging.getLogger("mine").warning("logged %d", 7)
    warnings.warn("warned")
    inspect(data={"list": [1, 2.5, None], "nan": float("nan")}, message="inspected", code="C", level="debug")
    data.set_structured_data_list([StructuredData(1)])
"""


def test_everything_that_is_said_is_logged(run: Run, records: list[logging.LogRecord]) -> None:
    assert run(None, "run_udf", **udf_arguments(NOISY, 0)) == 1
    entries = {record.getMessage(): record for record in records}
    assert entries["printed"].levelname == "INFO"
    assert entries["logged 7"].levelname == "WARNING"
    assert entries["UserWarning: warned"].levelname == "WARNING"
    assert entries["printed"].code == "UDF"
    assert {record.path for record in records} == {(("it", "run_udf"),)}


def test_too_many_entries_are_left_out(
    records: list[logging.LogRecord], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("odc_openeo.udf.user_logs.MOST_ENTRIES", 5)
    target = LogTarget.open(logging.getLogger(f"odc_openeo.run.{request.node.name}"), (("u", "run_udf"),))
    target.deliver({"level": "info", "message": str(i)} for i in range(4))
    target.deliver([{"level": "info", "message": "a"}, {"level": "info", "message": "b"}])
    target.deliver([{"level": "info", "message": "c"}, {"level": "error", "message": "d"}])
    texts = [record.getMessage() for record in records]
    assert texts[:5] == ["0", "1", "2", "3", "a"]
    assert "more is left out" in texts[5]
    assert texts[6:] == ["d"]


def test_long_entries_are_left_out(
    records: list[logging.LogRecord], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("odc_openeo.udf.user_logs.MOST_ERRORS", 2)
    target = LogTarget.open(logging.getLogger(f"odc_openeo.run.{request.node.name}"), (("u", "run_udf"),))
    # As user code may send them, past the limits of what collects its logs.
    long = {"level": "error", "message": "m" * 10**6, "code": "c" * 10**6, "data": ["d" * 10**6]}
    for _ in range(30):
        target.deliver([long])
    assert {(len(record.getMessage()), len(record.code)) for record in records} >= {(20_000, 100)}
    size = sum(len(record.getMessage()) + len(str(getattr(record, "data", ""))) for record in records)
    assert size < 25_000_000
    assert sum("more is left out" in record.getMessage() for record in records) == 1


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"message": None, "level": None, "code": None},
        {"message": {"a": [1]}, "level": ["error"], "code": {"x": 1}, "data": {"y": [None]}},
        {"message": "%s %d {0}", "level": "no such level", "path": 5, "time": "x"},
    ],
    ids=["empty", "nothing", "objects", "formats"],
)
def test_entries_may_have_anything_in_them(
    records: list[logging.LogRecord], request: pytest.FixtureRequest, entry: dict[str, Any]
) -> None:
    logger = logging.getLogger(f"odc_openeo.run.{request.node.name}")
    LogTarget.open(logger, (("u", "run_udf"),)).deliver([entry])
    (record,) = records
    written = make_entry(record)
    assert written.message == str(entry.get("message", ""))
    assert written.level == "info"
    assert written.more["path"] == [{"node_id": "u", "process_id": "run_udf"}]
    json.dumps(written.more)


DEEP = """
from openeo.udf import StructuredData, UdfData, inspect

def apply_udf_data(data: UdfData):
    value = 1
    for _ in range(800):
        value = [value]
    inspect(data=value, message="deep")
    data.set_structured_data_list([StructuredData(value if data.user_context["returns"] else 1)])
"""


def test_deep_values_in_logs(run: Run, records: list[logging.LogRecord]) -> None:
    arguments = udf_arguments(DEEP, 0, context={"returns": False})
    assert run(None, "run_udf", **arguments) == 1
    assert [record.getMessage() for record in records] == ["deep"]
    assert len(str(records[0].data)) < 100_000


def test_deep_results_are_refused(run: Run) -> None:
    with pytest.raises(UdfResultInvalid, match="more than 100 lists or objects in each other"):
        run(None, "run_udf", **udf_arguments(DEEP, 0, context={"returns": True}))
