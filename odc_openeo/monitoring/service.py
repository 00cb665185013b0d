"""The metrics of an application: of its processes and of the state of the service."""

from __future__ import annotations

from prometheus_client.exposition import choose_encoder

from odc_openeo.config import Config
from odc_openeo.monitoring.listener import MetricsRegistry, start_listener
from odc_openeo.monitoring.recorder import start_recording
from odc_openeo.monitoring.state import ServiceState
from odc_openeo.stack.readiness import Readiness


class Monitor:
    """Records the counts of this process and serves the metrics, if a setting asks for them."""

    def __init__(self, config: Config, readiness: Readiness) -> None:
        self._config = config
        self._state = ServiceState(config, readiness)

    def start(self) -> None:
        """Start to record, and to listen; called in each process that answers requests."""
        if self._config.has_metrics:
            recorder = start_recording()
            start_listener(self._config, recorder, MetricsRegistry(recorder, self._state))

    def format(self, accept: str | None) -> tuple[bytes, str]:
        """Return the metrics and their media type, in a format that the client accepts."""
        encode, media_type = choose_encoder(accept or "")
        return encode(MetricsRegistry(start_recording(), self._state)), media_type
