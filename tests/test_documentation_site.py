"""The documentation site: it builds, loads nothing from elsewhere, and what it shows as code is code."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from odc_openeo.cli import cli
from odc_openeo.config import PREFIX, Config, list_secrets
from odc_openeo.registry.process import PROCESSES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
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
    for notebook in (ROOT / "docs/notebooks").glob("*.ipynb"):
        text = (site / "notebooks" / f"{notebook.stem}.html").read_text()
        assert f"pictures/{notebook.stem}.png" in text
    assert "migrations" not in {path.name for path in site.iterdir()}


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
    for page in [*PAGES, ROOT / "README.md", ROOT / "indexing/README.md"]:
        for _, language, content in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language in languages:
                yield str(page.relative_to(ROOT)), content


def test_python_is_python() -> None:
    blocks = list(iterate_blocks("python"))
    assert len(blocks) > 20
    for page, content in blocks:
        try:
            ast.parse(re.sub(r"^ {0,8}", "", content) if content.startswith(" ") else content)
        except SyntaxError as error:
            pytest.fail(f"{page}: {error}\n{content}")


def test_commands_exist() -> None:
    lines = [
        (page, line)
        for page, text in iterate_blocks("console", "shell", "bash", "sh")
        for line in text.splitlines()
    ]
    calls = [(page, line) for page, line in lines if re.match(r"(\$ )?odc-openeo\s", line.strip())]
    assert len(calls) > 15
    for page, line in calls:
        words = iter(shlex.split(line.strip().removeprefix("$ "), comments=True)[1:])
        name = next((word for word in words if not word.startswith("-")), None)
        assert name is None or name in cli.commands, f"{page}: {line}"


def test_names_of_settings_exist() -> None:
    files = {f"{name}_FILE" for name in list_secrets()}
    known = {f"{PREFIX}{name.upper()}" for name in {*Config.model_fields, *files}}
    name = re.compile(rf"\b{PREFIX}[A-Z0-9_]+\b(?![*<…])")
    for page in PAGES:
        if page.parent.name != "adr":
            # The last one is an example of a name that does not exist.
            names = set(name.findall(page.read_text(encoding="utf-8"))) - known - {f"{PREFIX}PROT"}
            assert {n for n in names if not n.startswith(f"{PREFIX}TEST")} == set(), page.name
