"""Runs graphs with openeo-processes-dask; started by `peer` with the Python of a separate environment.

Self-contained, as this project is not installed there. Communicates in lines of JSON: the first input line
has the scenes and the size of the cluster, each further one a graph; output lines have seconds or an error.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import odc.stac
import pystac
import xarray as xr
from dask.distributed import Client, LocalCluster
from odc.geo.cog import save_cog_with_dask

PROCESSES = "openeo_processes_dask"
PARSER = "openeo_pg_parser_networkx"


def load_collection(setup: dict[str, Any]) -> Callable[..., xr.DataArray]:
    """Make the process that loads the scenes as the other sides do."""

    def load_cube(
        id: str, spatial_extent: Any, temporal_extent: Any, bands: list[str], **_: Any
    ) -> xr.DataArray:
        product = setup["products"][id]
        start, end = (str(getattr(t, "root", t))[:10] for t in temporal_extent)
        items = [i for i in product["items"] if start <= i["properties"]["datetime"][:10] < end]
        cube = odc.stac.load(
            [pystac.Item.from_dict(item) for item in items],
            bands=bands,
            crs=product["crs"],
            resolution=product["resolution"],
            x=(spatial_extent.west, spatial_extent.east),
            y=(spatial_extent.south, spatial_extent.north),
            chunks=product["chunks"],
        )
        array = cube.to_dataarray("bands").rename(time="t").transpose("t", "bands", "y", "x")
        array = array if setup["integers"] else array.astype("float32")
        return array.odc.assign_crs(product["crs"])

    return load_cube


def save_result(data: Any, format: str = "GTiff", **_: Any) -> Any:
    """The process that marks what is saved; `save` writes it."""
    return data


def write_cube(data: Any, target: Path) -> None:
    """Write a cube: rasters as COGs, anything else as a NumPy file."""
    if not isinstance(data, xr.DataArray) or not {"x", "y"} <= set(data.dims) or "param" in data.dims:
        values = data.compute().values if hasattr(data, "compute") else data
        np.save(target / "0.npy", np.asarray(values, float))
        return
    data = data.drop_vars("bands", errors="ignore")
    images = [data.isel(t=n, drop=True) for n in range(data.sizes["t"])] if "t" in data.dims else [data]
    written = [
        save_cog_with_dask(image.transpose(..., "y", "x").squeeze(), str(target / f"{n:02}.tif"))
        for n, image in enumerate(images)
    ]
    dask.compute(*written)


def make_registry(setup: dict[str, Any]) -> Any:
    """Make the registry: all processes of the package, plus loading and saving."""
    core = importlib.import_module(f"{PROCESSES}.process_implementations.core")
    product = importlib.import_module(f"{PARSER}.process_registry")
    process_registry = product.ProcessRegistry(wrap_funcs=[core.process])
    functions = {function.__name__: function for function in core.standard_processes}
    functions |= {"load_collection": load_collection(setup), "save_result": save_result}
    for name, function in functions.items():
        if inspect.isfunction(function):
            process_registry[name] = product.Process(spec={}, implementation=function)
    return process_registry


def answer_question(setup: dict[str, Any], question: dict[str, Any]) -> dict[str, Any]:
    """Run one graph; return its seconds, or its error."""
    setup["integers"] = question["integers"]
    start = time.perf_counter()
    try:
        graph = importlib.import_module(f"{PARSER}.graph").OpenEOProcessGraph(
            pg_data={"process_graph": question["graph"]}
        )
        write_cube(graph.to_callable(make_registry(setup))(), Path(question["target"]))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    return {"seconds": time.perf_counter() - start}


def main() -> None:
    """Answer until the input ends."""
    output = sys.stdout
    sys.stdout = sys.stderr
    setup = json.loads(sys.stdin.readline())
    size = {"n_workers": setup["workers"], "threads_per_worker": setup["threads"]}
    with LocalCluster(**size, dashboard_address=None) as cluster, Client(cluster):
        workers = [worker.process.pid for worker in cluster.workers.values()]
        print(json.dumps({"workers": workers}), file=output, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer_question(setup, json.loads(line))), file=output, flush=True)


if __name__ == "__main__":
    main()
