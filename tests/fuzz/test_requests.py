"""A short run of odd requests; `python -m tests.fuzz requests` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz import requests


def test_odd_requests(odc_database: str, tmp_path: Path) -> None:
    report = requests.run_cases(requests.make_site(odc_database, tmp_path), 200, seed=12)
    assert report.passed, str(report)
    # Both sound and odd requests were made.
    assert 50 < report.refused < report.cases - 25
