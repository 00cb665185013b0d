"""Tasks for runners that do what they should not."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
import rasterio

from odc_openeo.compute import cluster
from odc_openeo.config import Config
from odc_openeo.errors import NoDataAvailable
from odc_openeo.runners.notices import opening_files
from odc_openeo.telemetry.log_records import get_log_ids
from odc_openeo.untrusted.gdal_drivers import list_drivers

KEPT: list[Any] = []


def give_back(config: Config, value: Any) -> Any:
    """Return the argument."""
    return value


def measure_depth(config: Config, value: Any) -> int:
    """Count the levels of nested arrays."""
    depth = 0
    while isinstance(value, list):
        value, depth = value[0], depth + 1
    return depth


def tell_process(config: Config) -> int:
    """Return the id of the process."""
    return os.getpid()


def read_variable(config: Config, name: str) -> str | None:
    """Return a variable of the environment."""
    return os.environ.get(name)


def tell_niceness(config: Config) -> int:
    """Return the niceness of the process."""
    return os.nice(0)


def sleep_and_mark(config: Config, path: Path, seconds: float) -> None:
    """Say by a file that the task has begun, then sleep."""
    path.write_text(str(os.getpid()))
    time.sleep(seconds)


def block_interpreter(config: Config) -> None:
    """Compute without ever letting another thread run."""
    pow(7, 10**9, 10**9 + 7) and 7 ** (10**8)


def sleep_for_ever(config: Config) -> None:
    """Do not come to an end."""
    time.sleep(600)


def ignore_signals(config: Config) -> None:
    """Do not end when asked to."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)


def allocate_array(config: Config, nbytes: int) -> float:
    """Allocate an array at once."""
    return float(np.ones(nbytes // 8).sum())


def allocate_strings(config: Config) -> int:
    """Double a string again and again."""
    text = "ab" * 2**20
    while True:
        text += text


def allocate_slowly(config: Config, step: int) -> None:
    """Take more memory bit by bit, whatever fails."""
    while True:
        KEPT.append(np.ones(step // 8))


def allocate_in_thread(config: Config) -> None:
    """Take memory in another thread, whose error nobody sees, until this one has too little."""
    thread = threading.Thread(target=allocate_slowly, args=(config, 2**20))
    thread.start()
    thread.join()
    allocate_array(config, 64 * 2**20)


def hide_memory_error(config: Config) -> None:
    """Turn a failed allocation into an error of the user's."""
    try:
        allocate_array(config, 2**40)
    except MemoryError as error:
        raise NoDataAvailable(reason="something else.") from error


def crash(config: Config, number: int) -> None:
    """End as a fault in a library of C would end the process."""
    os.kill(os.getpid(), number)
    time.sleep(60)


def crash_in_file(config: Config, name: str) -> None:
    """End as a library would that a damaged file has crashed."""
    with opening_files([name]):
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(60)


def hang_in_file(config: Config, name: str, seconds: float, within: bool) -> None:
    """Go round in circles as a library does that a damaged file has confused."""
    with opening_files([name], seconds):
        time.sleep(60 if within else 0)
    time.sleep(seconds * 3)


def leave(config: Config) -> None:
    """End the process in good order."""
    os._exit(0)


def raise_error(config: Config, error: Exception) -> None:
    """Raise an error."""
    raise error


def compute_on_dask(config: Config, mark: Path, chunks: int, seconds: float) -> None:
    """Compute chunks on the cluster that take a while each."""
    sleep = dask.delayed(time.sleep)
    mark.write_text(str(os.getpid()))
    cluster.compute(config, *[sleep(seconds, dask_key_name=f"sleep-{i}") for i in range(chunks)])


def open_raster(config: Config | None, name: str) -> str:
    """Open what GDAL makes of a name; return a pixel or the kind of error."""
    try:
        with rasterio.open(name) as file:
            return f"opened {file.read(1)[0, 0]}"
    except Exception as error:
        return type(error).__name__


def list_gdal_drivers(config: Config) -> set[str]:
    """Return the drivers after rasterio has registered its own again and again."""
    for _ in range(3):
        with rasterio.Env(GDAL_CACHEMAX=1):
            pass
    return list_drivers()


def give_function(config: Config) -> Any:
    """Return what cannot be sent."""
    return lambda: None


def give_much(config: Config, nbytes: int) -> bytes:
    """Return more than anybody should have to take in."""
    return b"x" * nbytes


def list_sockets(config: Config) -> list[str]:
    """Return the addresses of listening sockets that the process has inherited."""
    listening = []
    for name in os.listdir("/proc/self/fd"):
        try:
            inherited = socket.socket(fileno=os.dup(int(name)))
            if inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                listening.append(str(inherited.getsockname()))
            inherited.close()
        except OSError:
            continue
    return listening


def report_log_ids(_: Config) -> dict[str, str]:
    return get_log_ids()
