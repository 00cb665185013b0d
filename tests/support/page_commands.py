"""Run the commands of a documentation page as its reader would, in order.

A block of `console` is a terminal. Where its last command is a service, the terminal stays open until the
page is done. A block of `text` is the output of the terminal before it, with `...` for anything; a block of
`yaml` that begins with the name of a file is that file; a block of `python` is a program.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVICE = re.compile(r"(odc-openeo (up|serve|worker|dask-worker)|dask scheduler)\b")
ANSWER_SECONDS = 200


@dataclass
class Terminal:
    """A shell that runs, with what it has printed."""

    process: subprocess.Popen[str]
    output: Path

    def read(self) -> str:
        """What it has printed so far."""
        return self.output.read_text()

    def stop(self) -> None:
        """Press Ctrl-C and wait for the end."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


@dataclass
class Reader:
    """Somebody who follows pages in a folder of their own; a context manager that closes the terminals.

    `places` are the placeholders of the pages with what stands for them here; `keys` is typed where a command
    or program asks for a line.
    """

    folder: Path
    environment: Mapping[str, str]
    places: Mapping[str, str] = field(default_factory=dict)
    keys: str = ""
    terminals: list[Terminal] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for terminal in reversed(self.terminals):
            terminal.stop()

    def follow(self, page: Path) -> None:
        """Do what a page says; AssertionError where something is not as it says."""
        last: Terminal | None = None
        for kind, content in read_blocks(page, self.places):
            start = time.monotonic()
            if kind == "yaml":
                self._write_file(content)
            elif kind == "text":
                assert last is not None
                _wait_for_output(last, content)
            elif kind == "console":
                last = self._open_terminal(["bash", "-euo", "pipefail", "-c", content], content)
            elif kind == "python":
                last = self._open_terminal([sys.executable, "-c", content], content)
            step = content.strip().splitlines()[-1 if kind == "console" else 0]
            self.seconds[f"{len(self.seconds)} {step}"] = time.monotonic() - start

    def _write_file(self, content: str) -> None:
        name = re.match(r"# (\S+)\n", content)
        assert name is not None, content
        (self.folder / name[1]).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name[1]).write_text(content)

    def _open_terminal(self, command: list[str], content: str) -> Terminal:
        output = self.folder.with_name(f"{self.folder.name}-{len(self.terminals)}.out")
        with output.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**self.environment},
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                # Without a terminal of ours, passwords are asked for on standard input.
                start_new_session=True,
            )
        terminal = Terminal(process, output)
        self.terminals.append(terminal)
        assert process.stdin is not None
        # A command that asks for nothing may have ended.
        with suppress(BrokenPipeError):
            process.stdin.write(self.keys)
            process.stdin.flush()
        with suppress(BrokenPipeError):
            process.stdin.close()
        if not SERVICE.match(content.strip().splitlines()[-1]):
            assert process.wait(ANSWER_SECONDS) == 0, terminal.read()
        return terminal


def read_blocks(page: Path, places: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Read the blocks of a page, kind and content, with what stands for the placeholders."""
    for kind, content in BLOCK.findall(page.read_text(encoding="utf-8")):
        for place, actual in places.items():
            content = content.replace(place, actual)
        yield kind, content


def _wait_for_output(terminal: Terminal, expected: str) -> None:
    pattern = ".*".join(map(re.escape, expected.strip().split("...")))
    deadline = time.monotonic() + ANSWER_SECONDS
    while not re.search(f"^{pattern}$", terminal.read(), re.MULTILINE | re.DOTALL):
        has_ended = terminal.process.poll() is not None
        assert not has_ended or re.search(f"^{pattern}$", terminal.read(), re.MULTILINE | re.DOTALL), (
            expected,
            terminal.read(),
        )
        assert time.monotonic() < deadline, (expected, terminal.read())
        time.sleep(0.05)
