"""The pages of what users have stored: uploads, services, processes and workspaces, also by hostile names."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from odc_openeo.api.view_bodies import MULTIPART
from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.services import ServiceDraft, store
from odc_openeo.user_data import files, user_defined_processes, workspaces
from odc_openeo.user_data.workspaces import WorkspaceDraft
from odc_openeo.users import accounts, browser_sessions
from odc_openeo.users.accounts import Account
from tests.api.conftest import PASSWORD, addition
from tests.api.html import HTML, checked, elements, form_key, text_of

HOSTILE = "<script>alert(1)</script>"
BROKEN_OUT = "\"><img src=x onerror=alert(1)> '{{ 7 * 7 }}"


@pytest.fixture
def ada(odc_config: Config) -> Account:
    return accounts.create_user(odc_config, "ada", PASSWORD)


@pytest.fixture
def browser(client: FlaskClient, odc_config: Config, ada: Account) -> FlaskClient:
    """A browser in which Ada has signed in."""
    client.set_cookie("openeo-session", browser_sessions.begin(odc_config, ada))
    return client


def upload(
    browser: FlaskClient,
    *contents: tuple[bytes, str],
    folder: str = "",
    key: str | None = None,
    **headers: str,
) -> TestResponse:
    """Send the form of the page with files: contents and names."""
    fields: dict[str, Any] = {
        "form_key": form_key(browser.get("/my/files")) if key is None else key,
        "folder": folder,
        "file": [(BytesIO(content), name) for content, name in contents],
    }
    return browser.post("/my/files", data=fields, content_type=MULTIPART, headers=headers)


def read_files(config: Config, user: Account) -> dict[str, bytes]:
    """All files of a user by path."""
    owner = str(user.id)
    return {f.path: files.open_file(config, owner, f.path)[1].read() for f in files.list_files(config, owner)}


# --- Uploads -------------------------------------------------------------------------------------


def test_files_arrive_as_they_are(browser: FlaskClient, odc_config: Config, ada: Account) -> None:
    long = bytes(range(256)) * 5000 + b"\r\n--boundary\r\n"
    answer = upload(browser, (b"", "empty.txt"), (long, "Äcker & Wälder.bin"), folder=" fields/2024/ ")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/my/files")
    expected = {"fields/2024/empty.txt": b"", "fields/2024/Äcker & Wälder.bin": long}
    assert read_files(odc_config, ada) == expected
    # Sent twice, as by two clicks, there is still one file of each name.
    upload(browser, (b"new", "empty.txt"), folder="fields/2024")
    assert read_files(odc_config, ada) == {**expected, "fields/2024/empty.txt": b"new"}


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "/etc/passwd", ".hidden", "a:b", "a'b", "x" * 300, "..", "a\x01b", "fields/a"],
)
def test_names_that_lead_elsewhere_are_refused(
    browser: FlaskClient, odc_config: Config, ada: Account, name: str
) -> None:
    answer = upload(browser, (b"content", name))
    assert answer.status_code == 400
    assert next(e for e in elements(checked(answer)) if e.get("role") == "alert") is not None
    assert read_files(odc_config, ada) == {}
    assert upload(browser, (b"content", "good.txt"), folder=name).status_code in (303, 400)
    assert all(".." not in path and path.endswith("good.txt") for path in read_files(odc_config, ada))
    assert not (odc_config.data_dir / "out.txt").exists()


def test_names_are_shown_as_text(browser: FlaskClient, ada: Account) -> None:
    name = "<b onclick=alert(1)>{{ 7 * 7 }} &lt;%2e%2e.html"
    assert upload(browser, (b"<script>", name)).status_code == 303
    root = checked(browser.get("/my/files"))
    assert name in text_of(root)
    (link,) = [e for e in elements(root, "a") if e.get("download") is not None]
    answer = browser.get(link.get("href", ""))
    assert answer.data == b"<script>"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    (form,) = [e for e in elements(root, "form") if e.get("action", "").startswith("/my/files/")]
    key = form_key(browser.get("/my/files"))
    assert browser.post(form.get("action", ""), data={"form_key": key}).status_code == 303
    assert name not in text_of(checked(browser.get("/my/files")))


def test_forged_uploads_store_nothing(browser: FlaskClient, odc_config: Config, ada: Account) -> None:
    for key in ("", "0" * 64, "ä"):
        assert upload(browser, (b"x", "x.txt"), key=key).status_code == 403
    foreign = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    assert upload(browser, (b"x", "x.txt"), **foreign).status_code == 403
    # The token after the file is too late.
    head = "--b\r\nContent-Disposition: form-data; name="
    key = form_key(browser.get("/my/files"))
    body = f'{head}"file"; filename="x.txt"\r\n\r\nx\r\n{head}"form_key"\r\n\r\n{key}'
    media_type = f"{MULTIPART}; boundary=b"
    assert browser.post("/my/files", data=f"{body}\r\n--b--\r\n", content_type=media_type).status_code == 403
    assert read_files(odc_config, ada) == {}


def test_forms_that_are_no_uploads_are_refused(
    browser: FlaskClient, odc_config: Config, ada: Account
) -> None:
    key = form_key(browser.get("/my/files"))
    head = f'--b\r\nContent-Disposition: form-data; name="form_key"\r\n\r\n{key}\r\n'
    part = '--b\r\nContent-Disposition: form-data; name="file"; filename="cut.txt"\r\n\r\nhalf of'
    many = "".join(f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n\r\n' for n in range(200))
    large = f'--b\r\nContent-Disposition: form-data; name="folder"\r\n\r\n{"x" * 10_000}\r\n'
    bodies = {
        "cut off": head + part,
        "no parts": "",
        "no end": head,
        "no file": f"{head}--b--\r\n",
        "too many parts": f"{head}{many}--b--\r\n",
        "a large field": f"{head}{large}--b--\r\n",
        "no name": "--b\r\nX-Header: 1\r\n\r\n1\r\n--b--\r\n",
        "a header of megabytes": f"{head}--b\r\nX-Header: {'x' * 3_000_000}\r\n\r\n--b--\r\n",
    }
    for kind, body in bodies.items():
        answer = browser.post(
            "/my/files", data=body.encode(), content_type=f"{MULTIPART}; boundary=b", headers=HTML
        )
        assert answer.status_code in (400, 403), kind
        checked(answer)
    for media_type in (MULTIPART, f"{MULTIPART}; boundary=", "text/plain"):
        answer = browser.post("/my/files", data=(head + part).encode(), content_type=media_type)
        assert answer.status_code in (400, 403), media_type
    assert browser.post("/my/files", data={"form_key": key}).status_code == 400
    assert read_files(odc_config, ada) == {}
    assert not any(odc_config.data_dir.rglob("cut.txt"))


def test_uploads_keep_to_the_limits(browser: FlaskClient, odc_config: Config, ada: Account) -> None:
    small = odc_config.model_copy(update={"max_file_bytes": 1000, "max_body_bytes": 500})
    there = create_app(small).test_client()
    there.set_cookie("openeo-session", browser_sessions.begin(small, ada))
    assert "up to 1.0 kB" in text_of(checked(there.get("/my/files")))
    # Beyond the limit for JSON, but not for files.
    assert upload(there, (b"x" * 900, "fits.bin")).status_code == 303
    answer = upload(there, (b"y" * 900, "first.bin"), (b"x" * 1001, "large.bin"), (b"z", "after.bin"))
    assert answer.status_code in (400, 413)
    assert "1000 bytes" in text_of(checked(answer))
    assert sorted(read_files(small, ada)) == ["first.bin", "fits.bin"]
    incoming = [path for path in small.data_dir.rglob("incoming/*/*") if path.name != ".lock"]
    assert incoming == []


# --- Services, processes, workspaces ---------------------------------------------------------------


def press(browser: FlaskClient, page: str, address: str) -> TestResponse:
    """Send a form of a page."""
    return browser.post(address, data={"form_key": form_key(browser.get(page))})


def test_pages_of_services(browser: FlaskClient, odc_config: Config, ada: Account) -> None:
    assert "no secondary web services" in text_of(checked(browser.get("/my/services")))
    draft = ServiceDraft("XYZ", addition(), title=HOSTILE, description=f"*{HOSTILE}*")
    service = str(store.create_service(odc_config, ada.id, draft))
    page = f"/my/services/{service}"
    assert HOSTILE in text_of(checked(browser.get("/my/services")))
    text = text_of(checked(browser.get(page)))
    assert HOSTILE in text
    assert re.search(r"/services/[0-9a-f-]+/signed/[^/]+/\{z\}/\{x\}/\{y\}\.png", text)
    press(browser, page, f"{page}/disable")
    assert not store.get_service(odc_config, ada.id, service).draft.enabled
    press(browser, page, f"{page}/enable")
    assert store.get_service(odc_config, ada.id, service).draft.enabled
    assert press(browser, page, f"{page}/rename").status_code == 404
    assert press(browser, page, f"{page}/delete").headers["Location"] == "/my/services"
    assert browser.get(page).status_code == 404
    # A second click on the same button.
    assert press(browser, "/my/services", f"{page}/delete").status_code == 404


PARAMETERS: list[Any] = [
    {"name": BROKEN_OUT, "description": HOSTILE, "schema": {"type": "number"}, "default": HOSTILE},
    {"name": "x", "description": "", "schema": {"anyOf": [1, "a"], "items": 7}},
    {"name": "y", "description": "", "schema": {"subtype": {"a": 1}, "type": 3}},
    {"name": "z", "description": "", "schema": []},
]


def test_pages_of_stored_processes(browser: FlaskClient, odc_config: Config, ada: Account) -> None:
    assert "stored no processes" in text_of(checked(browser.get("/my/processes")))
    process = {**addition(), "summary": HOSTILE, "description": BROKEN_OUT, "parameters": PARAMETERS}
    user_defined_processes.save_process(odc_config, ada.id, "mine", process, public=True)
    assert HOSTILE in text_of(checked(browser.get("/my/processes")))
    text = text_of(checked(browser.get("/my/processes/mine")))
    assert HOSTILE in text
    (address,) = re.findall(r"http://localhost(/shared/processes/[0-9a-f-]+)", text)
    assert browser.get(address).get_json()["id"] == "mine"
    assert json.dumps("process_id") in text
    answer = press(browser, "/my/processes/mine", "/my/processes/mine/delete")
    assert answer.headers["Location"] == "/my/processes"
    assert browser.get("/my/processes/mine").status_code == 404
    for name in (HOSTILE, "a%2Fb", "%00"):
        assert browser.get(f"/my/processes/{name}", headers=HTML).status_code in (400, 404)


def test_pages_of_workspaces(browser: FlaskClient, odc_config: Config, ada: Account) -> None:
    assert "no workspaces" in text_of(checked(browser.get("/my/workspaces")))
    draft = WorkspaceDraft(title=HOSTILE, description=f"*{HOSTILE}*", quota=5_000_000)
    shelf = workspaces.create_workspace(odc_config, ada.id, draft)
    name = "a folder/<img src=x>.html"
    place = Path(odc_config.storage.removeprefix("file://")) / shelf.folder / name
    place.parent.mkdir(parents=True)
    place.write_text(HOSTILE)
    assert HOSTILE in text_of(checked(browser.get("/my/workspaces")))
    page = f"/my/workspaces/{shelf.id}"
    root = checked(browser.get(page))
    assert HOSTILE in text_of(root)
    assert "25 bytes of 5.0 MB" in text_of(root)
    (link,) = [e for e in elements(root, "a") if e.get("download") is not None]
    assert text_of(link) == name
    answer = browser.get(link.get("href", ""))
    assert answer.text == HOSTILE
    assert answer.headers["Content-Disposition"] == "attachment"
    assert answer.mimetype == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for path in ("../../x", "%2e%2e/%2e%2e/x", "nothing"):
        assert browser.get(f"{page}/files/{path}").status_code == 404
    assert press(browser, page, f"{page}/delete").headers["Location"] == "/my/workspaces"
    assert not place.exists()
    assert browser.get(page).status_code == 404


def test_lists_come_in_pages(browser: FlaskClient, odc_config: Config, ada: Account) -> None:
    for number in range(101):
        user_defined_processes.save_process(odc_config, ada.id, f"p{number:03}", addition(), public=False)
    root = checked(browser.get("/my/processes"))
    (following,) = [e for e in elements(root, "a") if e.get("rel") == "next"]
    last = checked(browser.get(following.get("href", "")))
    assert [text_of(e) for e in elements(last, "code")] == ["p100"]


def test_strange_ids_are_not_found(browser: FlaskClient) -> None:
    for kind in ("services", "workspaces", "processes"):
        for id_ in (str(uuid4()), "%3Cscript%3E", "'; DROP TABLE users", "x" * 2000):
            answer = browser.get(f"/my/{kind}/{id_}", headers=HTML)
            assert answer.status_code == 404
            checked(answer)
        answer = browser.get(f"/my/{kind}?after={'x' * 300}", headers=HTML)
        assert answer.status_code in (200, 400)
        checked(answer)
