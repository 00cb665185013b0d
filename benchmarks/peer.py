"""openeo-processes-dask beside us: an environment of its own, made once, and a process that runs in it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
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
"""What the extra ``implementations`` asks for without GDAL, which needs a compiler and is never imported."""
SECONDS: Final = 240
"""How long a graph may take."""
LATER: Final = ("xgboost==3.2.0",)
"""Its curves need this, without what that needs for graphics cards."""

CHUNKS: Final = {
    scenes.BOX.product: {"x": 2048, "y": 1024},
    scenes.TILE.product: {"x": 2048, "y": 2048},
    scenes.HEIGHTS.product: {"x": 2048, "y": 2048},
    scenes.WEST.product: {"x": 2048, "y": 2048},
    scenes.EAST.product: {"x": 2048, "y": 2048},
    scenes.YEARS.product: {"x": 128, "y": 64},
}
"""Those of `by_hand`."""


class PeerError(RuntimeError):
    """The environment can't be made, or a graph does not run there."""


def python(cache: Path) -> Path:
    """The Python of the environment in the cache folder, which is made if it is missing."""
    folder = cache / "peer"
    note, wanted = folder / "packages", "\n".join((*PACKAGES, *LATER))
    if not note.exists() or note.read_text() != wanted:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run(*pip, *PACKAGES)
        _run(*pip, "--no-deps", *LATER)
        note.write_text(wanted)
    return folder / "bin" / "python"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError((done.stderr.strip().splitlines() or ["failed"])[-1])


@dataclass(frozen=True)
class Peer:
    """The running process."""

    process: subprocess.Popen[str]
    workers: list[int]

    @property
    def processes(self) -> Processes:
        """Its workers, and the process itself with the scheduler."""
        return Processes(self.workers, [self.process.pid])

    def run(self, graph: dict[str, Any], target: Path, *, integers: bool = False) -> None:
        """Compute a graph into a folder; `PeerError` if that fails."""
        told = self._ask({"graph": graph, "target": str(target), "integers": integers})
        if "error" in told:
            raise PeerError(told["error"])

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        if not ready:
            self.process.kill()
            raise PeerError(f"not done after {SECONDS} s")
        line = self.process.stdout.readline()
        if not line:
            raise PeerError("it ended")
        return json.loads(line)  # type: ignore[no-any-return]


@contextmanager
def peer(cache: Path) -> Iterator[Peer]:
    """Start it with a cluster as large as ours; stop it at the end."""
    command = [str(python(cache)), str(Path(__file__).with_name("peer_side.py"))]
    log = (cache / "peer.log").open("w")
    process = subprocess.Popen(
        command, stdin=PIPE, stdout=PIPE, stderr=log, text=True, cwd=cache, start_new_session=True
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(_setup(cache)) + "\n")
        process.stdin.flush()
        first = process.stdout.readline()
        if not first:
            raise PeerError(f"it does not start, see {log.name}")
        yield Peer(process, json.loads(first)["workers"])
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        # Its pools of processes outlive it if it had to be killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def _setup(cache: Path) -> dict[str, Any]:
    products = {
        found.product: {
            "items": [item.to_dict() for item in by_hand.items(cache, found)],
            "crs": str(found.grid.crs),
            "resolution": found.grid.resolution.x,
            "chunks": CHUNKS[found.product],
        }
        for found in scenes.ALL
    }
    return {"products": products, "workers": 2, "threads": 1}
