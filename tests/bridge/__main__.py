"""Run the tests of the bridge with another version of xarray: `python -m tests.bridge 2026.7.0`.

The version is installed into a new virtual environment on top of this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make_overlay(folder: Path, version: str) -> Path:
    """Make an environment that sees the packages of this one behind its own xarray; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    packages = subprocess.check_output(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    (Path(packages) / "below.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", f"xarray=={version}"]
    subprocess.run(install, check=True)
    return python


def main(version: str, *options: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        python = make_overlay(Path(folder), version)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        command = [str(python), "-m", "pytest", "-n", "0", "-q", str(Path(__file__).parent), *options]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
