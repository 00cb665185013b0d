"""The application's shared objects (configuration, catalogue, runners) and the URLs that clients see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

from flask import current_app, request
from werkzeug.routing import MapAdapter

from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.evaluation.lanes import result_lane, view_lane
from odc_openeo.runners import RunnerPool

API_VERSION: Final = "1.3.0"
API_PATH: Final = "/openeo/1.3"


@dataclass(frozen=True)
class Backend:
    """The shared objects of one application; thread-safe, connections are opened on first use."""

    config: Config
    catalog: Catalog
    result_runners: RunnerPool
    view_runners: RunnerPool

    @classmethod
    def from_config(cls, config: Config) -> Backend:
        """Create the backend for a configuration."""
        pools = (RunnerPool(config, lane(config)) for lane in (result_lane, view_lane))
        return cls(config, Catalog(config), *pools)

    def start_runners(self) -> None:
        """Start the warm runners, so that the first request does not have to wait for them."""
        self.view_runners.start()
        self.result_runners.start()


def backend() -> Backend:
    """Return the backend of the application that handles the request."""
    return cast(Backend, current_app.extensions["odc_openeo"])


def root_url() -> str:
    """Return the server's URL without trailing slash: as configured, else as the client requested it."""
    configured = backend().config.public_url
    return (configured or request.root_url).rstrip("/")


def public_path(path: str) -> str:
    """Return a path as clients see it: a proxy may serve the application under a path prefix."""
    return f"{urlsplit(root_url()).path.rstrip('/')}{path}"


def api_url(path: str = "") -> str:
    """Return the absolute URL of a path of the API, such as ``/collections``."""
    return f"{root_url()}{API_PATH}{path}"


EDITOR_PATH: Final = "/editor"


def web_editor_url() -> str | None:
    """Return the URL of the Web Editor: the one served here if there is one, else the configured one."""
    config = backend().config
    return f"{root_url()}{EDITOR_PATH}" if config.web_editor_dir else config.web_editor_url


def url_adapter() -> MapAdapter:
    """Return an adapter that matches the request's URL against the application's rules."""
    return current_app.url_map.bind_to_environ(request.environ)


def make_link(rel: str, href: str, title: str, media_type: str = "application/json") -> dict[str, Any]:
    """Make a web link as in openEO and STAC."""
    return {"rel": rel, "href": href, "type": media_type, "title": title}
