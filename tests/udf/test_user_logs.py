"""Entries of user code in the log of a run, as many as a database can bear."""

from __future__ import annotations

import logging

import pytest

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
    assert "more are left out" in texts[5]
    assert texts[6:] == ["d"]
