"""Links, file names and function names in the documentation lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "indexing/README.md",
    ROOT / "benchmarks/README.md",
]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")
FILE = re.compile(r"`((?:odc_openeo|indexing|migrations|tests|benchmarks|docs)/[\w/.-]+\.\w+)`")


def list_anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made by hosting services."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def find_broken_links(page: Path) -> Iterator[str]:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        file = (page.parent / target) if target else page
        if not file.exists():
            yield f"{target} does not exist"
        elif anchor and file.suffix == ".md" and anchor not in list_anchors(file):
            yield f"{target or page.name} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_files_exist(page: Path) -> None:
    assert list(find_broken_links(page)) == []
    if page.name != "CHANGELOG.md":
        files = FILE.findall(page.read_text(encoding="utf-8"))
        assert [file for file in files if "*" not in file and not (ROOT / file).exists()] == []


def test_functions_that_the_readme_points_to_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| where is ...") :]
    places = re.findall(r"((?:`@?[\w.]+`(?:,? and |, )?)+) in `([\w/]+\.py)`", table)
    assert len(places) > 6
    for names, file in places:
        code = (ROOT / file).read_text(encoding="utf-8")
        for name in re.findall(r"`@?(?:\w+\.)?(\w+)`", names):
            assert re.search(rf"^\s*(def|class) {name}\b", code, re.MULTILINE), f"{file} has no {name}"
