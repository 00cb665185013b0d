"""The containers that the tests share, and the figures that are printed at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.deployment.engine import FIGURES, KEEP, PASSWORD, USER, Project, find_missing, find_port


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine with Compose; tests are skipped where there is none."""
    missing = find_missing()
    if missing is not None:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def project(engine: None) -> Iterator[Project]:
    """The running service, with the sample scenes and a user.

    With COMPOSE_TEST_PORT its containers are named by that port, and are found by the next run.
    """
    kept = os.environ.get(KEEP)
    project = Project(f"odc-openeo-test-{kept or os.getpid()}", int(kept or find_port()))
    try:
        project.build()
        project.start("healthy, with the sample scenes")
        # A user of an earlier run is there already.
        project.execute(
            "api", "odc-openeo", "user", "add", USER, "--password-stdin", text=PASSWORD, check=not kept
        )
        yield project
    finally:
        if not kept:
            project.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures as a table of Markdown."""
    if FIGURES:
        terminalreporter.section("figures")
        for line in ("| what | measured |", "|---|---|", *(f"| {a} | {b} |" for a, b in FIGURES.items())):
            terminalreporter.write_line(line)
