"""Error codes and statuses are those of the official list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from odc_openeo import errors
from odc_openeo.errors import OpenEOError, ProcessError

OFFICIAL = Path(__file__).resolve().parents[2] / "shared" / "openeo" / "errors.json"
OURS = {
    *(
        "MethodNotAllowed",
        "RequestInvalid",
        "RequestTooLarge",
        "RangeNotSatisfiable",
        "ProcessParameterMissing",
        "TooManyRequests",
    ),
    *("UrlForbidden", "UrlUnreachable", "UrlTooLarge", "ProcessNamespaceInvalid"),
    "WorkerTooSmall",
    *("ServiceDisabled", "TileOutOfRange"),
    *("WorkspaceNotFound", "WorkspaceUnavailable"),
    *("FormInvalid", "SignInFailed"),
}

ALL = {
    name: class_
    for name, class_ in vars(errors).items()
    if isinstance(class_, type)
    and issubclass(class_, OpenEOError)
    and class_ not in (OpenEOError, ProcessError)
}


@pytest.mark.skipif(not OFFICIAL.is_file(), reason="the official error list is not beside the repository")
def test_codes_and_statuses_are_official() -> None:
    official = json.loads(OFFICIAL.read_text(encoding="utf-8"))
    for name, class_ in ALL.items():
        if not issubclass(class_, ProcessError) and name not in OURS:
            assert class_.status == official[name]["http"], name


def test_process_exceptions_are_client_errors() -> None:
    assert {class_.status for class_ in ALL.values() if issubclass(class_, ProcessError)} == {400}


def test_body_of_an_error() -> None:
    error = errors.CollectionNotFound(identifier="S2", node="load")
    error.id = "7"
    body = error.to_dict()
    assert body["id"] == "7"
    assert body["code"] == "CollectionNotFound"
    assert "S2" in body["message"]
    assert "load" in body["message"]
