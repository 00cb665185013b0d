"""The documentation site: it builds, loads nothing from elsewhere, and what it shows as code is code."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
import yaml
from datacube.scripts.cli_app import cli as datacube_cli

from odc_openeo.cli import cli
from odc_openeo.config import PREFIX, Config, list_secrets
from odc_openeo.registry.process import PROCESSES
from tests.browser import browser, find_program
from tests.conftest import SiteHandler
from tests.support.command_lines import SHELLS, check_arguments, find_arguments, list_commands

ROOT = Path(__file__).resolve().parents[1]
SCREENSHOTS = ROOT / "build" / "screenshots"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [
    *PAGES,
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
    ROOT / "indexing/README.md",
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "openeo_xarray").glob("*.md")),
]
"""All that is written for readers."""

BLOCK = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; a link or an anchor that leads nowhere, or a page without a place, fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    for page in PAGES:
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").exists()
    for notebook in (ROOT / "docs").glob("*/*.ipynb"):
        text = (site / notebook.parent.name / f"{notebook.stem}.html").read_text()
        assert f"pictures/{notebook.stem}.png" in text
    assert "migrations" not in {path.name for path in site.iterdir()}


@pytest.fixture(scope="module")
def site_url(site: Path) -> Iterator[str]:
    """The site on a web server of its own."""
    handler = partial(SiteHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.skipif(
    find_program() is None, reason="no Chromium is installed (Debian: apt-get install chromium)"
)
def test_the_site_looks_right(site_url: str) -> None:
    """Light, dark and on a phone; pictures of the last run are in build/screenshots."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    names = ("index", "tutorials/ndvi-composite", "reference/settings")
    with browser(str(find_program())) as page:
        for look, (width, scheme) in {
            "light": (1280, "light"),
            "dark": (1280, "dark"),
            "narrow": (390, "light"),
        }.items():
            page.looks(width, scheme)
            for name in names:
                page.open(f"{site_url}/{name}.html")
                page.picture(SCREENSHOTS / f"site-{name.replace('/', '-')}-{look}.png")
                assert page.problems == [], name
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, look)
                assert all(url.startswith((site_url, "data:", "blob:")) for url in page.requested), (
                    page.requested
                )
                color = page.evaluate("getComputedStyle(document.body).backgroundColor")
                brightness = sum(int(v) for v in re.findall(r"\d+", color)[:3])
                assert (brightness < 200) == (scheme == "dark"), (name, color)


class LinkReader(HTMLParser):
    """Reads what a page leads to, and what can be led to in it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links, sources and ids."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def test_all_links_of_the_site_lead_somewhere(site: Path) -> None:
    readers = {}
    for page in site.rglob("*.html"):
        readers[page] = LinkReader()
        readers[page].feed(page.read_text(encoding="utf-8"))
    assert len(readers) > 60
    for page, reader in readers.items():
        for link in reader.links:
            target = urlsplit(link)
            # Paths from the root are those of the page of errors, which may be shown anywhere.
            if target.scheme or target.netloc or target.path.startswith("/") or page.name == "404.html":
                continue
            place = (page.parent / unquote(target.path)).resolve() if target.path else page
            place = place / "index.html" if place.is_dir() else place
            assert place.is_file(), f"{page.relative_to(site)}: {link}"
            if target.fragment and place in readers:
                known = unquote(target.fragment) in readers[place].anchors | {"__skip"}
                assert known, f"{page.relative_to(site)}: {link}"


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"""<(?:script|img|iframe)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*rel=["']?stylesheet[^>]*https?://"""
    )
    for page in site.rglob("*.html"):
        assert not loads.search(page.read_text()), page.name


def test_every_setting_process_and_error_is_listed(site: Path) -> None:
    settings = (site / "reference/settings.html").read_text()
    assert [name for name in Config.model_fields if f"{PREFIX}{name.upper()}<" not in settings] == []
    listed = (site / "reference/process-list.html").read_text()
    assert [id_ for id_ in PROCESSES if f"<code>{id_}</code>" not in listed] == []
    errors = (site / "reference/errors.html").read_text()
    assert "<code>CollectionNotFound</code>" in errors
    assert "ABC" not in errors


def iterate_blocks(*languages: str) -> Iterator[tuple[str, str]]:
    for page in TEXTS:
        for _, language, content in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language in languages:
                yield str(page.relative_to(ROOT)), content


def test_python_is_python() -> None:
    blocks = list(iterate_blocks("python"))
    assert len(blocks) > 20
    for page, content in blocks:
        try:
            ast.parse(textwrap.dedent(content))
        except SyntaxError as error:
            pytest.fail(f"{page}: {error}\n{content}")


def test_data_are_data() -> None:
    for page, content in iterate_blocks("json"):
        assert json.loads(content) is not None, page
    for page, content in iterate_blocks("yaml"):
        assert all(yaml.safe_load_all(content)), page


def test_shells_can_read_commands() -> None:
    blocks = list(iterate_blocks(*SHELLS))
    assert len(blocks) > 25
    for page, content in blocks:
        result = subprocess.run(["bash", "-n", "-c", content], capture_output=True, text=True, check=False)
        assert result.returncode == 0, (page, result.stderr)


@pytest.mark.parametrize(("program", "command"), [("odc-openeo", cli), ("datacube", datacube_cli)])
def test_programs_can_read_command_lines(program: str, command: click.Command) -> None:
    count = 0
    for page, content in iterate_blocks(*SHELLS):
        for words in list_commands(content):
            arguments = find_arguments(words, program)
            if arguments is None:
                continue
            count += 1
            try:
                check_arguments(command, arguments)
            except click.UsageError as error:
                pytest.fail(f"{page}: {shlex.join(words)}: {error.format_message()}")
    assert count > (30 if program == "odc-openeo" else 5)


def test_commands_in_sentences_exist() -> None:
    """`odc-openeo …` in the text: the command is there."""
    for page in TEXTS:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for words in re.findall(r"`odc-openeo ([a-z][^`]*)`", text):
            group: click.Command | None = cli
            for word in re.sub(r"--data-dir \S+", "", words).split():
                if not isinstance(group, click.Group) or not re.fullmatch(r"[a-z-]+", word):
                    break
                group = group.get_command(click.Context(group), word)
                assert group is not None, f"{page.name}: {words}"


@pytest.mark.parametrize(
    "line",
    [
        "odc-openeo serve --hots 0.0.0.0",
        "odc-openeo user add",
        "odc-openeo user make anna",
        "odc-openeo jobs list --state paused",
        "datacube dataset count --product NAME",
        "datacube dataset number my_product",
    ],
)
def test_wrong_command_lines_are_noticed(line: str) -> None:
    (words,) = list_commands(line)
    program = words[0]
    arguments = find_arguments(words, program)
    assert arguments is not None
    with pytest.raises(click.UsageError):
        check_arguments(cli if program == "odc-openeo" else datacube_cli, arguments)


def test_names_of_settings_exist() -> None:
    files = {f"{name}_FILE" for name in list_secrets()}
    known = {f"{PREFIX}{name.upper()}" for name in {*Config.model_fields, *files}}
    name = re.compile(rf"\b{PREFIX}[A-Z0-9_]+\b(?![*<…])")
    for page in PAGES:
        if page.parent.name != "adr":
            # The last one is an example of a name that does not exist.
            names = set(name.findall(page.read_text(encoding="utf-8"))) - known - {f"{PREFIX}PROT"}
            assert {n for n in names if not n.startswith(f"{PREFIX}TEST")} == set(), page.name
