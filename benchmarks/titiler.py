"""titiler-openeo for comparison: its server in a separate environment, created once, on our STAC API."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests

from benchmarks.graphs import (
    CLOUDS,
    Graph,
    make_box,
    make_child,
    make_node,
    make_parameter,
    make_reducer,
    make_ref,
)
from benchmarks.measure import Processes
from benchmarks.scenes import Scenes
from odc_openeo.stack.embedded import free_port

PACKAGES: Final = ("titiler-openeo==0.19.0", "uvicorn==0.54.0")
USER: Final = base64.b64encode(b"bench:bench").decode()
SECONDS: Final = 3600
"""Maximum time of a graph."""
HTTP_SETTINGS: Final = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "VSI_CACHE": "TRUE",
}
"""What its documentation recommends for GDAL."""


class TitilerError(RuntimeError):
    """The environment cannot be created, or a graph does not run there."""


@dataclass(frozen=True)
class Titiler:
    """The running server."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def processes(self) -> Processes:
        """The server, which computes in its threads."""
        return Processes([self.process.pid])

    def run(self, graph: Graph, target: Path) -> None:
        """Compute a graph by ``POST /result``; the response becomes the file ``result`` in the folder."""
        answer = requests.post(
            f"{self.url}/result",
            json={"process": {"process_graph": graph}},
            headers={"Authorization": f"Bearer basic//{USER}"},
            timeout=SECONDS,
        )
        if answer.status_code != 200:
            raise TitilerError(f"{answer.status_code} {answer.text[:300]}")
        (target / "result").write_bytes(answer.content)


def monthly_medians(scenes: Scenes, bands: Sequence[str]) -> Graph:
    """Monthly medians without clouds in the processes of titiler-openeo.

    It has no ``filter_bands`` and no ``aggregate_temporal_period``, and joins values in pairs.
    """

    def load(*names: str) -> dict[str, Any]:
        size = {"width": scenes.grid.shape.x, "height": scenes.grid.shape.y}
        return make_node(
            "load_collection",
            id=scenes.product,
            spatial_extent=make_box(scenes.grid),
            temporal_extent=["2022-01-01T00:00:00Z", "2023-01-01T00:00:00Z"],
            bands=list(names),
            **size,
        )

    is_class = {f"is{value}": make_node("eq", x=make_ref("scl"), y=value) for value in CLOUDS}
    is_class["a"] = make_node("or", x=make_ref("is3"), y=make_ref("is8"))
    is_class["b"] = make_node("or", x=make_ref("is9"), y=make_ref("is10"))
    first = make_node("array_element", data=make_parameter("data"), index=0)
    cloudy = make_child(scl=first, **is_class, last=make_node("or", x=make_ref("a"), y=make_ref("b")))
    starts = [f"2022-{month:02}-01T00:00:00Z" for month in range(1, 13)] + ["2023-01-01T00:00:00Z"]
    saved = make_node("save_result", data=make_ref("median"), format="GTiff")
    return {
        "ten": load(*bands),
        "classes": load("SCL"),
        "cloudy": make_node("reduce_dimension", data=make_ref("classes"), dimension="bands", reducer=cloudy),
        "masked": make_node("mask", data=make_ref("ten"), mask=make_ref("cloudy")),
        "median": make_node(
            "aggregate_temporal",
            data=make_ref("masked"),
            intervals=[list(pair) for pair in zip(starts, starts[1:], strict=False)],
            reducer=make_reducer("median"),
            labels=[start[:10] for start in starts[:-1]],
        ),
        "save": {**saved, "result": True},
    }


def prepare_python(cache: Path) -> Path:
    """Return the Python of the environment in the cache folder, which is created if it is missing."""
    folder = cache / "titiler"
    note, requirements = folder / "packages", "\n".join(PACKAGES)
    if not note.exists() or note.read_text() != requirements:
        _run_command(sys.executable, "-m", "venv", "--clear", str(folder))
        _run_command(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES)
        note.write_text(requirements)
    return folder / "bin" / "python"


def _run_command(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TitilerError((done.stderr.strip().splitlines() or ["failed"])[-1])


@contextmanager
def start_titiler(cache: Path, stac_api: str) -> Iterator[Titiler]:
    """Start the server on a STAC API, with its limits lifted; stop it at the end."""
    python, port = prepare_python(cache), free_port()
    store = cache / "titiler.json"
    store.write_text("{}")
    settings = {
        "TITILER_OPENEO_STAC_API_URL": stac_api,
        "TITILER_OPENEO_STORE_URL": str(store),
        "TITILER_OPENEO_AUTH_USERS": json.dumps({"bench": {"password": "bench"}}),
        "TITILER_OPENEO_PROCESSING_MAX_PIXELS": str(2**40),
        "TITILER_OPENEO_PROCESSING_MAX_ITEMS": "1000",
        "TITILER_OPENEO_PROCESSING_APPLY_SCALE_OFFSET": "false",
        **HTTP_SETTINGS,
    }
    command = [str(python), "-m", "uvicorn", "titiler.openeo.main:app", "--port", str(port)]
    with (cache / "titiler.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=cache, env={**os.environ, **settings}, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(process, url, log.name)
            yield Titiler(url, process)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], url: str, log: str) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            requests.get(f"{url}/", timeout=10)
            return
        except requests.RequestException:
            time.sleep(0.2)
    raise TitilerError(f"it did not start, see {log}")
