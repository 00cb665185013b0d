"""openeo-processes-dask for comparison: a separate environment, created once, and a process in it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final

from benchmarks import by_hand, scenes
from benchmarks.measure import Processes

PACKAGES: Final = (
    "openeo-processes-dask==2026.9.1",
    "openeo-pg-parser-networkx==2026.3.3",
    "dask[array,dataframe,distributed]==2026.8.0",
    "distributed==2026.8.0",
    "dask-geopandas==0.5.0",
    "geopandas",
    "imagecodecs",
    "joblib",
    "numpy==2.4.6",
    "odc-geo==0.5.3",
    "odc-loader==0.6.5",
    "odc-stac==0.5.3",
    "planetary_computer",
    "pystac==1.15.2",
    "pystac_client",
    "rasterio==1.4.4",
    "rioxarray",
    "stac_validator",
    "tifffile",
    "xarray==2026.9.0",
    "xvec==0.2.0",
)
"""Requirements of the extra ``implementations`` except GDAL, which needs a compiler and is not imported."""
SECONDS: Final = 240
"""Maximum time of a graph."""
LATER: Final = ("xgboost==3.2.0",)
"""Needed for its curves; installed without dependencies, which are for graphics cards."""

CHUNKS: Final = {
    scenes.BOX.product: {"x": 2048, "y": 1024},
    scenes.TILE.product: {"x": 2048, "y": 2048},
    scenes.HEIGHTS.product: {"x": 2048, "y": 2048},
    scenes.WEST.product: {"x": 2048, "y": 2048},
    scenes.EAST.product: {"x": 2048, "y": 2048},
    scenes.YEARS.product: {"x": 128, "y": 64},
}
"""The chunks of `by_hand`."""


class PeerError(RuntimeError):
    """The environment cannot be created, or a graph does not run there."""


def prepare_python(cache: Path) -> Path:
    """Return the Python of the environment in the cache folder, which is created if it is missing."""
    folder = cache / "peer"
    note, requirements = folder / "packages", "\n".join((*PACKAGES, *LATER))
    if not note.exists() or note.read_text() != requirements:
        _run_command(sys.executable, "-m", "venv", "--clear", str(folder))
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run_command(*pip, *PACKAGES)
        _run_command(*pip, "--no-deps", *LATER)
        note.write_text(requirements)
    return folder / "bin" / "python"


def _run_command(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError((done.stderr.strip().splitlines() or ["failed"])[-1])


@dataclass(frozen=True)
class Peer:
    """The running process."""

    process: subprocess.Popen[str]
    workers: list[int]
    seconds: float = SECONDS

    @property
    def processes(self) -> Processes:
        """The workers, and the process itself, which includes the scheduler."""
        return Processes(self.workers, [self.process.pid])

    def run(self, graph: dict[str, Any], target: Path, *, integers: bool = False) -> None:
        """Compute a graph into a folder; `PeerError` if that fails."""
        reply = self._ask({"graph": graph, "target": str(target), "integers": integers})
        if "error" in reply:
            raise PeerError(reply["error"])

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], self.seconds)
        if not ready:
            self.process.kill()
            raise PeerError(f"not done after {self.seconds} s")
        line = self.process.stdout.readline()
        if not line:
            raise PeerError("the process ended")
        return json.loads(line)  # type: ignore[no-any-return]


@contextmanager
def start_peer(
    cache: Path,
    products: Sequence[scenes.Scenes] = scenes.ALL,
    chunks: Mapping[str, dict[str, int]] = CHUNKS,
    seconds: float = SECONDS,
) -> Iterator[Peer]:
    """Start the peer with a cluster as large as ours; stop it at the end."""
    command = [str(prepare_python(cache)), str(Path(__file__).with_name("peer_side.py"))]
    log = (cache / "peer.log").open("w")
    process = subprocess.Popen(
        command, stdin=PIPE, stdout=PIPE, stderr=log, text=True, cwd=cache, start_new_session=True
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(_describe_setup(cache, products, chunks)) + "\n")
        process.stdin.flush()
        first = process.stdout.readline()
        if not first:
            raise PeerError(f"it did not start, see {log.name}")
        yield Peer(process, json.loads(first)["workers"], seconds)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        # Its process pools outlive it if it had to be killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def _describe_setup(
    cache: Path, scene_sets: Sequence[scenes.Scenes], chunks: Mapping[str, dict[str, int]]
) -> dict[str, Any]:
    products = {
        scene_set.product: {
            "items": [item.to_dict() for item in by_hand.make_items(cache, scene_set)],
            "crs": str(scene_set.grid.crs),
            "resolution": scene_set.grid.resolution.x,
            "chunks": chunks[scene_set.product],
        }
        for scene_set in scene_sets
    }
    return {"products": products, "workers": 2, "threads": 1}
