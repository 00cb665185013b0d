"""The service below a path of a proxy: every link, form and redirect leads back through it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from werkzeug.serving import make_server

from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.stack.embedded import free_port
from odc_openeo.users import accounts
from tests.catalog.scenes import PRODUCT, Index, scene

EXAMPLES = Path(__file__).parents[2] / "deploy"
PREFIX = "/eo"
PAGES = (
    "/",
    "/collections/tiny_s2",
    "/processes",
    "/processes/add",
    "/api.html",
    "/sign-in",
    "/my/jobs",
    "/x",
)
DOCUMENTS = (
    *("/", "/.well-known/openeo", "/api"),
    *(f"/openeo/1.3{path}" for path in ("/", "/collections", "/collections/tiny_s2", "/search?limit=1")),
    *(f"/openeo/1.3{path}" for path in ("/collections/tiny_s2/items", "/file_formats", "/queryables")),
)


@dataclass
class Answer:
    status: int
    headers: Any
    text: str


class _References(HTMLParser):
    """The addresses in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name in ("href", "src", "action") and value]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@pytest.fixture(params=["nginx", "caddy"])
def service(request: pytest.FixtureRequest, odc_config: Config, tmp_path: Path) -> Iterator[str]:
    """The URL of the service behind a proxy."""
    program = shutil.which(request.param) or shutil.which(request.param, path="/usr/sbin")
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    index = Index()
    index.add_product(PRODUCT)
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"))
    index.datacube.close()
    port = free_port()
    url = f"http://127.0.0.1:{port}{PREFIX}"
    app = create_app(
        odc_config.model_copy(update={"public_url": url, "trusted_proxies": 1, "login_attempts": 2})
    )
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    start = start_nginx if request.param == "nginx" else start_caddy
    proxy = start(program, tmp_path, port, server.port)
    try:
        wait_until_reachable(proxy, f"{url}/.well-known/openeo")
        yield url
    finally:
        proxy.terminate()
        proxy.wait(10)
        server.shutdown()
        server.server_close()


def start_nginx(program: str, folder: Path, port: int, upstream: int) -> subprocess.Popen[bytes]:
    """Start nginx with the published example, on other ports."""
    example = (EXAMPLES / "nginx" / "odc-openeo.conf").read_text()
    site = _replace(example, {"listen 80;": f"listen 127.0.0.1:{port};", "Host $host": "Host $http_host"})
    site = _replace(site, {"127.0.0.1:8080": f"127.0.0.1:{upstream}"})
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root;\n" if Path("/root").owner() == "root" else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {paths} {site} }}\n"
    )
    return subprocess.Popen([program, "-e", f"{folder}/error.log", "-c", str(folder / "nginx.conf")])


def start_caddy(program: str, folder: Path, port: int, upstream: int) -> subprocess.Popen[bytes]:
    """Start Caddy with the published example, on other ports and without a certificate."""
    example = (EXAMPLES / "caddy" / "Caddyfile").read_text()
    address = f"http://127.0.0.1:{port} {{\n\tbind 127.0.0.1"
    site = _replace(
        example, {"\neo.example.org {": f"\n{address}", "127.0.0.1:8080": f"127.0.0.1:{upstream}"}
    )
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\n{site}")
    with (folder / "caddy.log").open("w") as log:
        return subprocess.Popen(
            [program, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        )


def _replace(text: str, changes: dict[str, str]) -> str:
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    return text


def wait_until_reachable(proxy: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.URLError:
            assert proxy.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def fetch(url: str, **headers: str) -> Answer:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    request = urllib.request.Request(url, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with opener.open(request, timeout=60) as response:
            return Answer(response.status, response.headers, response.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read().decode("utf-8", "replace"))


def is_inside(service: str, base: str, address: str) -> bool:
    """Whether an address is on another host, or below the prefix."""
    target, root = urlsplit(urljoin(base, address)), urlsplit(service)
    return target.netloc != root.netloc or f"{target.path}/".startswith(f"{PREFIX}/")


def test_every_reference_has_the_prefix(service: str) -> None:
    outside, ours = [], 0
    for path in PAGES:
        page = fetch(f"{service}{path}", Accept="text/html")
        parser = _References()
        parser.feed(page.text)
        addresses = [*parser.addresses, *([page.headers["Location"]] if page.headers["Location"] else [])]
        outside += [(path, a) for a in addresses if not is_inside(service, f"{service}{path}", a)]
        ours += sum(urlsplit(urljoin(service, a)).netloc == urlsplit(service).netloc for a in addresses)
    for path in DOCUMENTS:
        document = fetch(f"{service}{path}", Accept="application/json")
        location = document.headers["Location"]
        urls = re.findall(r'"(http://127\.0\.0\.1[^"]*)"', json.dumps(document.text).replace('\\"', '"'))
        addresses = [*urls, *([location] if location else [])]
        outside += [(path, a) for a in addresses if not is_inside(service, f"{service}{path}", a)]
        ours += len(addresses)
    assert outside == []
    assert ours > 100


def test_links_can_be_followed(service: str) -> None:
    start = fetch(f"{service}/", Accept="text/html")
    parser = _References()
    parser.feed(start.text)
    local = {urljoin(f"{service}/", a).partition("#")[0] for a in parser.addresses}
    local = {a for a in local if a.startswith(service)}
    assert len(local) > 5
    for address in sorted(local):
        assert fetch(address, Accept="text/html").status in (200, 303), address
    capabilities = json.loads(fetch(f"{service}/openeo/1.3/").text)
    for link in capabilities["links"]:
        if link["href"].startswith(service):
            assert fetch(link["href"], Accept=link["type"]).status == 200, link


def test_redirects_stay_below_the_prefix(service: str) -> None:
    for path, target in (
        ("/", "/openeo/1.3/"),
        ("/openeo/1.3/collections//", "/openeo/1.3/collections"),
        ("/my/jobs", "/sign-in"),
    ):
        answer = fetch(f"{service}{path}", Accept="application/json", X_Forwarded_Host="evil.example")
        if answer.status in (301, 303, 307, 308):
            location = urlsplit(urljoin(f"{service}{path}", answer.headers["Location"]))
            assert location.netloc == urlsplit(service).netloc
            assert location.path.startswith(f"{PREFIX}{target}"), (path, answer.headers["Location"])
    # After signing in, the browser comes back to the page that it asked for.
    assert fetch(f"{service}/my/files").headers["Location"].endswith("?to=/eo/my/files")
    root = service.removesuffix(PREFIX)
    assert fetch(f"{root}{PREFIX}").headers["Location"].endswith(f"{PREFIX}/")


def test_headers_of_clients_choose_nothing(service: str, odc_config: Config) -> None:
    """Wrong passwords from one client count together, whatever address it claims to have."""
    accounts.create_user(odc_config, "ada", "correct horse")
    forged = {"X_Forwarded_Host": "evil.example", "X_Forwarded_Proto": "https", "X_Forwarded_Prefix": "/evil"}
    document = fetch(f"{service}/openeo/1.3/", **forged).text
    assert "evil" not in document
    assert "https://127.0.0.1" not in document
    statuses = [
        fetch(
            f"{service}/openeo/1.3/credentials/basic",
            Authorization="Basic YWRhOndyb25n",
            X_Forwarded_For=f"192.0.2.{number}",
        ).status
        for number in range(4)
    ]
    assert statuses == [403, 403, 429, 429]
