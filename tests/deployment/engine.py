"""The service as containers: built, started and asked through the commands of Docker."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUILD_S, START_S, COMMAND_S = 3600, 900, 300


def find_missing() -> str | None:
    """Say what is missing for containers on this machine; None if there is an engine with Compose."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command, need in ((["info"], "no Docker engine answers"), (["compose", "version"], "no Compose v2")):
        done = subprocess.run(["docker", *command], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            return f"{need}: {(done.stderr or done.stdout).strip()[-200:]}"
    return None


def run_docker(*words: str, timeout: float = COMMAND_S, check: bool = True, **options: Any) -> str:
    """Run a command of Docker; return what it prints."""
    done = subprocess.run(
        ["docker", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(words)}: {done.stderr[-4000:]}\n{done.stdout[-2000:]}")
    return done.stdout


@dataclass
class Project:
    """The services of docker-compose.yml under a name and a port of their own."""

    name: str
    port: int
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *words: str, timeout: float = COMMAND_S, check: bool = True, **options: Any) -> str:
        """Run a command of Compose for this project."""
        environment = {
            **os.environ,
            "ODC_OPENEO_PORT": str(self.port),
            "ODC_OPENEO_PUBLIC_URL": self.url,
            "POSTGRES_PASSWORD": "the-password-of-the-database",
            "ODC_OPENEO_SECRET_KEY": "the-signing-key-of-the-service-and-nobody-else",
        }
        command = ("compose", "--project-name", self.name, "--profile", "samples", *words)
        return run_docker(*command, timeout=timeout, check=check, env=environment, **options)

    def start(self) -> None:
        """Build the images, start all services and wait until they are healthy and have their samples."""
        with self.measure("build"):
            # All services have the same image.
            self.compose("build", "api", timeout=BUILD_S)
        with self.measure("healthy"):
            self.compose("up", "--detach", "--no-build", *self.lasting(), timeout=START_S)
            self.wait_until_healthy()
        with self.measure("samples"):
            self.compose("run", "--rm", "samples", timeout=START_S)

    def wait_until_healthy(self) -> None:
        """Wait until the API answers and all dask workers are there."""
        deadline = time.monotonic() + START_S
        while self.inspect("api")["State"]["Health"]["Status"] != "healthy":
            assert time.monotonic() < deadline, self.compose("logs", "--tail", "20")
            time.sleep(0.5)
        report = ""
        while "2 workers" not in report or "level filters" not in report:
            assert time.monotonic() < deadline, report
            report = self.execute("api", "odc-openeo", "doctor", check=False)

    def lasting(self) -> Sequence[str]:
        """List the services that do not end by themselves."""
        services = json.loads(self.compose("config", "--format", "json"))["services"]
        return [name for name, service in services.items() if service["restart"] != "no"]

    @contextlib.contextmanager
    def measure(self, title: str) -> Iterator[None]:
        """Keep the seconds that something takes."""
        begin = time.monotonic()
        yield
        self.seconds[title] = round(time.monotonic() - begin, 1)

    def execute(self, service: str, *words: str, text: str | None = None, check: bool = True) -> str:
        """Run a command in a container of a service."""
        return self.compose("exec", "--no-TTY", service, *words, input=text, check=check)

    def inspect(self, service: str) -> dict[str, Any]:
        """Describe the first container of a service as the engine sees it."""
        identity = self.compose("ps", "--quiet", service).split()[0]
        (description,) = json.loads(run_docker("inspect", identity))
        assert isinstance(description, dict)
        return description

    def stop(self) -> None:
        """Remove all containers, networks and volumes of the project."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)
