"""What a user has in a running service, for requests that shall succeed: jobs, processes, files."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import requests
from requests.auth import HTTPBasicAuth
from schemathesis import Case, GenerationMode
from schemathesis.core.parameters import ParameterLocation

DEMO: Final = ("demo", "demo")
ADDITION: Final = {
    "process_graph": {"add": {"process_id": "add", "arguments": {"x": 1, "y": 1}, "result": True}}
}
SERVICE: Final = {"type": "XYZ", "process": ADDITION}
BODIES: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    ("POST", "/validation"): ADDITION,
    ("PUT", "/process_graphs/{process_graph_id}"): ADDITION,
    ("POST", "/result"): {"process": ADDITION},
    ("POST", "/jobs"): {"process": ADDITION},
    ("PATCH", "/jobs/{job_id}"): {"process": ADDITION},
    ("POST", "/services"): SERVICE,
    ("PATCH", "/services/{service_id}"): {"process": ADDITION},
}
"""Members of bodies that make a request succeed."""

ROOT_PATHS: Final = ("/.well-known/openeo",)
"""Paths that are below the root of the server, not of the API."""

KEPT: Final = 3
"""Things of each kind that are asked about again and again."""


@dataclass
class Owned:
    """A user who is signed in to the service at ``root``, and ids of theirs by the name of the parameter."""

    root: str
    api: str
    token: str
    session: requests.Session
    login: tuple[str, str] = DEMO
    ids: dict[str, list[str]] = field(default_factory=dict)

    def base(self, path: str) -> str:
        """The address that a path is appended to."""
        return self.root if path in ROOT_PATHS else self.api

    def headers(self, path: str) -> dict[str, str]:
        """How a request to a path is signed."""
        if path == "/credentials/basic":
            prepared = HTTPBasicAuth(*self.login)(requests.Request("GET", self.root).prepare())
            return {"Authorization": prepared.headers["Authorization"]}
        return {"Authorization": f"Bearer {self.token}"}

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        """A request of the user's that must succeed."""
        answer = self.session.request(
            method, f"{self.api}{path}", headers=self.headers(path), timeout=60, **more
        )
        answer.raise_for_status()
        return answer

    def offered(self) -> set[str]:
        """The operations that the service says it has, such as ``GET /jobs``."""
        listed = self.request("GET", "/").json()["endpoints"]
        result = {f"{method} {entry['path']}" for entry in listed for method in entry["methods"]}
        return {"GET /", "GET /.well-known/openeo", *result}

    def put_into(self, case: Case, generator: random.Random) -> None:
        """Let a request be about something that the user has, and mostly hold a process that runs."""
        for name in list(case.path_parameters or {}):
            if name in MAKERS and is_good(case, ParameterLocation.PATH):
                case.path_parameters[name] = self._id(name, case, generator)
        if is_good(case, ParameterLocation.QUERY) and "offset" in (case.query or {}):
            case.query["offset"] = str(generator.randrange(100))
        members = BODIES.get((case.method.upper(), case.path))
        if members and is_good(case, ParameterLocation.BODY) and isinstance(case.body, dict):
            case.body = {**case.body, **members}

    def _id(self, name: str, case: Case, generator: random.Random) -> str:
        if case.method.upper() == "DELETE" and case.path.endswith("}"):
            return MAKERS[name](self)
        ids = self.ids.setdefault(name, [])
        while len(ids) < KEPT:
            ids.append(KEEPERS.get(name, MAKERS[name])(self))
        return generator.choice(ids)


def is_good(case: Case, location: ParameterLocation) -> bool:
    """Whether a part of a request is as it should be, not one that is wrong on purpose."""
    part = case.meta.components.get(location) if case.meta else None
    return part is None or part.mode == GenerationMode.POSITIVE


def sign_in(url: str, login: tuple[str, str] = DEMO) -> Owned:
    """A user of a running service."""
    session = requests.Session()
    document = session.get(f"{url}/.well-known/openeo", timeout=60).json()["versions"]
    api = document[0]["url"].rstrip("/")
    token = session.get(f"{api}/credentials/basic", auth=login, timeout=60).json()["access_token"]
    return Owned(url, api, token, session, login)


def _collection(owned: Owned) -> str:
    document = [entry["id"] for entry in owned.request("GET", "/collections").json()["collections"]]
    return str(document[len(owned.ids["collection_id"]) % len(document)])


def _job(owned: Owned) -> str:
    return owned.request("POST", "/jobs", json={"process": ADDITION}).headers["OpenEO-Identifier"]


def _finished_job(owned: Owned) -> str:
    id_ = _job(owned)
    owned.request("POST", f"/jobs/{id_}/results")
    deadline = time.monotonic() + 300
    while owned.request("GET", f"/jobs/{id_}").json()["status"] != "finished":
        if time.monotonic() > deadline:
            raise TimeoutError("a job of one addition has not finished within five minutes")
        time.sleep(0.1)
    return id_


def _process(owned: Owned) -> str:
    id_ = f"sum_{uuid4().hex[:8]}"
    owned.request("PUT", f"/process_graphs/{id_}", json=ADDITION)
    return id_


def _file(owned: Owned) -> str:
    path = f"folder_{uuid4().hex[:8]}.txt"
    owned.request("PUT", f"/files/{path}", data=b"content")
    return path


def _service(owned: Owned) -> str:
    return owned.request("POST", "/services", json=SERVICE).headers["OpenEO-Identifier"]


MAKERS: Final[Mapping[str, Callable[[Owned], str]]] = {
    "collection_id": _collection,
    "job_id": _job,
    "process_graph_id": _process,
    "path": _file,
    "service_id": _service,
}
"""Make a new thing of a kind; its id."""

KEEPERS: Final[Mapping[str, Callable[[Owned], str]]] = {"job_id": _finished_job}
"""The same where more than a new one is wanted."""
