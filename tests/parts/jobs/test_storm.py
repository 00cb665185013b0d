"""A short storm with a fixed seed; the long one is `python -m tests.parts.storm`."""

from __future__ import annotations

from pathlib import Path

from tests.parts.storm import run_storm


def test_a_short_storm_of_parts(short_folder: Path) -> None:
    folder = short_folder / "storm-of-parts"
    folder.mkdir()
    outcome = run_storm(folder, 8, 5, shape=(1536, 1536), pauses=(0.3, 1.5), stop_s=1)
    print(outcome.report())
    assert outcome.good, outcome.report()
    assert outcome.kills
