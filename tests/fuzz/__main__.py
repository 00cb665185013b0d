"""``python -m tests.fuzz graphs|files|requests --cases N --seed S``: a long run; prints figures."""

from __future__ import annotations

import argparse
import importlib
import sys

SAMPLE = 40
"""One of so many graphs is sent to a running service as well."""


def main() -> int:
    """Run one kind; the exit status is 1 if a case ended in a server error or a hang."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("kind", choices=["graphs", "files", "requests"])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    fuzz = importlib.import_module(f"tests.fuzz.{options.kind}")
    reports = [fuzz.run(options.cases, options.seed)]
    print(reports[0], flush=True)
    if options.kind == "graphs":
        sample = importlib.import_module("tests.fuzz.graphs_over_http")
        reports.append(sample.run(max(options.cases // SAMPLE, 1), options.seed))
        print(reports[1])
    return 0 if all(report.passed for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
