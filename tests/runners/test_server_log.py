"""The log of the service, which operators and programs read line by line."""

from __future__ import annotations

import logging

import pytest

from odc_openeo.config import Config
from odc_openeo.runners.server_log import make_stderr_handler


def write_record(capsys: pytest.CaptureFixture[str], message: str, **more: object) -> str:
    handler = make_stderr_handler(Config())
    record = logging.LogRecord("odc_openeo.run", logging.INFO, "x.py", 1, "%s", (message,), None)
    record.__dict__.update(more)
    handler.emit(record)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "character",
    ["\n", "\r", "\x1b", "\x9b", "\x08", "\x85", "\u2028", "\u2029", "\u202e", "\u2066"],
    ids=ascii,
)
def test_messages_stay_on_their_line(capsys: pytest.CaptureFixture[str], character: str) -> None:
    line = write_record(capsys, f"a{character}2026-01-01 ERROR odc_openeo: forged")
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert character not in line.removesuffix("\n")
    assert "odc_openeo.run: a\\" in line


def test_other_characters_stay(capsys: pytest.CaptureFixture[str]) -> None:
    assert write_record(capsys, "Größe\t5 m² 東京").endswith(": Größe\t5 m² 東京\n")


def test_tracebacks_have_lines(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        int("x")
    except ValueError as error:
        lines = write_record(capsys, "failed", exc_info=(type(error), error, error.__traceback__))
    assert len(lines.splitlines()) > 3
