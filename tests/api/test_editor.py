"""A Web Editor from a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.stack.web_editor import find_editor_warning
from tests.api.conftest import API
from tests.api.html import HTML

PAGE = '<!doctype html><html lang="en"><title>Editor</title><script src="app.js"></script></html>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as building an editor makes it, beside a file that is nobody's business."""
    root = tmp_path / "editor"
    (root / "fonts").mkdir(parents=True)
    (root / "index.html").write_text(PAGE)
    (root / "app.js").write_text("console.log(1)")
    (root / "fonts" / "a.woff2").write_bytes(b"wOF2")
    (root / ".env").write_text("secret")
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    return root


@pytest.fixture
def client(odc_config: Config, folder: Path) -> FlaskClient:
    return create_app(odc_config.model_copy(update={"web_editor_dir": folder})).test_client()


def test_the_editor_keeps_its_query(client: FlaskClient) -> None:
    led = client.get("/editor?server=http%3A%2F%2Flocalhost&wizard=a%26b")
    assert (led.status_code, led.headers["Location"]) == (
        308,
        "/editor/?server=http%3A%2F%2Flocalhost&wizard=a%26b",
    )
    assert "#" not in led.headers["Location"]
    assert client.get(led.headers["Location"]).text == PAGE
    assert client.get("/editor").headers["Location"] == "/editor/"


def test_files_have_their_types_and_tags(client: FlaskClient) -> None:
    types = {"": "text/html", "index.html": "text/html", "app.js": "text/javascript"}
    for path, type_ in {**types, "fonts/a.woff2": "font/woff2"}.items():
        answer = client.get(f"/editor/{path}")
        assert (answer.status_code, answer.mimetype) == (200, type_)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        again = client.get(f"/editor/{path}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
        assert client.head(f"/editor/{path}").headers["Content-Length"] == str(len(answer.data))


def test_files_outside_the_editor_are_not_served(client: FlaskClient) -> None:
    outside = (
        "../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "fonts/../../secret.txt",
        "//etc/passwd",
    )
    odd = ("..\\secret.txt", "app.js%00", "%2fetc%2fpasswd", ".env", "link.txt", "fonts", "nothing.js")
    for path in (*outside, *odd):
        answer = client.get(f"/editor/{path}")
        assert answer.status_code in (308, 400, 404), path
        assert b"secret" not in answer.data


def test_all_links_lead_to_it(client: FlaskClient) -> None:
    (link,) = [e for e in client.get(f"{API}/").get_json()["links"] if e["rel"] == "web-editor"]
    assert link["href"] == "http://localhost/editor"
    text = client.get("/", headers=HTML).text
    assert "http://localhost/editor?server=http%3A%2F%2Flocalhost" in text
    assert "editor.openeo.org" not in text


def test_without_a_folder_there_is_none(odc_config: Config) -> None:
    client = create_app(odc_config).test_client()
    assert client.get("/editor").status_code == 404
    assert client.get("/editor/index.html").status_code == 404


def test_folder_without_editor_is_reported_at_once(odc_config: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"WEB_EDITOR_DIR.*index\.html"):
        create_app(odc_config.model_copy(update={"web_editor_dir": tmp_path}))


def test_workers_may_start_from_data_urls_as_the_geotiff_decoder_does(client: FlaskClient) -> None:
    policy = client.get("/editor/").headers["Content-Security-Policy"]
    (workers,) = [rule for rule in policy.split("; ") if rule.startswith("worker-src")]
    assert set(workers.split()) == {"worker-src", "'self'", "blob:", "data:"}


@pytest.mark.parametrize(
    ("script", "public_url", "is_wrong"),
    [
        ('<script defer="defer" src="/js/app.3fb1.js">', None, True),
        ("<script src=/js/app.js>", None, True),
        ('<script src="/editor/js/app.js">', None, False),
        ('<script src="js/app.js">', None, False),
        ('<script src="//cdn.example.org/app.js">', None, False),
        ('<script src="/editor/js/app.js">', "https://example.org/openeo", True),
        ('<script src="/openeo/editor/js/app.js">', "https://example.org/openeo/", False),
    ],
)
def test_a_build_for_another_path_is_noticed(
    folder: Path, odc_config: Config, script: str, public_url: str | None, is_wrong: bool
) -> None:
    (folder / "index.html").write_text(f"<!doctype html><html>{script}</script></html>")
    config = odc_config.model_copy(update={"web_editor_dir": folder, "public_url": public_url})
    warning = find_editor_warning(config)
    assert bool(warning) is is_wrong
    if warning:
        assert "CLIENT_URL=/" in warning
        assert "npm run build" in warning


def test_the_start_of_the_service_tells_of_such_a_build(
    folder: Path, odc_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "index.html").write_text('<script src="/js/app.js"></script>')
    create_app(odc_config.model_copy(update={"web_editor_dir": folder}))
    assert "CLIENT_URL=/editor/ npm run build" in caplog.text
