"""A short storm with a fixed seed; the long one is `python -m tests.chaos`."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.storm import report, storm


def test_a_short_storm(short_folder: Path, samples: Path) -> None:
    outcome = storm(short_folder, jobs=10, seconds=20, seed=2, say=print, samples=samples)
    print(report(outcome))
    assert outcome.good, report(outcome)
    assert sum(outcome.kills.values()) >= 3
    assert outcome.states["finished"] >= 8
