"""The listener for Prometheus: one of the processes that share a folder of metrics serves them."""

from __future__ import annotations

import fcntl
import logging
import threading
from typing import Any, Final

from prometheus_client import start_http_server

from odc_openeo.config import Config
from odc_openeo.monitoring.recorder import Recorder

RETRY_S: Final = 10.0
log = logging.getLogger(__name__)


class MetricsRegistry:
    """All that several collectors yield, as Prometheus gets it."""

    def __init__(self, *collectors: Any) -> None:
        self._collectors = collectors

    def collect(self) -> Any:
        """Yield all metrics."""
        for collector in self._collectors:
            yield from collector.collect()


def start_listener(config: Config, recorder: Recorder, registry: MetricsRegistry) -> None:
    """Listen on ``metrics_port`` in the background, or take over when the process that listens ends."""
    if config.metrics_port is not None:
        arguments = (config.metrics_host, config.metrics_port, recorder, registry)
        threading.Thread(target=_listen, args=arguments, name="metrics", daemon=True).start()


def _listen(host: str, port: int, recorder: Recorder, registry: Any) -> None:
    lock = None
    if recorder.folder is not None:
        # Held until this process ends.
        lock = (recorder.folder / "listener.lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    while True:
        try:
            _, thread = start_http_server(port, host, registry)
        except OSError as error:
            log.error("cannot serve metrics on %s port %d: %s", host, port, error.strerror)
            threading.Event().wait(RETRY_S)
            continue
        thread.join()
        return
