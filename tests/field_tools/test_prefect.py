"""The tests of the Prefect executor, with a Prefect that is not installed beside the other tests."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec

import pytest

from tests.field_tools.conftest import ROOT, find_python

TESTS = ("tests/parts/jobs/test_prefect.py", "tests/parts/jobs/test_executors.py")


@pytest.mark.skipif(
    find_spec("prefect") is not None, reason="Prefect is installed beside the tests: they ran"
)
@pytest.mark.timeout(900)
def test_parts_run_as_tasks_of_prefect() -> None:
    python = find_python(".venv-prefect")
    # Its first run compiles the packages of Prefect.
    command = [
        str(python),
        "-m",
        "pytest",
        "-n",
        "0",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "prefect",
        *TESTS,
    ]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    paths = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment | paths, capture_output=True, text=True, timeout=850, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout.splitlines()[-1], done.stdout[-2000:]
