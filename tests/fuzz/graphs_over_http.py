"""A sample of the random graphs, sent to a running service."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio
import requests
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from odc_openeo.config import Config
from odc_openeo.stack.embedded import Stack, free_port
from tests.fuzz.graph_sources import ARRAYS, CUBES, FEATURES, VECTORS
from tests.fuzz.graphs import make_cases
from tests.fuzz.trials import Report

DEADLINE_S = 30.0
TIMEOUT_S = 20.0
"""Of the service; beyond it a request is answered with an error."""


def run(cases: int, seed: int) -> Report:
    """Send random graphs."""
    report = Report("graphs over HTTP", seed)
    start = time.monotonic()
    with run_service() as stack:
        session, address = sign_in(stack)
        server = next(part.process.pid for part in stack.parts if part.name == "HTTP server")
        for process in make_cases(cases, seed):
            report.cases += 1
            send_process(report, session, address, place_sources(process))
            family = [psutil.Process(server), *psutil.Process(server).children(recursive=True)]
            memory = max((p.memory_info().rss for p in family if p.is_running()), default=0)
            report.peak_memory_mb = max(report.peak_memory_mb, memory / 1e6)
    report.seconds = time.monotonic() - start
    return report


@contextmanager
def run_service() -> Iterator[Stack]:
    """A stack without scenes in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="odc-openeo-fuzz-") as name:
        folder = Path(name)
        # PostgreSQL's own user has to get in.
        folder.chmod(0o711)
        sizes = {"workers": 1, "threads_per_worker": 1, "job_workers": 0, "cache_max_bytes": 0}
        config = Config(data_dir=folder, port=free_port(), sync_timeout_s=TIMEOUT_S, **sizes)
        with Stack(config, samples=False, say=lambda text: None) as stack:
            yield stack


def sign_in(stack: Stack) -> tuple[requests.Session, str]:
    """A signed-in session with the cube uploaded, and the address of the API."""
    address = f"{stack.url}/openeo/1.3"
    session = requests.Session()
    session.trust_env = False
    token = session.get(f"{address}/credentials/basic", auth=("demo", "demo")).json()["access_token"]
    session.headers["Authorization"] = f"Bearer basic//{token}"
    session.put(f"{address}/files/cube.tif", data=io.BytesIO(make_raster())).raise_for_status()
    return session, address


def make_raster() -> bytes:
    """Two bands of six by seven pixels."""
    values = np.arange(84, dtype="int16").reshape(2, 6, 7)
    profile = {"driver": "GTiff", "width": 7, "height": 6, "count": 2, "dtype": "int16", "nodata": 3}
    grid = {"crs": "EPSG:32632", "transform": from_origin(600_000, 5_000_000, 10, 10)}
    with MemoryFile() as memory:
        with memory.open(**profile, **grid) as file:
            assert isinstance(file, rasterio.io.DatasetWriter)
            file.write(values)
            file.descriptions = ("B04", "B08")
        return bytes(memory.read())


def place_sources(process: Any) -> dict[str, Any]:
    """The process with nodes instead of the parameters that it has no values for over HTTP."""
    raster = {"process_id": "load_uploaded_files", "arguments": {"paths": ["cube.tif"], "format": "GTiff"}}
    sources = {
        **dict.fromkeys(CUBES, raster),
        **{name: {"process_id": "load_geojson", "arguments": {"data": FEATURES}} for name in VECTORS},
        **{name: {"process_id": "constant", "arguments": {"x": [3, 1, None, 2]}} for name in ARRAYS},
    }
    graph = {
        id_: {**node, "arguments": _replace(node["arguments"], sources)}
        for id_, node in process["process_graph"].items()
    }
    return {"process_graph": {**{f"source_{name}": node for name, node in sources.items()}, **graph}}


def _replace(value: Any, sources: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if value.get("from_parameter") in sources:
            return {"from_node": f"source_{value['from_parameter']}"}
        return {k: v if k == "process_graph" else _replace(v, sources) for k, v in value.items()}
    return [_replace(item, sources) for item in value] if isinstance(value, list) else value


def send_process(report: Report, session: requests.Session, address: str, process: dict[str, Any]) -> None:
    """Send one process, and count how it was answered."""
    try:
        # NaN and infinity are sent, too: `requests` would refuse them.
        body = json.dumps({"process": process})
        headers = {"Content-Type": "application/json"}
        answer = session.post(f"{address}/result", data=body, headers=headers, timeout=DEADLINE_S)
    except requests.Timeout:
        report.hangs += 1
        report.add_failure(process, f"no answer within {DEADLINE_S:g} s")
        return
    except requests.ConnectionError as error:
        report.server_errors += 1
        report.add_failure(process, f"the connection was lost: {error}")
        return
    report.refused += answer.status_code >= 400
    if answer.status_code >= 500 and answer.status_code != 501:
        report.server_errors += 1
        report.add_failure(process, f"{answer.status_code}: {answer.text[:300]}")
