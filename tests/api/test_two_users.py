"""Two users and every address of the service: what one has, the other can neither see, change nor delete.

`TABLE` has a row for each address. A new address without a row fails the first test.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from joserfc import jws, jwt
from joserfc.jwk import OctKey
from pydantic import SecretStr
from werkzeug.test import TestResponse

from odc_openeo import db
from odc_openeo.api.pages.forms import make_csrf_token
from odc_openeo.app import create_app
from odc_openeo.config import Config, child_environment
from odc_openeo.users import accounts, browser_sessions
from tests.api.conftest import API, PASSWORD, addition, code
from tests.conftest import COMMAND, CopyDatabase
from tests.identity_provider import DEFAULT_CLIENT
from tests.support.index_drivers import index_environment

WORD: Final = "confidential"
"""Is in all that the first user has, and must not be in any answer to somebody else."""

PUBLIC: Final = "the same for everybody, with any token and without"
LOGIN: Final = "wants name and password"
OWN: Final = "of the user who asks: needs a good token, tells nothing of others"
BY_ID: Final = "the same, with an id: that of somebody else is answered as one that does not exist"
OWN_NAME: Final = "the same, with a name of the user's own choice: that of somebody else is another thing"
SIGNED: Final = "opens with the signature in the address, of just this address, until it expires"
SHARED: Final = "opens with an id that nobody can guess, if the owner wants so"
PAGE: Final = "of the user whose session the browser has: others are led to where they sign in"
PAGE_BY_ID: Final = "such a page with an id: that of somebody else is answered as one that does not exist"

TILES: Final = (
    *("", "/<int:z>/<int:x>/<y>", "/legend.json", "/legend.png", "/WMTSCapabilities.xml"),
    "/wmts/<matrix_set>/<level>/<int:column>/<row>",
    "/wmts/<time>/<matrix_set>/<level>/<int:column>/<row>",
)
"""What map clients ask of a service."""

TABLE: Final[dict[str, str]] = {
    "/": PUBLIC,
    "/health": PUBLIC,
    "/health/live": PUBLIC,
    "/health/ready": PUBLIC,
    "/static/<path:filename>": PUBLIC,
    "/.well-known/openeo": PUBLIC,
    f"{API}/": PUBLIC,
    f"{API}/conformance": PUBLIC,
    f"{API}/file_formats": PUBLIC,
    f"{API}/udf_runtimes": PUBLIC,
    f"{API}/service_types": PUBLIC,
    f"{API}/processing_parameters": PUBLIC,
    f"{API}/collections": PUBLIC,
    f"{API}/collections/<collection_id>": OWN_NAME,
    f"{API}/collections/<collection_id>/queryables": PUBLIC,
    f"{API}/collections/<collection_id>/items": PUBLIC,
    f"{API}/collections/<collection_id>/items.parquet": PUBLIC,
    f"{API}/collections/<collection_id>/items/<item_id>": PUBLIC,
    f"{API}/queryables": PUBLIC,
    f"{API}/search": PUBLIC,
    "/assets/<collection_id>/<uuid:item_id>/<key>/<name>": PUBLIC,
    "/api": PUBLIC,
    "/api.html": PUBLIC,
    f"{API}/processes": PUBLIC,
    f"{API}/validation": OWN_NAME,
    f"{API}/credentials/oidc": PUBLIC,
    f"{API}/credentials/basic": LOGIN,
    f"{API}/me": OWN,
    f"{API}/result": OWN,
    f"{API}/explain": OWN,
    f"{API}/jobs": OWN,
    f"{API}/jobs/<job_id>": BY_ID,
    f"{API}/jobs/<job_id>/estimate": BY_ID,
    f"{API}/jobs/<job_id>/logs": BY_ID,
    f"{API}/jobs/<job_id>/results": BY_ID,
    f"{API}/process_graphs": OWN,
    f"{API}/process_graphs/<process_graph_id>": OWN_NAME,
    f"{API}/workspace_providers": PUBLIC,
    f"{API}/workspaces": OWN,
    f"{API}/workspaces/<workspace_id>": BY_ID,
    f"{API}/workspaces/<workspace_id>/files": BY_ID,
    f"{API}/workspaces/<workspace_id>/files/<path:path>": BY_ID,
    f"{API}/files": OWN,
    f"{API}/files/<path:path>": OWN_NAME,
    "/results/<uuid:job>/<int:expires>/<signature>/<path:name>": SIGNED,
    "/shared/processes/<uuid:share>": SHARED,
    f"{API}/services": OWN,
    f"{API}/services/<service_id>": BY_ID,
    f"{API}/services/<service_id>/logs": BY_ID,
    # How these open is tested in tests/services/test_access.py.
    **{f"/services/<uuid:service_id>{place}": SHARED for place in TILES},
    **{f"/services/<uuid:service_id>/signed/<key>{place}": SIGNED for place in TILES},
    "/collections": PUBLIC,
    "/collections/<path:collection_id>": PUBLIC,
    "/previews/<path:collection_id>": PUBLIC,
    "/processes": PUBLIC,
    "/processes/<process_id>": PUBLIC,
    "/sign-in": LOGIN,
    "/first-account": LOGIN,
    "/sign-in/callback": LOGIN,
    "/sign-in/with/<provider>": LOGIN,
    "/sign-out": PAGE,
    "/my/jobs": PAGE,
    "/my/jobs/<job_id>": PAGE_BY_ID,
    "/my/jobs/<job_id>/<action>": PAGE_BY_ID,
    "/my/jobs/<job_id>/explanation": PAGE_BY_ID,
    "/my/jobs/<job_id>/program.py": PAGE_BY_ID,
    "/my/services": PAGE,
    "/my/services/<service_id>": PAGE_BY_ID,
    "/my/services/<service_id>/<action>": PAGE_BY_ID,
    "/my/processes": PAGE,
    "/my/processes/<process_graph_id>": PAGE_BY_ID,
    "/my/processes/<process_graph_id>/delete": PAGE_BY_ID,
    "/my/workspaces": PAGE,
    "/my/workspaces/<workspace_id>": PAGE_BY_ID,
    "/my/workspaces/<workspace_id>/files/<path:path>": PAGE_BY_ID,
    "/my/workspaces/<workspace_id>/delete": PAGE_BY_ID,
    "/my/services/<service_id>/explanation": PAGE_BY_ID,
    "/my/services/<service_id>/program.py": PAGE_BY_ID,
    "/my/files": PAGE,
    "/my/files/<path:path>": PAGE_BY_ID,
}

OPEN: Final = {f"{API}/validation", f"{API}/collections/<collection_id>"}
"""Addresses that work without a token too, then without anybody's things."""

