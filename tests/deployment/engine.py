"""The service as containers: built, started and asked through the commands of Docker."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
IMAGE: Final = "odc-openeo"
USER, PASSWORD = "anna", "anna-password"
KEEP: Final = "COMPOSE_TEST_PORT"
"""Variable with the port of containers that stay when a run ends, for the next one."""
BUILD_S, START_S, COMMAND_S = 3600, 900, 300

FIGURES: dict[str, str] = {}
"""What was measured in this run, in order: tests/deployment/conftest.py prints it."""


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


def find_port() -> int:
    """Find a free port that no outgoing connection takes in the minutes until the containers have it."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.closing(socket.socket()) as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def measure(title: str) -> Iterator[None]:
    """Keep the seconds that something takes, with the load of the machine at the end."""
    begin = time.monotonic()
    yield
    FIGURES[title] = f"{time.monotonic() - begin:.1f} s (load {os.getloadavg()[0]:.1f})"


@dataclass
class Project:
    """The services of a compose file under a name and a port of their own."""

    name: str
    port: int
    profiles: tuple[str, ...] = ("samples",)
    files: tuple[Path, ...] = (ROOT / "docker-compose.yml",)
    variables: dict[str, str] = field(default_factory=dict)

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
            # A proxy that ends TLS in front of the package index, if there is one.
            "STACK_CERTIFICATES": os.environ.get("PIP_CERT", "/dev/null"),
            **self.variables,
        }
        profiles = [f"--profile={profile}" for profile in self.profiles]
        files = [f"--file={path}" for path in self.files]
        command = (
            "compose",
            f"--project-name={self.name}",
            "--env-file=/dev/null",
            *files,
            *profiles,
            *words,
        )
        return run_docker(*command, timeout=timeout, check=check, env=environment, **options)

    def build(self, title: str = "build") -> None:
        """Build the image of the services, which all have the same."""
        with measure(title):
            self.compose("build", "secrets", timeout=BUILD_S)
        (size,) = (image["Size"] for image in json.loads(run_docker("image", "inspect", IMAGE)))
        FIGURES["image"] = f"{size / 1e9:.2f} GB"

    def start(self, title: str = "healthy") -> None:
        """Start all services, and wait until they are healthy and have their samples."""
        with measure(title):
            self.compose("up", "--detach", "--no-build", "--wait", timeout=START_S)

    def wait_until_healthy(self) -> None:
        """Wait until every container that runs says that it is healthy, and none is missing."""
        deadline = time.monotonic() + START_S
        states: dict[str, str] = {}
        while not states or set(states.values()) != {"healthy"}:
            assert time.monotonic() < deadline, (states, self.compose("logs", "--tail", "20"))
            time.sleep(0.5)
            states = self.list_states()

    def give_samples(self, folder: Path) -> None:
        """Copy sample scenes into the volume of the data, where they would be made otherwise."""
        self.compose("create", "--no-build", "samples", timeout=START_S)
        volumes = (f"--volume={self.name}_data:/data", f"--volume={folder}:/given:ro")
        script = "cp -r /given /data/samples && chown -R 1000 /data"
        run_docker("run", "--rm", "--user=0", *volumes, IMAGE, "sh", "-c", script, timeout=START_S)

    def wait_until(self, service: str, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait for a state of the first container of a service, for versions without `--wait`."""
        deadline = time.monotonic() + START_S
        while not condition(self.inspect(service)["State"]):
            assert time.monotonic() < deadline, self.compose("logs", "--tail", "20")
            time.sleep(0.5)

    def list_states(self) -> dict[str, str]:
        """Return the health of each container that should run, or its state if it does not."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        containers = [json.loads(line) for line in lines if line.strip()]
        return {
            container["Name"]: container["Health"] or container["State"]
            for container in containers
            if container["ExitCode"] or container["State"] != "exited"
        }

    def execute(self, service: str, *words: str, text: str | None = None, check: bool = True) -> str:
        """Run a command in a container of a service."""
        return self.compose("exec", "--no-TTY", service, *words, input=text, check=check)

    def kill(self, service: str) -> None:
        """Kill all processes of its first container as an accident would; wait until the engine starts it."""
        container = self.inspect(service)
        user = ("--user=postgres",) if service == "postgres" else ()
        run_docker("exec", *user, container["Id"], "sh", "-c", "kill -9 -1", check=False)
        deadline = time.monotonic() + COMMAND_S
        while True:
            (state,) = json.loads(run_docker("inspect", container["Id"]))
            if state["RestartCount"] > container["RestartCount"]:
                return
            assert time.monotonic() < deadline, state["State"]
            time.sleep(0.2)

    def inspect(self, service: str) -> dict[str, Any]:
        """Describe the first container of a service as the engine sees it."""
        identity = self.compose("ps", "--all", "--quiet", service).split()[0]
        (description,) = json.loads(run_docker("inspect", identity))
        assert isinstance(description, dict)
        return description

    def stop(self) -> None:
        """Remove all containers, networks and volumes of the project."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)

    def list_left(self) -> dict[str, list[str]]:
        """Return the names of what is still there of the project, by kind."""
        label = f"label=com.docker.compose.project={self.name}"
        kinds = {
            "containers": ("ps", "--all", "--format={{.Names}}"),
            "volumes": ("volume", "ls", "--format={{.Name}}"),
            "networks": ("network", "ls", "--format={{.Name}}"),
        }
        return {kind: run_docker(*words, f"--filter={label}").split() for kind, words in kinds.items()}
