"""`python -m tests.chaos`: 60 jobs on 2 workers, three minutes of kills; prints figures.

With `--user-code` the jobs run user-defined functions, and mostly their processes are killed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.storm import UDF_VICTIMS, VICTIMS, report, storm


def main() -> int:
    """Run, print, and say by the status whether all was well."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--user-code", action="store_true")
    given = parser.parse_args()
    # User code is killed more often than other parts.
    victims, pauses = (UDF_VICTIMS, (0.3, 1.2)) if given.user_code else (VICTIMS, (3.0, 7.0))
    folder = Path(tempfile.mkdtemp(prefix="odc-openeo-chaos-"))
    folder.chmod(0o711)
    try:
        outcome = storm(
            folder,
            jobs=given.jobs,
            seconds=given.seconds,
            seed=given.seed,
            say=print,
            victims=victims,
            pauses=pauses,
            user_code=range(given.jobs) if given.user_code else (),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(report(outcome))
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
