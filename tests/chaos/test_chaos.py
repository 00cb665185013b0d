"""A short storm with a fixed seed; the long one is `python -m tests.chaos`."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.storm import USER_CODE, report, storm
from tests.support.sandbox import needs_sandbox


def test_a_short_storm(short_folder: Path, samples: Path) -> None:
    outcome = storm(short_folder, jobs=10, seconds=20, seed=2, say=print, samples=samples)
    print(report(outcome))
    assert outcome.good, report(outcome)
    assert sum(outcome.kills.values()) >= 3
    assert outcome.states["finished"] >= 8


@needs_sandbox
def test_a_short_storm_of_user_code(short_folder: Path, samples: Path) -> None:
    folder = short_folder / "user-code"
    folder.mkdir()
    outcome = storm(folder, jobs=6, seconds=10, seed=3, say=print, samples=samples, user_code=True)
    print(report(outcome))
    assert outcome.good, report(outcome)
    assert outcome.kills[USER_CODE] >= 3
    assert outcome.kills["dask worker"] >= 1
    assert outcome.states["finished"] == 6
