"""What runs of containers share: they need an engine, and their figures are printed at the end."""

from __future__ import annotations

import pytest

from tests.deployment.engine import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures as a table of Markdown."""
    if FIGURES:
        terminalreporter.section("figures")
        for line in ("| what | measured |", "|---|---|", *(f"| {a} | {b} |" for a, b in FIGURES.items())):
            terminalreporter.write_line(line)
