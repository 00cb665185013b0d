"""STAC Items in workspaces, ready to be loaded."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urljoin

from odc_openeo.catalog import Query
from odc_openeo.config import Config
from odc_openeo.errors import FeatureUnsupported, UrlForbidden
from odc_openeo.load import stac_crawler
from odc_openeo.untrusted.rasters import RasterPlace
from odc_openeo.user_data.object_copies import find_raster_folder
from odc_openeo.user_data.workspaces.store import Workspace, get_storage, open_file


def find_items(
    config: Config, workspace: Workspace, root: str, url: str, query: Query, limit: int
) -> tuple[list[dict[str, Any]], RasterPlace]:
    """Find the STAC Items behind a URL in a workspace, with paths to their files, and the folder of these.

    ``root`` is the URL of the workspace's files, with a slash at the end.

    Raises:
        FileNotFound: there is nothing at the URL.
        UrlForbidden: it leads out of the workspace.
    """

    def path(address: str) -> str:
        if not address.startswith(root):
            raise UrlForbidden(host="a link that leads out of the workspace")
        return unquote(address.removeprefix(root))

    def fetch(address: str) -> Any:
        with open_file(config, workspace, path(address))[0] as stream:
            return json.load(stream)

    folder = find_raster_folder(config, get_storage(config, workspace), workspace.folder)
    if folder is None:
        raise FeatureUnsupported(
            feature="loading from workspaces that are neither in a folder nor in a bucket"
        )
    items = []
    for item in stac_crawler.find_items(fetch, url, query, limit):
        assets = {
            name: {**asset, "href": str(folder.root / path(urljoin(item["base"], asset["href"])))}
            for name, asset in item["assets"].items()
        }
        items.append({**item, "base": None, "assets": assets})
    return items, folder
