"""The `openeo` client, signed in to the running stack; packages of Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import openeo
import pytest
from filelock import FileLock

NODE = Path(__file__).parent / "node"
INSTALL = [
    "npm",
    "install",
    "--no-audit",
    "--no-fund",
    "--no-package-lock",
    "--fetch-retries=1",
    "--fetch-timeout=20000",
]


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the packages of Node, installed at the first run."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node and npm are not installed")
    with FileLock(tmp_path_factory.getbasetemp().parent / "node.lock"):
        dependencies = json.loads((NODE / "package.json").read_text())["dependencies"]
        if not all((NODE / "node_modules" / name).is_dir() for name in dependencies):
            done = subprocess.run(INSTALL, cwd=NODE, capture_output=True, text=True, timeout=240, check=False)
            if done.returncode:
                pytest.skip(f"npm cannot install packages here: {done.stderr.strip()[-200:]}")
    return NODE / "node_modules"


@pytest.fixture(scope="session")
def connection(stack: str) -> openeo.Connection:
    """A connection of the demo user."""
    return openeo.connect(stack).authenticate_basic("demo", "demo")
