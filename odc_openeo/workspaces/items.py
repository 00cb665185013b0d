"""STAC Items in workspaces, ready to be loaded."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urljoin

from odc_openeo.catalog import Query
from odc_openeo.config import Config
from odc_openeo.errors import FeatureUnsupported, UrlForbidden
from odc_openeo.foreign_rasters import LocalFolder
from odc_openeo.load import crawl
from odc_openeo.workspaces.store import Workspace, find_file, storage_of


def find_items(
    config: Config, workspace: Workspace, root: str, url: str, query: Query, limit: int
) -> tuple[list[dict[str, Any]], LocalFolder]:
    """The STAC Items behind an address in a workspace, with paths to their files, and the folder of these.

    ``root`` is the address of the workspace's files, with a slash at the end.

    Raises:
        FileNotFound: there is nothing at the address.
        UrlForbidden: it leads out of the workspace.
    """

    def path(address: str) -> str:
        if not address.startswith(root):
            raise UrlForbidden(host="a link that leads out of the workspace")
        return unquote(address.removeprefix(root))

    def fetch(address: str) -> Any:
        with find_file(config, workspace, path(address))[0] as stream:
            return json.load(stream)

    folder = storage_of(config, workspace).local(workspace.folder)
    if folder is None:
        raise FeatureUnsupported(feature="loading from workspaces that are no folder")
    found = []
    for item in crawl.find_items(fetch, url, query, limit):
        assets = {
            name: {**asset, "href": str(folder / path(urljoin(item["base"], asset["href"])))}
            for name, asset in item["assets"].items()
        }
        found.append({**item, "base": None, "assets": assets})
    return found, LocalFolder(folder)
