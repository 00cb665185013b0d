"""The JavaScript client in Node against the running stack, from signing in to deleting a job."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.process import PROCESSES
from tests.clients.conftest import NODE


@pytest.fixture(scope="module")
def told(node_modules: Path, stack: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script in `node/client.mjs` saw."""
    command = ["node", "client.mjs", stack, str(tmp_path_factory.mktemp("js"))]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_discovery(told: dict[str, Any]) -> None:
    assert told["version"] == "1.3.0"
    assert "s2_l2a_sample" in told["collections"]
    assert set(told["dimensions"]) == {"x", "y", "t", "bands"}
    assert told["processes"] == len(PROCESSES), "it takes the first page for all processes"
    assert {"GTIFF", "NETCDF", "JSON"} <= set(told["formats"])
    assert "create_job_parameters" in told["parameters"]


def test_signing_in(told: dict[str, Any]) -> None:
    assert (told["anonymous"], told["wrong"]) == ("AuthenticationRequired", "CredentialsInvalid")
    assert told["name"] == "demo"


def test_results_at_once(told: dict[str, Any]) -> None:
    assert (told["valid"], told["faults"], told["result"]) == ([], 1, 3)


def test_a_job_from_its_making_to_its_end(told: dict[str, Any]) -> None:
    assert (told["title"], told["status"], told["downloaded"]) == ("Changed", "finished", 3)
    assert told["size"] > 0
    assert told["assets"] == ["result.json"]
    assert told["logs"]
    assert told["listed"]
    assert told["deleted"] == "JobNotFound"


def test_stored_processes(told: dict[str, Any]) -> None:
    assert (told["summary"], told["replaced"]) == ("A sum", "Another")
    assert set(told["stored"]) - set(told["storedAfter"]) == {"js_sum"}


def test_services(told: dict[str, Any]) -> None:
    assert (told["service"], told["serviceTitle"], told["services"]) == ("XYZ", "Changed", True)
    assert told["serviceAfter"] == "ServiceNotFound"


def test_files(told: dict[str, Any]) -> None:
    assert told["copy"] == "from JavaScript"
    assert set(told["files"]) - set(told["filesAfter"]) == {"js/ä b.txt"}
