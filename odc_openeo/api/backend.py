"""What the views need: the configuration, the catalogue, and the addresses that clients see."""

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
STAC_VERSION: Final = "1.1.0"


@dataclass(frozen=True)
class Backend:
    """One per application; safe to share between threads, and opened only when first used."""

    config: Config
    catalog: Catalog
    result_runners: RunnerPool
    view_runners: RunnerPool

    @classmethod
    def from_config(cls, config: Config) -> Backend:
        """The backend of a configuration."""
        pools = (RunnerPool(config, lane(config)) for lane in (result_lane, view_lane))
        return cls(config, Catalog(config), *pools)

    def start_runners(self) -> None:
        """Start the runners that are kept warm, so that the first request need not wait for them."""
        self.view_runners.start()
        self.result_runners.start()


def backend() -> Backend:
    """The backend of the application that handles the request."""
    return cast(Backend, current_app.extensions["odc_openeo"])


def root_url() -> str:
    """The URL of the server without trailing slash: as configured, else as the client calls it."""
    configured = backend().config.public_url
    return (configured or request.root_url).rstrip("/")


def public_path(path: str) -> str:
    """A path of the service as clients see it: a proxy may have given it a beginning."""
    return f"{urlsplit(root_url()).path.rstrip('/')}{path}"


def api_url(path: str = "") -> str:
    """The absolute URL of a path of the API, such as ``/collections``."""
    return f"{root_url()}{API_PATH}{path}"


EDITOR_PATH: Final = "/editor"


def web_editor_url() -> str | None:
    """The Web Editor to link to: our own if there is one, else the one configured."""
    config = backend().config
    return f"{root_url()}{EDITOR_PATH}" if config.web_editor_dir else config.web_editor_url


def url_adapter() -> MapAdapter:
    """Matches the address of the request with the rules of the application."""
    return current_app.url_map.bind_to_environ(request.environ)


def link(rel: str, href: str, title: str, type_: str = "application/json") -> dict[str, Any]:
    """A web link as openEO and STAC have them."""
    return {"rel": rel, "href": href, "type": type_, "title": title}
