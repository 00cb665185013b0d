"""A short run of damaged files; `python -m tests.fuzz files` is the long one."""

from __future__ import annotations

from tests.fuzz import files
from tests.fuzz.trials import Report


def test_sound_files_are_read() -> None:
    report = files.run_cases(Report("sound", 0), files.read_sound_files().items())
    assert report.passed, str(report)
    assert report.refused == 0, str(report)


def test_damaged_files() -> None:
    report = files.run(100, seed=12)
    assert report.passed, str(report)
    assert report.refused > 40
