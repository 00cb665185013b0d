"""The commands of indexing/README.md are commands of `datacube`, with options it has; its Python imports."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
from datacube.scripts.cli_app import cli

PAGE = (Path(__file__).parents[2] / "indexing" / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_commands_exist() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("datacube ")]
    assert len(lines) > 10
    for line in lines:
        command: click.Command = cli
        _, *words = shlex.split(line)
        while isinstance(command, click.Group) and words:
            result = command.get_command(click.Context(command), words.pop(0))
            assert result is not None, line
            command = result
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_imports_work() -> None:
    imports = [line for block in blocks("python") for line in block.splitlines() if line.startswith("from ")]
    assert len(imports) > 2
    for line in imports:
        exec(line, {})
