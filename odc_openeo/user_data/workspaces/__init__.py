"""Workspaces of users: folders at providers that the operator offers, into which jobs export.

`providers` has the places for workspaces, `store` the workspaces themselves; `publish` exports to them,
`cubes` appends dates to cubes in them.
"""

from odc_openeo.user_data.workspaces.cubes import check_place_of_cubes
from odc_openeo.user_data.workspaces.items import find_items
from odc_openeo.user_data.workspaces.providers import WorkspaceProvider, load_providers
from odc_openeo.user_data.workspaces.publish import clean_collection_path, publish_package
from odc_openeo.user_data.workspaces.store import (
    Workspace,
    WorkspaceDraft,
    count_used_bytes,
    create_workspace,
    delete_workspace,
    get_workspace,
    list_files,
    list_workspaces,
    open_file,
    update_workspace,
)

__all__ = [
    "Workspace",
    "WorkspaceDraft",
    "WorkspaceProvider",
    "check_place_of_cubes",
    "clean_collection_path",
    "count_used_bytes",
    "create_workspace",
    "delete_workspace",
    "find_items",
    "get_workspace",
    "list_files",
    "list_workspaces",
    "load_providers",
    "open_file",
    "publish_package",
    "update_workspace",
]
