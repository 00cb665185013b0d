"""Workspaces of users: folders at providers that the operator offers, into which jobs export.

`providers` says where workspaces can be, `store` keeps which there are, `publish` puts exports into them.
"""

from odc_openeo.workspaces.items import find_items
from odc_openeo.workspaces.providers import Provider, providers
from odc_openeo.workspaces.publish import clean_place, publish
from odc_openeo.workspaces.store import (
    Draft,
    Workspace,
    create,
    delete,
    find_file,
    get,
    list_files,
    list_workspaces,
    update,
    used,
)

__all__ = [
    "Draft",
    "Provider",
    "Workspace",
    "clean_place",
    "create",
    "delete",
    "find_file",
    "find_items",
    "get",
    "list_files",
    "list_workspaces",
    "providers",
    "publish",
    "update",
    "used",
]