UNKNOWN: Final = {
    "job_id": str(uuid4()),
    "process_graph_id": "nothing",
    "path": "nothing.txt",
    "collection_id": "absent",
    "workspace_id": str(uuid4()),
    "service_id": str(uuid4()),
}
"""Ids that nobody has."""

BODIES: Final[dict[str, Any]] = {
    f"{API}/search": {"limit": 1},
    f"{API}/jobs": {"process": addition(), "title": "of bob"},
    f"{API}/result": {"process": addition()},
    f"{API}/explain": {"process": addition()},
    f"{API}/jobs/<job_id>": {"title": "changed by bob"},
    f"{API}/process_graphs/<process_graph_id>": {**addition(), "summary": "of bob"},
    f"{API}/files/<path:path>": {"of": "bob"},
    f"{API}/validation": addition(),
    f"{API}/workspaces": {"intent": "create", "title": "of bob"},
    f"{API}/workspaces/<workspace_id>": {"title": "changed by bob"},
    f"{API}/services": {"type": "XYZ", "process": addition(), "title": "of bob"},
    f"{API}/services/<service_id>": {"title": "changed by bob"},
}


@dataclass
class Ada:
    """What the first user has, by the names of the parameters of addresses."""

    client: FlaskClient
    token: str
    ids: dict[str, str] = field(default_factory=dict)
    link: str = ""

    def ask(self, method: str, path: str, **more: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.client.open(f"{API}{path}", method=method, headers=headers, **more)

    def state(self) -> list[Any]:
        """All that she has, as she sees it."""
        paths = [
            "/jobs",
            f"/jobs/{self.ids['job_id']}",
            f"/jobs/{self.ids['job_id']}/logs",
            "/process_graphs",
            f"/services/{self.ids['service_id']}",
        ]
        paths += [f"/process_graphs/{self.ids['process_graph_id']}", "/files"]
        documents = [self.ask("GET", path.format(**self.ids)).get_json() for path in paths]
        return [
            *documents,
            self.ask("GET", f"/files/{self.ids['path']}").data,
            self.client.get(self.link).data,
        ]


@pytest.fixture(scope="module")
def service_config(
    copy_database: CopyDatabase, _templates: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Config]:
    """One database for all tests here: each leaves the first user as she was."""
    with copy_database(_templates["odc"]) as url:
        config = Config(database_url=url, data_dir=tmp_path_factory.mktemp("two-users") / "data")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in index_environment(url).items():
                patch.setenv(name, value)
            yield config
        db.dispose_engine(config)


@pytest.fixture(scope="module")
def guarded(service_config: Config) -> Flask:
    """The application with both ways of signing in, so that all addresses are there."""
    provider = {"id": "local", "issuer": "http://127.0.0.1:9", "title": "Local", "audiences": ["a"]}
    path = service_config.data_dir.parent / "providers.yaml"
    path.write_text(yaml.safe_dump({"providers": [{**provider, "default_clients": [DEFAULT_CLIENT]}]}))
    return create_app(service_config.model_copy(update={"oidc_providers": path}))


def rules(app: Flask) -> dict[str, list[str]]:
    """The methods of each address."""
    methods_by_rule: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        methods_by_rule.setdefault(rule.rule, set()).update((rule.methods or set()) - {"OPTIONS", "HEAD"})
    return {rule: sorted(methods) for rule, methods in methods_by_rule.items()}


def test_every_address_has_a_row(guarded: Flask) -> None:
    missing = sorted(rules(guarded).keys() - TABLE.keys())
    assert missing == [], (
        f"say in TABLE of {__file__} how these addresses keep users apart (PUBLIC, OWN, BY_ID, …); "
        f"ids in them need one in UNKNOWN and in the fixture ada: {missing}"
    )


@pytest.fixture(scope="module")
def ada(guarded: Flask, service_config: Config) -> Ada:
    """The first user, with a job that has run, a stored process and a file."""
    user = accounts.create_user(service_config, "ada", PASSWORD)
    ada = Ada(guarded.test_client(), accounts.issue_token(service_config, user))
    job = {"process": addition(), "title": WORD}
    ada.ids["job_id"] = ada.ask("POST", "/jobs", json=job).headers["OpenEO-Identifier"]
    ada.ids |= {"process_graph_id": "hers", "path": "hers.txt", "collection_id": "export"}
    workspace = ada.ask(
        "POST", "/workspaces", json={"intent": "create", "title": "shelf", "description": WORD}
    )
    ada.ids["workspace_id"] = workspace.headers["OpenEO-Identifier"]
    service = ada.ask("POST", "/services", json={"type": "XYZ", "process": addition(), "title": WORD})
    ada.ids["service_id"] = service.headers["OpenEO-Identifier"]
    assert ada.ask("PUT", "/process_graphs/hers", json={**addition(), "summary": WORD}).status_code == 200
    assert ada.ask("PUT", "/files/hers.txt", data=WORD).status_code == 200
    ada.ask("POST", f"/jobs/{ada.ids['job_id']}/results")
    worker = subprocess.Popen([*COMMAND, "worker"], env=child_environment(service_config))
    try:
        deadline = time.monotonic() + 200
        while (state := ada.ask("GET", f"/jobs/{ada.ids['job_id']}").get_json())["status"] != "finished":
            assert time.monotonic() < deadline, state
            assert worker.poll() is None
            time.sleep(0.1)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    (asset,) = ada.ask("GET", f"/jobs/{ada.ids['job_id']}/results").get_json()["assets"].values()
    ada.link = urlsplit(asset["href"]).path
    return ada


@pytest.fixture
def bob(guarded: Flask, service_config: Config) -> dict[str, str]:
    """The header of the second user."""
    name = f"bob-{uuid4().hex[:8]}"
    token = accounts.issue_token(service_config, accounts.create_user(service_config, name, PASSWORD))
    return {"Authorization": f"Bearer {token}"}


def bad_tokens(config: Config, ada: Ada) -> dict[str, str]:
    """Tokens that Ada's could be mistaken for."""
    claims = json.loads(jws.extract_compact(ada.token.encode()).payload)
    user = accounts.verify_password(config, "ada", PASSWORD)
    short = config.model_copy(update={"token_lifetime_hours": 1e-9})
    revoked = accounts.issue_token(config, user)
    accounts.revoke_token(config, revoked)
    head, body, signature = ada.token.split(".")
    return {
        "forged": jwt.encode({"alg": "HS256"}, claims, OctKey.generate_key(256)),
        "expired": accounts.issue_token(short, user),
        "revoked": revoked,
        "of an identity provider": f"oidc/local/{ada.token}",
        "unsigned": f"{head}.{body}.",
        "cut off": f"{head}.{body}.{signature[:-2]}",
        "her id": claims["sub"],
        "signature of a link": ada.link.split("/")[4],
    }


def addresses(kinds: set[str], app: Flask) -> Iterator[tuple[str, str]]:
    """Methods and addresses of some kinds; those that delete come last."""
    result = [(m, rule) for rule, methods in rules(app).items() if TABLE[rule] in kinds for m in methods]
    yield from sorted(result, key=lambda entry: (entry[0] == "DELETE", entry[1], entry[0]))


def filled(rule: str, ids: dict[str, str]) -> str:
    """The address with ids for its parameters."""
    for name, value in ids.items():
        for form in (f"<{name}>", f"<path:{name}>", f"<uuid:{name}>"):
            rule = rule.replace(form, value)
    return rule


def send(client: FlaskClient, method: str, rule: str, ids: dict[str, str], headers: dict[str, str]) -> Any:
    body = BODIES.get(rule) if method in ("POST", "PUT", "PATCH") else None
    return client.open(filled(rule, ids), method=method, headers=headers, json=body)


def test_every_private_endpoint_requires_a_token(guarded: Flask, service_config: Config, ada: Ada) -> None:
    before, client = ada.state(), guarded.test_client()
    for method, rule in addresses({OWN, BY_ID, OWN_NAME}, guarded):
        if rule in OPEN:
            continue
        answer = send(client, method, rule, ada.ids, {})
        assert (answer.status_code, code(answer)) == (401, "AuthenticationRequired"), (method, rule)
        for kind, token in bad_tokens(service_config, ada).items():
            answer = send(client, method, rule, ada.ids, {"Authorization": f"Bearer {token}"})
            assert (answer.status_code, code(answer)) == (403, "TokenInvalid"), (method, rule, kind)
            assert WORD not in answer.text
    assert ada.state() == before


def test_the_other_user_sees_and_changes_nothing(guarded: Flask, ada: Ada, bob: dict[str, str]) -> None:
    before, client = ada.state(), guarded.test_client()
    for method, rule in addresses({OWN, BY_ID, OWN_NAME}, guarded):
        answer = send(client, method, rule, ada.ids, bob)
        assert WORD not in answer.text, (method, rule)
        if TABLE[rule] == BY_ID:
            alike(answer, send(client, method, rule, UNKNOWN, bob), ada.ids, (method, rule))
        elif TABLE[rule] == OWN or method == "PUT":
            assert answer.status_code < 300, (method, rule, answer.text)
    assert ada.state() == before


def alike(one: TestResponse, other: TestResponse, ids: dict[str, str], where: Any) -> None:
    """Both answers are the same errors, but for the id that was asked for."""
    assert one.status_code == other.status_code == 404, where
    documents = []
    for answer, own_ids in ((one, ids), (other, UNKNOWN)):
        document = answer.get_json()
        del document["id"]
        text = json.dumps(document)
        for name, value in own_ids.items():
            text = text.replace(value, name)
        documents.append(text)
    assert documents[0] == documents[1], where


def test_before_the_other_user_has_anything(guarded: Flask, ada: Ada, bob: dict[str, str]) -> None:
    """Names of Ada's are not found, as names that nobody has."""
    client = guarded.test_client()
    for method, rule in addresses({OWN_NAME}, guarded):
        if method in ("GET", "DELETE"):
            one, other = (send(client, method, rule, ids, bob) for ids in (ada.ids, UNKNOWN))
            alike(one, other, ada.ids, (method, rule))
    # Nor can her process be called, though it is there for her.
    graph = {"call": {"process_id": "hers", "arguments": {}, "result": True}}
    body = {"process": {"process_graph": graph}}
    refused = client.post(f"{API}/result", json=body, headers=bob)
    assert code(refused) == "ProcessUnsupported"
    assert ada.ask("POST", "/result", json=body).status_code == 200


def test_public_addresses_say_the_same_to_everybody(guarded: Flask, ada: Ada, bob: dict[str, str]) -> None:
    client = guarded.test_client()
    ids = {"collection_id": "none", "filename": "icon.svg", "process_id": "add", "key": "B01"}
    ids |= {"item_id": str(uuid4()), "name": "none.tif"}
    signed_in = {"Authorization": f"Bearer {ada.token}"}
    for method, rule in addresses({PUBLIC}, guarded):
        answers = [send(client, method, rule, ids, headers) for headers in ({}, bob, signed_in)]
        bodies = [(entry.status_code, without_id(entry)) for entry in answers]
        assert bodies[0] == bodies[1] == bodies[2], rule
        assert WORD not in answers[0].text


def without_id(answer: TestResponse) -> Any:
    document = answer.get_json(silent=True)
    if isinstance(document, dict) and "code" in document:
        return {**document, "id": None}
    return answer.data.replace(answer.headers["X-Request-Id"].encode(), b"")


def changed(part: int) -> Callable[[str], str]:
    """Another value in one part of a link's path."""

    def change(link: str) -> str:
        parts = link.split("/")
        text = parts[part]
        parts[part] = f"{text[:-1]}{'0' if text[-1] != '0' else '1'}"
        return "/".join(parts)

    return change


def test_signed_links_open_only_what_they_are_for(
    guarded: Flask, service_config: Config, ada: Ada, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = guarded.test_client()
    other = ada.ask("POST", "/jobs", json={"process": addition()}).headers["OpenEO-Identifier"]
    parts = ada.link.split("/")
    moved = {
        "another job": ada.link.replace(ada.ids["job_id"], other),
        "a job that does not exist": ada.link.replace(ada.ids["job_id"], UNKNOWN["job_id"]),
        "longer": "/".join([*parts[:3], str(int(parts[3]) + 3600), *parts[4:]]),
        "another signature": changed(4)(ada.link),
        "no signature": "/".join([*parts[:4], "0", *parts[5:]]),
        "the signing user's token": "/".join([*parts[:4], ada.token, *parts[5:]]),
    }
    answers = {kind: client.get(path) for kind, path in moved.items()}
    assert {kind: (a.status_code, code(a)) for kind, a in answers.items()} == dict.fromkeys(
        moved, (410, "ResultLinkExpired")
    )
    assert client.get("/".join([*parts[:5], "..", "..", "files", "x"])).status_code in (404, 410)
    assert client.get(ada.link).data == b"2"
    with_another_key = create_app(
        service_config.model_copy(update={"secret_key": SecretStr("another")})
    ).test_client()
    assert with_another_key.get(ada.link).status_code == 410
    monkeypatch.setattr(time, "time", lambda: int(parts[3]) + 1.0)
    assert client.get(ada.link).status_code == 410


def test_private_processes_have_no_open_address(guarded: Flask, ada: Ada, bob: dict[str, str]) -> None:
    client = guarded.test_client()
    assert ada.ask("GET", "/process_graphs/hers").get_json()["links"] == []
    ada.ask("PUT", "/process_graphs/hers", json={**addition(), "public": True})
    (link,) = ada.ask("GET", "/process_graphs/hers").get_json()["links"]
    path = urlsplit(link["href"]).path
    assert client.get(path).get_json()["id"] == "hers"
    ada.ask("PUT", "/process_graphs/hers", json={**addition(), "summary": WORD})
    for gone in (path, changed(3)(path), f"/shared/processes/{ada.ids['job_id']}"):
        for headers in ({}, bob):
            answer = client.get(gone, headers=headers)
            assert (answer.status_code, code(answer)) == (404, "ProcessGraphNotFound")


def test_a_disabled_user_is_out(guarded: Flask, service_config: Config, ada: Ada) -> None:
    user = accounts.create_user(service_config, "cleo", PASSWORD)
    headers = {"Authorization": f"Bearer {accounts.issue_token(service_config, user)}"}
    assert guarded.test_client().get(f"{API}/me", headers=headers).status_code == 200
    accounts.disable_user(service_config, "cleo")
    for method, rule in addresses({OWN, BY_ID, OWN_NAME}, guarded):
        if rule not in OPEN:
            answer = send(guarded.test_client(), method, rule, ada.ids, headers)
            assert code(answer) == "TokenInvalid", (method, rule)


# --- Pages ---------------------------------------------------------------------------------------


def browser(app: Flask, session: str) -> FlaskClient:
    """A browser that has this cookie."""
    client = app.test_client()
    client.set_cookie("openeo-session", session)
    return client


def visit(app: Flask, session: str, method: str, rule: str, ids: dict[str, str]) -> TestResponse:
    """A page asked for, or a form of it sent with the key that belongs to the session."""
    with app.test_request_context():
        key = make_csrf_token(session)
    data = {"form_key": key} if method == "POST" else None
    return browser(app, session).open(filled(rule, {**ids, "action": "delete"}), method=method, data=data)


def test_pages_without_a_good_session(guarded: Flask, service_config: Config, ada: Ada) -> None:
    before = ada.state()
    user = accounts.verify_password(service_config, "ada", PASSWORD)
    ended = browser_sessions.begin(service_config, user)
    browser_sessions.end(service_config, ended)
    for session in ("", "made-up", ended, ada.token, str(user.id)):
        for method, rule in addresses({PAGE, PAGE_BY_ID}, guarded):
            answer = visit(guarded, session, method, rule, ada.ids)
            assert answer.status_code == 303, (method, rule, session)
            assert urlsplit(answer.location).path == "/sign-in"
            assert WORD not in answer.text
    assert ada.state() == before


def test_sessions_are_no_tokens(guarded: Flask, service_config: Config, ada: Ada) -> None:
    session = browser_sessions.begin(
        service_config, accounts.verify_password(service_config, "ada", PASSWORD)
    )
    assert WORD in browser(guarded, session).get("/my/jobs").text
    for method, rule in addresses({OWN, BY_ID}, guarded):
        answer = send(browser(guarded, session), method, rule, ada.ids, {})
        assert (answer.status_code, code(answer)) == (401, "AuthenticationRequired"), (method, rule)
        answer = send(guarded.test_client(), method, rule, ada.ids, {"Authorization": f"Bearer {session}"})
        assert (answer.status_code, code(answer)) == (403, "TokenInvalid"), (method, rule)


def test_pages_of_the_other_user(guarded: Flask, service_config: Config, ada: Ada) -> None:
    before = ada.state()
    bob = accounts.create_user(service_config, f"bob-{uuid4().hex[:8]}", PASSWORD)
    for method, rule in addresses({PAGE, PAGE_BY_ID}, guarded):
        session = browser_sessions.begin(service_config, bob)
        answer = visit(guarded, session, method, rule, ada.ids)
        assert WORD not in answer.text, (method, rule)
        assert ada.ids["job_id"] not in answer.text or TABLE[rule] == PAGE_BY_ID
        if TABLE[rule] == PAGE_BY_ID:
            other = visit(guarded, session, method, rule, UNKNOWN)
            assert answer.status_code == other.status_code == 404, (method, rule)
            assert as_template(answer, ada.ids) == as_template(other, UNKNOWN), (method, rule)
    assert ada.state() == before


def as_template(answer: TestResponse, ids: dict[str, str]) -> str:
    """The text of a page without the ids that it was asked with, and its own."""
    text = answer.text.replace(answer.headers["X-Request-Id"], "request")
    for name, value in ids.items():
        text = text.replace(value, name)
    return text


def test_forms_of_other_pages_do_nothing(guarded: Flask, service_config: Config, ada: Ada) -> None:
    before = ada.state()
    user = accounts.verify_password(service_config, "ada", PASSWORD)
    session, other = (
        browser_sessions.begin(service_config, user),
        browser_sessions.begin(service_config, user),
    )
    with guarded.test_request_context():
        keys = {"none": "", "of another session": make_csrf_token(other), "of nobody": make_csrf_token(None)}
    for method, rule in addresses({PAGE, PAGE_BY_ID}, guarded):
        if method == "POST":
            path = filled(rule, {**ada.ids, "action": "delete"})
            for kind, key in keys.items():
                answer = browser(guarded, session).post(path, data={"form_key": key})
                assert 400 <= answer.status_code < 500, (rule, kind)
            foreign = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
            with guarded.test_request_context():
                good = {"form_key": make_csrf_token(session)}
            assert 400 <= browser(guarded, session).post(path, data=good, headers=foreign).status_code < 500
    assert ada.state() == before
