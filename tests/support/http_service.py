"""The service over HTTP in this process, for clients that need an address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.serving import make_server

from odc_openeo.app import create_app
from odc_openeo.config import Config


@contextmanager
def serve(config: Config) -> Iterator[str]:
    """Serve on a free port of the loopback address; yield the URL."""
    server = make_server("127.0.0.1", 0, create_app(config), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
