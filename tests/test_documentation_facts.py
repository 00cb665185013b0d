"""What the documentation says in numbers and lists is what the code has."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import odc_openeo.processes  # noqa: F401  (registers them)
from odc_openeo.api.capabilities import CONFORMS_TO
from odc_openeo.registry.process import PROCESSES
from tests.conformance import vectors

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROW = re.compile(
    r"^\| `(\w+)` \| (stable|proposal|client|published graphs)[^|]* \| (?:(\d+) of (\d+)|–) \|", re.M
)


def read_page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_table_of_processes_has_each_once() -> None:
    page = read_page("processes.md")
    names = [row[0] for row in ROW.findall(page)]
    assert sorted(names) == sorted(PROCESSES)
    assert re.findall(r"lists (\d+) processes", page) == [str(len(PROCESSES))]


def test_the_numbers_of_vectors_agree() -> None:
    page = read_page("processes.md")
    rows = {name: (int(passed), int(total)) for name, _, passed, total in ROW.findall(page) if total}
    passed, total = (sum(counts) for counts in zip(*rows.values(), strict=True))
    assert f"{passed} of {total}, each eagerly" in page
    assert f"{passed} of {total} pass" in read_page("conformance.md")


@pytest.mark.skipif(not vectors.DEFAULT.is_dir(), reason=f"no test vectors at {vectors.DEFAULT}")
def test_the_table_counts_the_official_vectors() -> None:
    counts = Counter(case.process for case in vectors.cases(vectors.DEFAULT))
    rows = {name: int(total) for name, _, _, total in ROW.findall(read_page("processes.md")) if total}
    assert rows == dict(counts)


def test_conformance_classes_are_listed() -> None:
    listed = re.findall(r"^\| [^|]+ \| `(https?://[^`]+)` \|$", read_page("conformance.md"), re.MULTILINE)
    assert listed == list(CONFORMS_TO)
