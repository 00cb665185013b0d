"""Hostile user code gets nothing, at each level of the sandbox, whoever the service runs as."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import odc_openeo
from odc_openeo.config import child_environment
from odc_openeo.udf.child import landlock
from tests.support.ordinary_user import find_python_of_all
from tests.udf.escapes import ATTEMPTS, LAX

ROOT = Path(odc_openeo.__file__).parents[1]
PACKAGES = Path(np.__file__).parents[1]
SECONDS = 900
"""The attempts take two minutes where nothing else runs."""

pytestmark = pytest.mark.timeout(SECONDS + 60)
CASES = [
    pytest.param(("filters", "same"), id="filters-same-user"),
    pytest.param(("filters", "other"), id="filters-root-with-other-user"),
    pytest.param(("filters", "ordinary"), id="filters-ordinary-user"),
    pytest.param(("namespaces", "same"), id="namespaces-same-user"),
    pytest.param(("namespaces", "ordinary"), id="namespaces-ordinary-user"),
]


@pytest.fixture(scope="module", params=CASES)
def result(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What became of all attempts at one level, as one user."""
    level, user = request.param
    python = sys.executable if user == "same" else find_python_of_all([ROOT / "odc_openeo", PACKAGES])
    if not landlock.find_version():
        pytest.skip("this kernel has no Landlock")
    if level == "namespaces" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    if user != "same" and (os.geteuid() != 0 or python is None):
        pytest.skip("needs root, and a Python, packages and a clone that other users can reach")
    with tempfile.TemporaryDirectory() as folder:
        yield run_attempts(level, user, python or "", Path(folder))


def run_attempts(level: str, user: str, python: str, folder: Path) -> dict[str, Any]:
    """Run the attempts in a process of their own."""
    options: dict[str, Any] = {}
    path = os.pathsep.join(map(str, (ROOT, PACKAGES)))
    ours = sys.executable
    if user == "ordinary":
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        ours = python
    command = [
        "-B",
        "-m",
        "tests.udf.attempt_escapes",
        level,
        python,
        "" if user == "same" else str(PACKAGES),
    ]
    done = subprocess.run(
        [ours, *command, str(folder)],
        cwd=ROOT,
        env=child_environment(PYTHONPATH=path, HOME="/"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        **options,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout)
    if result["level"] != level:
        pytest.skip(f"this machine does not reach the level: {result['reason']}")
    return result


@pytest.mark.parametrize("name", ATTEMPTS)
def test_user_code_does_not_escape(result: dict[str, Any], name: str) -> None:
    outcome = result["outcomes"][name]
    assert outcome["got"] == []
    if outcome["error"] is not None or ATTEMPTS[name].errors:
        assert outcome["error"] in ATTEMPTS[name].errors, outcome["message"]
    assert outcome["well"]


def test_nothing_is_changed_or_left(result: dict[str, Any]) -> None:
    assert result["unchanged"]
    assert result["left"] == {"processes": [], "folders": []}


def test_attempts_succeed_without_a_sandbox(result: dict[str, Any]) -> None:
    assert {name: count > 0 for name, count in result["lax"].items()} == dict.fromkeys(LAX, True)
