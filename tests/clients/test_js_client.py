"""The JavaScript client in Node against the running stack, from signing in to deleting a job."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.registry.process import PROCESSES
from tests.clients.conftest import NODE


@pytest.fixture(scope="module")
def report(node_modules: Path, stack: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script in `node/client.mjs` saw."""
    command = ["node", "client.mjs", stack, str(tmp_path_factory.mktemp("js"))]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_discovery(report: dict[str, Any]) -> None:
    assert report["version"] == "1.3.0"
    assert "s2_l2a_sample" in report["collections"]
    assert set(report["dimensions"]) == {"x", "y", "t", "bands"}
    assert report["processes"] == len(PROCESSES), "it takes the first page for all processes"
    assert {"GTIFF", "NETCDF", "JSON"} <= set(report["formats"])
    assert "create_job_parameters" in report["parameters"]


def test_signing_in(report: dict[str, Any]) -> None:
    assert (report["anonymous"], report["wrong"]) == ("AuthenticationRequired", "CredentialsInvalid")
    assert report["name"] == "demo"


def test_results_at_once(report: dict[str, Any]) -> None:
    assert (report["valid"], report["faults"], report["result"]) == ([], 1, 3)


def test_a_job_from_its_making_to_its_end(report: dict[str, Any]) -> None:
    assert (report["title"], report["status"], report["downloaded"]) == ("Changed", "finished", 3)
    assert report["size"] > 0
    assert report["assets"] == ["result.json"]
    assert report["logs"]
    assert report["listed"]
    assert report["deleted"] == "JobNotFound"


def test_stored_processes(report: dict[str, Any]) -> None:
    assert (report["summary"], report["replaced"]) == ("A sum", "Another")
    assert set(report["stored"]) - set(report["storedAfter"]) == {"js_sum"}


def test_services(report: dict[str, Any]) -> None:
    assert (report["service"], report["serviceTitle"], report["services"]) == ("XYZ", "Changed", True)
    assert report["serviceAfter"] == "ServiceNotFound"


def test_files(report: dict[str, Any]) -> None:
    assert report["copy"] == "from JavaScript"
    assert set(report["files"]) - set(report["filesAfter"]) == {"js/ä b.txt"}
