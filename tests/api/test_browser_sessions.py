"""People who sign in with a browser: sessions, forms, and what they see of their own."""

from __future__ import annotations

import re
from http.cookies import SimpleCookie
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from odc_openeo import jobs
from odc_openeo.api.pages import forms
from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.jobs import JobDraft
from odc_openeo.user_data import files
from odc_openeo.users import accounts
from odc_openeo.users.accounts import Account
from tests.api.conftest import API, PASSWORD, addition, code
from tests.api.html import HTML, checked, elements, form_key, text_of

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def ada(odc_config: Config) -> Account:
    return accounts.create_user(odc_config, "ada", PASSWORD)


def sign_in(client: FlaskClient, password: str = PASSWORD, to: str = "", **headers: str) -> TestResponse:
    """Fill in the form as a browser does."""
    key = form_key(client.get("/sign-in", headers=HTML))
    data = {"form_key": key, "name": "ada", "password": password, "to": to}
    return client.post("/sign-in", data=data, headers={**HTML, **headers})


@pytest.fixture
def browser(client: FlaskClient, ada: Account) -> FlaskClient:
    """A browser in which Ada has signed in."""
    assert sign_in(client).headers["Location"] == "/my/jobs"
    return client


def cookies(response: TestResponse) -> dict[str, Any]:
    """The cookies that an answer sets, by name."""
    jar: dict[str, Any] = {}
    for header in response.headers.getlist("Set-Cookie"):
        jar |= SimpleCookie(header)
    return jar


def a_job(config: Config, user: Account, title: str = "A sum") -> str:
    return str(jobs.create_job(config, user.id, JobDraft(process=addition(), title=title, description=title)))


def send(client: FlaskClient, address: str, page: str = "/my/jobs", **headers: str) -> TestResponse:
    """Press a button: send the form with the key of a page."""
    return client.post(address, data={"form_key": form_key(client.get(page))}, headers=headers)


# --- Signing in and out --------------------------------------------------------------------------


