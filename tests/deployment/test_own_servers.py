"""A Debian machine with systemd, on which an operator follows docs/own-servers.md.

Started by `make compose-test` only, as an image is built and packages are installed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.deployment.engine import BUILD_S, ROOT, START_S, measure, run_docker
from tests.support.page_commands import read_blocks
from tests.support.waiting import wait_for
from tests.test_first_day import check_result, write_data

pytestmark = pytest.mark.compose

PAGE = ROOT / "docs" / "own-servers.md"
FIRST_DAY = ROOT / "docs" / "first-day" / "own-servers.md"
PASSWORDS = {"--pwprompt": "secret", "user add": "correct horse"}
"""What is typed where a command asks for a new password; the first one is in the settings of the page."""
DATA, CLIENT = "/srv/imagery", "/opt/client"
PLACES = {
    "https://openeo.example.org": "http://127.0.0.1:8080",
    "my_product": "fields",
}
# The file for pip is that of a network with a package index of its own, where the project is not published.
DEBIAN = """
FROM debian:trixie-slim
RUN apt-get update && apt-get install --yes --no-install-recommends \\
    ca-certificates curl dbus openssl python3 python3-venv sudo systemd systemd-sysv
RUN echo 'APT::Get::Assume-Yes "true";' > /etc/apt/apt.conf.d/assume-yes \\
    && printf '[global]\\nfind-links = /wheels\\nconstraint = /repo/requirements.lock\\n' > /etc/pip.conf
STOPSIGNAL SIGRTMIN+3
CMD ["/sbin/init"]
"""
SYSTEMD = (
    *("--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
    *("--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"),
)
"""What systemd needs to be the first process of a container and to close off services."""

SERVICES = (
    "api",
    "worker@1",
    "worker@2",
    "worker@3",
    "dask-scheduler",
    *(f"dask-worker@{n}" for n in (1, 2, 3)),
)


@dataclass(frozen=True)
class Machine:
    """A container with systemd, as a machine."""

    name: str

    def run(self, script: str, typed: str = "", seconds: float = BUILD_S) -> str:
        """Run commands as root in the folder of the imagery; what is typed answers all questions."""
        words = ("exec", "--interactive", f"--workdir={DATA}", self.name, "bash", "-euo", "pipefail", "-c")
        return run_docker(*words, f"exec 2>&1; {script}", input=typed, timeout=seconds)

    def wait_until_started(self) -> None:
        """Wait until systemd has started everything."""
        states, command = ("running", "degraded"), "systemctl is-system-running || true"
        wait_for(lambda: self.run(command).strip() in states, START_S)


@pytest.fixture(scope="module")
def machine(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """An empty machine, with the package where pip finds it."""
    wheels = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={wheels}", str(ROOT)]
    subprocess.run(build, check=True, timeout=BUILD_S)
    name = f"odc-openeo-machine-{os.getpid()}"
    run_docker("build", "--tag", name, "-", input=DEBIAN, timeout=BUILD_S)
    certificates = os.environ.get("PIP_CERT")
    given = (
        (f"--volume={certificates}:/certificates:ro", "--env=PIP_CERT=/certificates") if certificates else ()
    )
    folders = (
        f"--volume={ROOT}:/repo:ro",
        f"--volume={ROOT / 'deploy'}:{DATA}/deploy:ro",
        f"--volume={wheels}:/wheels:ro",
        "--tmpfs=/run",
        "--tmpfs=/tmp",
    )
    try:
        run_docker("run", "--detach", f"--name={name}", *SYSTEMD, *folders, *given, name)
        made = Machine(name)
        made.wait_until_started()
        if certificates:
            made.run("sed -i '$ a cert = /certificates' /etc/pip.conf")
        yield made
    finally:
        run_docker("rm", "--force", "--volumes", name, check=False)
        run_docker("image", "rm", name, check=False)


def follow_page(machine: Machine) -> None:
    """Do what the page says, block by block."""
    for kind, content in read_blocks(PAGE, PLACES):
        if kind == "sh":
            machine.run(
                "install --mode=640 --group=odc-openeo /dev/stdin /etc/odc-openeo/environment", content
            )
        elif kind == "console":
            print(content, machine.run(prepare_commands(content)), sep="\n")


def prepare_commands(content: str) -> str:
    """Answer the commands that ask for a password twice, and end the worker that would run in a terminal."""
    for words, password in PASSWORDS.items():
        answers = shlex.quote(f"{password}\n{password}")
        content = re.sub(rf"^(.*{words} .*)$", rf"\1 <<< {answers}", content, flags=re.M)
    return re.sub(r"^(\S*odc-openeo dask-worker .*)$", r"timeout -s INT 20 \1 || true", content, flags=re.M)


def test_the_page_leads_to_a_service(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "imagery").mkdir()
    bands = write_data(tmp_path / "imagery")
    run_docker("cp", f"{tmp_path}/imagery/.", f"{machine.name}:{DATA}")
    with measure("own servers: all commands of the page"):
        follow_page(machine)
    check_services(machine)
    machine.run(f"python3 -m venv {CLIENT} && {CLIENT}/bin/pip install --quiet openeo")
    check_job(machine, bands, tmp_path / "first")
    run_docker("restart", machine.name, timeout=START_S)
    with measure("own servers: ready after the machine was started again"):
        wait_until_ready(machine)
    check_services(machine)
    check_job(machine, bands, tmp_path / "second")


def check_services(machine: Machine) -> None:
    """All units run that the page starts."""
    for service in SERVICES:
        state = machine.run(f"systemctl is-active odc-openeo-{service} || true").strip()
        assert state == "active", machine.run(f"journalctl --no-pager -n 30 -u odc-openeo-{service}")


def check_job(machine: Machine, bands: dict[str, np.ndarray], folder: Path) -> None:
    """Run the program of the first day, a batch job, as any user of the machine; compare its result."""
    (program,) = (content for kind, content in read_blocks(FIRST_DAY, PLACES) if kind == "python")
    python = f"cd /tmp && sudo -u nobody env HOME=/tmp {CLIENT}/bin/python -c {shlex.quote(program)}"
    machine.run(f"rm -f /tmp/ndvi.tif; {python}", f"{PASSWORDS['user add']}\n")
    folder.mkdir()
    # What is in a tmpfs cannot be copied.
    machine.run("cp /tmp/ndvi.tif /srv/ndvi.tif")
    run_docker("cp", f"{machine.name}:/srv/ndvi.tif", str(folder))
    check_result(folder, bands)


def wait_until_ready(machine: Machine) -> None:
    """Wait until the service says that it is ready."""
    command = "curl -s -o /dev/null -w '%{http_code}' 127.0.0.1:8080/health/ready || true"
    wait_for(lambda: "200" in machine.run(command), START_S)
