"""The units for systemd: they are valid, and what they start exists."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from odc_openeo.cli import cli

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("odc-openeo*"))


def list_commands(unit: Path) -> list[list[str]]:
    lines = unit.read_text().splitlines()
    return [shlex.split(line.partition("=")[2]) for line in lines if line.startswith("ExecStart")]


def test_commands_exist() -> None:
    commands = [command for unit in UNITS for command in list_commands(unit)]
    assert len(commands) == 5
    for program, name, *_ in commands:
        assert Path(program).parent == Path("/opt/odc-openeo/bin")
        assert name in (cli.commands if program.endswith("odc-openeo") else {"scheduler"})


def test_everything_is_started_together() -> None:
    target = next(unit for unit in UNITS if unit.suffix == ".target").read_text()
    for unit in UNITS:
        if unit.suffix == ".service":
            assert unit.name.replace("@.", "@1.") in target
            assert "PartOf=odc-openeo.target" in unit.read_text()
        if "@" in unit.name:
            # What is enabled by its number starts with the machine.
            assert "[Install]\nWantedBy=odc-openeo.target" in unit.read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_units_are_valid(tmp_path: Path) -> None:
    # Verification looks for the programs, which are those of this environment here.
    binaries = Path(sys.executable).parent
    for unit in UNITS:
        text = unit.read_text().replace("/opt/odc-openeo/bin", str(binaries))
        (tmp_path / unit.name.replace("@.", "@1.")).write_text(text)
    units = [str(path) for path in tmp_path.iterdir()]
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in result.stderr.splitlines() if "odc-openeo" in line]
    assert not ours, result.stderr
