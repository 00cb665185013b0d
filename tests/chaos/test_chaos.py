"""A short storm with a fixed seed; the long ones are `python -m tests.chaos` and its `--user-code`."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.storm import ALL_VICTIMS, VICTIMS, report, storm
from tests.support.sandbox import SANDBOX

JOBS = 6


def test_a_short_storm(short_folder: Path, samples: Path) -> None:
    """Each part of the service is killed once; every other job runs user code where that can run."""
    victims, user_code = (ALL_VICTIMS, range(0, JOBS, 2)) if SANDBOX.is_usable else (VICTIMS, range(0))
    outcome = storm(
        short_folder,
        jobs=JOBS,
        seconds=0,
        seed=2,
        say=print,
        samples=samples,
        victims=victims,
        pauses=(0.5, 1.5),
        user_code=user_code,
        patience=60,
    )
    print(report(outcome))
    assert outcome.good, report(outcome)
    assert set(outcome.kills) == set(victims)
    assert outcome.states["finished"] >= JOBS - 1
