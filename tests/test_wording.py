"""Phrases that a native reader stumbles over do not occur in code, pages and documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PHRASES = {
    r"(?<!there )\b(?:is|are) no (?:JSON|STAC|CRS|GeoJSON|netCDF|GeoTIFF)\b": "is not valid X",
    r"(?<!there )\b(?:is|are) no (?:numbers?|token|role|text|instants?)\b": "is not a number",
    r"\b(?:can't|cannot|can not) be told\b": "could not be determined",
    r"\btold (?:apart|by|of|what|where|that)\b": "declared, reported, known",
    r"\bso many (?:pixels|rows|columns|days|seconds|bytes|dates)\b": "a number of",
    r"\bbe it that\b": "even if",
    r"\bbeyond doubt\b": "certainly",
    r"\bhave no way\b": "cannot",
    r"\b(?:database|worker|workers|scheduler|cluster|catalogue) (?:is|are) away\b": "unavailable",
    r"\bone [a-z]+ a (?:user|element|probability|probabilities|date|band)\b": "one X per Y",
    r"\bfound (?:out )?nowhere\b": "not found",
}
"""What not to write, with better words."""


def list_texts() -> Iterator[Path]:
    for folder, pattern in (
        ("odc_openeo", "**/*.py"),
        ("odc_openeo", "**/*.html"),
        ("openeo_xarray", "**/*.py"),
        ("openeo_xarray", "**/*.md"),
        ("indexing", "**/*.py"),
        ("indexing", "**/*.md"),
        ("docs", "**/*.md"),
        (".", "*.md"),
    ):
        yield from (ROOT / folder).glob(pattern)


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrase_does_not_occur(phrase: str) -> None:
    pattern = re.compile(phrase, re.IGNORECASE)
    places = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}; better: {PHRASES[phrase]}"
        for path in list_texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if path.name != "CHANGELOG.md" and (match := pattern.search(line))
    ]
    assert places == []


def list_docstring_starts() -> Iterator[tuple[str, str]]:
    for path in list_texts():
        if path.suffix == ".py":
            text = path.read_text(encoding="utf-8")
            for match in re.finditer(r'^\s*"""(What|The same)\b.*', text, re.MULTILINE):
                yield str(path.relative_to(ROOT)), match[0].strip()


def test_docstrings_begin_with_what_it_does_or_is() -> None:
    assert list(list_docstring_starts()) == []
