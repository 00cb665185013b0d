"""What the official conformance suite expects of every back-end in general, asked of the running stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.conformance.owned import ADDITION, KEEPERS, Owned, sign_in

DESCRIPTION = Path(__file__).resolve().parents[3] / "shared" / "openeo" / "openapi-1.3.0.yaml"
NOT_HERE = {"/credentials/oidc"}
"""Paths of the API that are there only with providers, which the stack of the tests has not."""


@pytest.fixture(scope="module")
def owned(stack: str) -> Owned:
    return sign_in(stack)


@pytest.fixture
def job(owned: Owned) -> Iterator[str]:
    id_ = owned.request("POST", "/jobs", json={"process": ADDITION}).headers["OpenEO-Identifier"]
    yield id_
    owned.request("DELETE", f"/jobs/{id_}")


def ask(owned: Owned, method: str, path: str, **more: Any) -> requests.Response:
    """A request of the user's, however it is answered."""
    url = f"{owned.base(path)}{path}"
    return requests.request(method, url, headers=owned.headers(path), timeout=60, **more)


def operations() -> list[tuple[str, str]]:
    """Methods and paths of the official description."""
    if not DESCRIPTION.is_file():
        return []
    paths = yaml.load(DESCRIPTION.read_text(encoding="utf-8"), yaml.CSafeLoader)["paths"]
    methods = {"get", "post", "put", "patch", "delete"}
    return [(m.upper(), p) for p, item in paths.items() for m in item if m in methods and p not in NOT_HERE]


needs_description = pytest.mark.skipif(not DESCRIPTION.is_file(), reason=f"{DESCRIPTION} is not there")


@needs_description
def test_every_endpoint_is_there(owned: Owned) -> None:
    offered = owned.offered()
    # Where no sandbox can be closed there are no runtimes of user-defined functions.
    absent = [f"{m} {p}" for m, p in operations() if f"{m} {p}" not in offered]
    assert set(absent) <= {"GET /udf_runtimes"}


@needs_description
def test_nothing_is_answered_as_not_implemented(owned: Owned) -> None:
    """Ids that nobody has are not found by name of what they are: not for want of the address."""
    for method, path in operations():
        answer = ask(owned, method, path.replace("{", "no_").replace("}", ""))
        assert answer.status_code != 501, (method, path)
        if answer.status_code == 404:
            assert answer.json()["code"] != "NotFound", (method, path)


@needs_description
def test_writing_without_a_body_is_refused(owned: Owned, job: str) -> None:
    ids = {"job_id": job, "process_graph_id": "none", "service_id": "none", "path": "empty.txt"}
    for method, path in operations():
        if method not in ("POST", "PUT", "PATCH") or path in ("/jobs/{job_id}/results", "/files/{path}"):
            continue
        answer = ask(owned, method, path.format(**ids))
        assert 400 <= answer.status_code < 500, (method, path)
        assert {"code", "message"} <= answer.json().keys()


def test_an_empty_change_is_accepted(owned: Owned, job: str) -> None:
    assert ask(owned, "PATCH", f"/jobs/{job}", json={}).status_code == 204


def test_validation_of_nothing_finds_a_fault(owned: Owned) -> None:
    answer = ask(owned, "POST", "/validation", json={})
    assert answer.status_code == 200
    assert [fault["code"] for fault in answer.json()["errors"]] == ["ProcessGraphMissing"]


def test_a_process_that_lacks_an_argument_can_be_stored(owned: Owned) -> None:
    graph = {"divide": {"process_id": "divide", "arguments": {"x": 1}, "result": True}}
    assert ask(owned, "PUT", "/process_graphs/lacking", json={"process_graph": graph}).status_code == 200
    assert ask(owned, "GET", "/process_graphs/lacking").json()["process_graph"] == graph
    assert ask(owned, "DELETE", "/process_graphs/lacking").status_code == 204


def nulls(value: Any, path: str = "") -> Iterator[str]:
    """Where a document has null as a member of an object."""
    if isinstance(value, dict):
        for name, item in value.items():
            if item is None and name != "default":
                yield f"{path}/{name}"
            yield from nulls(item, f"{path}/{name}")


def test_unknown_members_are_left_out(owned: Owned, job: str) -> None:
    for path in (
        "/",
        "/jobs",
        f"/jobs/{job}",
        "/file_formats",
        "/service_types",
        "/process_graphs",
        "/files",
    ):
        assert list(nulls(owned.request("GET", path).json())) == [], path
    # The API wants null here: there is no limit.
    assert set(nulls(owned.request("GET", "/me").json())) <= {"/budget", "/storage"}


def test_costs_are_declared(owned: Owned) -> None:
    answer = owned.request("GET", f"/jobs/{KEEPERS['job_id'](owned)}/results")
    assert float(answer.headers["OpenEO-Costs"]) == 0


def test_runtimes_and_parameters(owned: Owned) -> None:
    runtimes = owned.request("GET", "/udf_runtimes").json()
    assert bool(runtimes) == ("GET /udf_runtimes" in owned.offered())
    document = owned.request("GET", "/processing_parameters").json()
    kinds = ("create_job_parameters", "create_service_parameters", "create_synchronous_parameters")
    assert set(document) == set(kinds)
    for parameter in (entry for kind in kinds for entry in document[kind]):
        assert {"name", "description", "schema"} <= parameter.keys()


def test_declared_extensions_are_there_and_no_others(owned: Owned) -> None:
    extensions = {
        "processing-parameters": "GET /processing_parameters",
        "workspaces": "GET /workspaces",
        "remote-process-definition": "PUT /process_graphs/{process_graph_id}",
    }
    prefix = "https://api.openeo.org/extensions/"
    declared = {
        uri.removeprefix(prefix).partition("/")[0]
        for uri in owned.request("GET", "/conformance").json()["conformsTo"]
        if uri.startswith(prefix)
    }
    offered = owned.offered()
    assert declared == {name for name, needed in extensions.items() if needed in offered}


def test_a_single_back_end_is_no_federation(owned: Owned) -> None:
    """The extension asks for two back-ends at least; ``federation:missing`` may be left out by one."""
    assert "federation" not in owned.request("GET", "/").json()
    listing = owned.request("GET", "/collections").json()
    assert "federation:missing" not in listing
    assert "billing" not in owned.request("GET", "/").json(), "nothing is sold here"