def test_the_cookie_is_for_this_site_and_no_script(client: FlaskClient, ada: Account) -> None:
    answer = sign_in(client)
    assert answer.status_code == 303
    cookie = cookies(answer)["openeo-session"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert not cookie["secure"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_cookie_travels_by_https_only_where_there_is_https(odc_config: Config, ada: Account) -> None:
    app = create_app(odc_config.model_copy(update={"public_url": "https://example.org"}))
    client = app.test_client()
    there = {"base_url": "https://example.org"}
    key = form_key(client.get("/sign-in", **there))
    data = {"form_key": key, "name": "ada", "password": PASSWORD}
    cookie = cookies(client.post("/sign-in", data=data, **there))["__Host-openeo-session"]
    assert (cookie["secure"], cookie["path"], cookie["domain"]) == (True, "/", "")


def test_anonymous_visitors_are_redirected_to_the_form_and_back(client: FlaskClient, ada: Account) -> None:
    led = client.get("/my/jobs/7?level=info")
    assert led.status_code == 303
    to = parse_qs(urlsplit(led.headers["Location"]).query)["to"][0]
    assert sign_in(client, to=to).headers["Location"] == "/my/jobs/7?level=info"


def test_the_way_back_leads_nowhere_else(app: Flask, ada: Account) -> None:
    odd = ["/\\evil.example", "/my/\\..", "/openeo/1.3/me", "/my/\n"]
    for to in ["https://evil.example", "//evil.example", *odd]:
        assert sign_in(app.test_client(), to=to).headers["Location"] == "/my/jobs", to


def test_wrong_passwords_are_refused_and_counted(odc_config: Config, ada: Account) -> None:
    client = create_app(odc_config.model_copy(update={"login_attempts": 2})).test_client()
    for _ in range(2):
        answer = sign_in(client, "wrong")
        assert answer.status_code == 403
        root = checked(answer)
        assert "not correct" in text_of(root)
        assert "wrong" not in answer.text
        assert "openeo-session" not in cookies(answer)
    answer = sign_in(client)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert "openeo-session" not in cookies(answer)


def test_signing_out_ends_the_session(browser: FlaskClient) -> None:
    value = browser.get_cookie("openeo-session")
    assert value is not None
    assert send(browser, "/sign-out").headers["Location"] == "/"
    assert browser.get_cookie("openeo-session") is None
    browser.set_cookie("openeo-session", value.value)
    assert browser.get("/my/jobs").status_code == 303


def test_locked_out_users_have_no_session(browser: FlaskClient, odc_config: Config) -> None:
    accounts.disable_user(odc_config, "ada")
    assert browser.get("/my/jobs").status_code == 303


def test_a_new_password_ends_sessions(browser: FlaskClient, odc_config: Config) -> None:
    accounts.set_password(odc_config, "ada", "another password")
    assert browser.get("/my/jobs").status_code == 303


@pytest.mark.filterwarnings("ignore:The .* cookie is too large")
def test_forged_sessions_are_ignored(client: FlaskClient) -> None:
    for value in ("x", "", "é", "a" * 10_000):
        client.set_cookie("openeo-session", value)
        assert client.get("/my/jobs").status_code == 303


def test_each_sign_in_is_a_session_of_its_own(browser: FlaskClient, app: Flask) -> None:
    first = browser.get_cookie("openeo-session")
    other = app.test_client()
    sign_in(other)
    second = other.get_cookie("openeo-session")
    assert first is not None
    assert second is not None
    assert first.value != second.value
    send(other, "/sign-out")
    assert browser.get("/my/jobs").status_code == 200


def test_without_basic_login_there_is_no_form(odc_config: Config) -> None:
    client = create_app(odc_config.model_copy(update={"basic_login": False})).test_client()
    assert "password" not in client.get("/sign-in").text
    assert "/my/jobs" not in client.get("/", headers=HTML).text


# --- Sessions are no tokens ----------------------------------------------------------------------


def test_the_api_takes_no_cookies(browser: FlaskClient, odc_config: Config, ada: Account) -> None:
    job = a_job(odc_config, ada)
    requests_ = [("GET", "/me"), ("GET", "/jobs"), ("POST", "/result"), ("DELETE", f"/jobs/{job}")]
    requests_ += [("POST", f"/jobs/{job}/results"), ("GET", "/files"), ("PUT", "/files/x")]
    for method, path in requests_:
        answer = browser.open(f"{API}{path}", method=method)
        assert (answer.status_code, code(answer)) == (401, "AuthenticationRequired"), path
    assert jobs.get_job(odc_config, ada.id, job).status == "created"


def test_sessions_and_tokens_are_not_interchangeable(
    browser: FlaskClient, odc_config: Config, ada: Account
) -> None:
    session = browser.get_cookie("openeo-session")
    assert session is not None
    for value in (session.value, f"basic//{session.value}", f"session {session.value}"):
        answer = browser.get(f"{API}/me", headers={"Authorization": f"Bearer {value}"})
        assert answer.status_code == 403, value
    browser.set_cookie("openeo-session", accounts.issue_token(odc_config, ada))
    assert browser.get("/my/jobs").status_code == 303


# --- Forms ---------------------------------------------------------------------------------------


def test_forged_forms_are_ignored(browser: FlaskClient, app: Flask, odc_config: Config, ada: Account) -> None:
    job = a_job(odc_config, ada)
    good = form_key(browser.get("/my/jobs"))
    stranger = app.test_client()
    theirs = form_key(stranger.get("/sign-in"))
    for data in ({}, {"form_key": ""}, {"form_key": theirs}, {"form_key": good[:-1]}, {"form_key": "é"}):
        for address in (f"/my/jobs/{job}/delete", f"/my/jobs/{job}/start", "/sign-out"):
            answer = browser.post(address, data=data)
            assert answer.status_code == 403
            assert "FormInvalid" in text_of(checked(answer))
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert browser.post("/sign-out", data={"form_key": good}, headers=headers).status_code == 403
    assert jobs.get_job(odc_config, ada.id, job).status == "created"
    assert browser.get(f"/my/jobs/{job}/delete").status_code == 405
    assert send(browser, f"/my/jobs/{job}/start", Origin="http://localhost").status_code == 303


def test_cross_site_requests_sign_nobody_in(client: FlaskClient, ada: Account) -> None:
    key = form_key(client.get("/sign-in"))
    data = {"form_key": key, "name": "ada", "password": PASSWORD}
    client.delete_cookie("openeo-visitor")
    assert client.post("/sign-in", data=data).status_code == 403
    assert sign_in(client, Origin="https://evil.example").status_code == 403
    assert client.get_cookie("openeo-session") is None


# --- What users see ------------------------------------------------------------------------------


def test_jobs_are_listed_started_cancelled_and_deleted(
    browser: FlaskClient, odc_config: Config, ada: Account
) -> None:
    job = a_job(odc_config, ada)
    root = checked(browser.get("/my/jobs"))
    assert "A sum" in text_of(root)
    assert "created" in text_of(root)
    place = f"/my/jobs/{job}"
    assert send(browser, f"{place}/start", place).headers["Location"] == place
    assert jobs.get_job(odc_config, ada.id, job).status == "queued"
    running = browser.get(place)
    assert next(elements(checked(running), "progress")).get("max") == "100"
    assert 'http-equiv="refresh"' in running.text
    assert send(browser, f"{place}/cancel", place).status_code == 303
    assert jobs.get_job(odc_config, ada.id, job).status == "created"
    assert send(browser, f"{place}/delete", place).headers["Location"] == "/my/jobs"
    assert "no batch jobs" in text_of(checked(browser.get("/my/jobs")))
    assert send(browser, f"{place}/nonsense").status_code == 404


def test_pages_of_jobs(browser: FlaskClient, odc_config: Config, ada: Account) -> None:
    created = {a_job(odc_config, ada, f"Number {n}") for n in range(30)}
    seen, address = set(), "/my/jobs"
    for _ in range(2):
        root = checked(browser.get(address))
        seen |= set(re.findall(r"[0-9a-f-]{36}", " ".join(e.get("href", "") for e in elements(root, "a"))))
        following = [e.get("href", "") for e in elements(root, "a") if e.get("rel") == "next"]
        address = following[0] if following else ""
    assert address == ""
    assert created <= seen
    assert browser.get("/my/jobs?after=nonsense").status_code == 400


def test_others_jobs_and_files_are_not_there(browser: FlaskClient, odc_config: Config) -> None:
    eve = accounts.create_user(odc_config, "eve", PASSWORD)
    job = a_job(odc_config, eve)
    files.receive_file(odc_config, str(eve.id), "secret.txt", BytesIO(b"secret"), 6)
    assert "secret.txt" not in browser.get("/my/files").text
    assert browser.get("/my/files/secret.txt").status_code == 404
    assert job not in browser.get("/my/jobs").text
    answers = [browser.get(f"/my/jobs/{id_}") for id_ in (job, "00000000-0000-0000-0000-000000000000", "x")]
    for action in ("start", "cancel", "delete"):
        answers.append(send(browser, f"/my/jobs/{job}/{action}"))
    assert {a.status_code for a in answers} == {404}
    assert jobs.get_job(odc_config, eve.id, job).status == "created"


def test_pages_of_users_are_not_cached(browser: FlaskClient) -> None:
    for address in ("/my/jobs", "/my/files"):
        assert browser.get(address).headers["Cache-Control"] == "no-store"


def test_user_input_is_escaped_in_pages(browser: FlaskClient, odc_config: Config, ada: Account) -> None:
    job = a_job(odc_config, ada, HOSTILE)
    for address in ("/my/jobs", f"/my/jobs/{job}"):
        assert HOSTILE in text_of(checked(browser.get(address)))


def test_files_can_be_downloaded(browser: FlaskClient, odc_config: Config, ada: Account) -> None:
    files.receive_file(odc_config, str(ada.id), "a folder/<b>.html", BytesIO(b"<script>"), 8)
    root = checked(browser.get("/my/files"))
    (link,) = [e for e in elements(root, "a") if e.get("download") is not None]
    answer = browser.get(link.get("href", ""))
    assert answer.data == b"<script>"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_names_of_cookies_are_safe_ones() -> None:
    assert {forms.SESSION_COOKIE, forms.VISITOR_COOKIE, forms.OIDC_COOKIE} == {
        "openeo-session",
        "openeo-visitor",
        "openeo-traveller",
    }
