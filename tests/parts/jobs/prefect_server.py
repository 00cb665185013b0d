"""A real Prefect server with its own home folder, and workers of its pools."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from odc_openeo.config import child_environment
from odc_openeo.stack.embedded import free_port
from tests.parts.jobs.site import PartsSite, Worker

POOL = "parts"


@dataclass
class PrefectSite:
    """The service with parts run by Prefect; ``site`` has the settings for it."""

    site: PartsSite
    environment: Mapping[str, str]

    def start_pool_worker(self) -> Worker:
        """Start a worker of the pool, which runs flow runs in processes."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        output = self.site.folder / f"pool-{uuid4().hex}.log"
        with output.open("w") as file:
            environment = child_environment(self.site.config, **self.site.environment)
            process = subprocess.Popen(
                [*command, "--install-policy", "never"],
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        return Worker(process, output)

    def list_flow_runs(self) -> list[Any]:
        """List all flow runs, the latest first."""
        with self.open_client() as client:
            return client.read_flow_runs()

    def wait_for_states(self, id_: str, *types: str, seconds: float = 90) -> list[Any]:
        """Wait until the flow runs of a job have the types of state, in the order in which they began."""
        deadline = time.monotonic() + seconds
        while True:
            runs = [run for run in self.list_flow_runs() if run.parameters["job_id"] == id_]
            runs.sort(key=lambda run: run.created)
            if [run.state_type.value for run in runs] == [*types]:
                return runs
            assert time.monotonic() < deadline, [(run.state_type, run.state) for run in runs]
            time.sleep(0.3)

    def wait_for_deployment(self, seconds: float = 90) -> Any:
        """Wait until a job worker has made the deployment."""
        from prefect.exceptions import ObjectNotFound

        deadline = time.monotonic() + seconds
        while True:
            try:
                with self.open_client() as client:
                    return client.read_deployment_by_name(f"odc-openeo/{POOL}")
            except ObjectNotFound:
                assert time.monotonic() < deadline
                time.sleep(0.3)

    @contextmanager
    def open_client(self) -> Iterator[Any]:
        """A client of the server."""
        from prefect.client.orchestration import SyncPrefectClient

        with SyncPrefectClient(self.environment["PREFECT_API_URL"]) as client:
            yield client


@contextmanager
def open_prefect(site: PartsSite, folder: Path) -> Iterator[PrefectSite]:
    """Start a server on a free port of this machine."""
    port = str(free_port())
    environment = {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--no-ui"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", port],
            env=child_environment(site.config, **environment),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    worker = Worker(server, folder / "server.log")
    try:
        wait_until_healthy(environment["PREFECT_API_URL"], worker)
        config = site.config.model_copy(update={"jobs": "prefect", "prefect_pool": POOL, "prefect_parts": 1})
        ours = replace(site, config=config, environment={**site.environment, **environment})
        yield PrefectSite(ours, environment)
    finally:
        worker.kill()


def wait_until_healthy(address: str, server: Worker, seconds: float = 120) -> None:
    """Wait until the server responds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        assert time.monotonic() < deadline, server.output.read_text()[-2000:]
        time.sleep(0.3)
