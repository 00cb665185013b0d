"""Processes that hand data out: into files, workspaces and collections of the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final
from uuid import UUID

from odc_openeo import own_collections, workspaces
from odc_openeo.catalog import Catalog
from odc_openeo.demand import same
from odc_openeo.errors import CollectionNotFound, FeatureUnsupported, ProcessParameterInvalid
from odc_openeo.exports import SavedStac, ToCollection, ToWorkspace, fixed_members, merge_patch
from odc_openeo.formats.write import Output
from odc_openeo.process import Environment, Example, Schema, process
from odc_openeo.processes.schemas import Cube

LOADABLE: Final = "GTiff"
"""The format that collections can be loaded from."""

OutputFormat = Annotated[str, Schema({"type": "string", "subtype": "output-format"})]
FormatOptions = Annotated[dict[str, Any], Schema({"type": "object", "subtype": "output-format-options"})]
StacResource = Annotated[Any, Schema({"type": "object", "subtype": "stac"})]
Changes = Annotated[Mapping[str, Any], Schema({"type": "object"})]
WorkspaceId = Annotated[
    str, Schema({"type": "string", "pattern": r"^[\w\-\.~]+$", "subtype": "workspace-id"})
]
MergePath = Annotated[str | None, Schema({"type": ["string", "null"]})]
COLLECTION_ID = {"type": "string", "pattern": r"^[A-Za-z0-9_\-\.~/]+$"}
AnyCollectionId = Annotated[
    str,
    Schema(
        [
            {"title": "New Collection", **COLLECTION_ID},
            {"title": "Existing Collection", "subtype": "collection-id", **COLLECTION_ID},
        ]
    ),
]
CollectionId = Annotated[str, Schema({"subtype": "collection-id", **COLLECTION_ID})]
MERGE_PATCH = {
    "href": "https://www.rfc-editor.org/rfc/rfc7386.html",
    "title": "RFC 7386: JSON Merge Patch",
    "type": "text/html",
    "rel": "about",
}


@process(categories=["cubes", "export", "stac"], needs=same("data"), pointwise=True)
def save_result(
    data: Cube,
    format: OutputFormat,
    options: FormatOptions = {},  # noqa: B006 (the published default; never changed)
    *,
    env: Environment,
) -> StacResource:
    """Save data in a file format.

    The files become the results of a batch job, or the answer to a synchronous request (as one archive if
    there
    are several). They are written when the whole graph has been evaluated; whether the format suits the
    data is checked at once.

    Args:
        data: The data to save.
        format: The name of the file format in any casing, one of those that `GET /file_formats` lists.
        options: Options of the format, see `GET /file_formats`. Unknown options are refused.

    Returns:
        The STAC Collection of what was saved, for `stac_modify`, `export_workspace` and `export_collection`.

    Raises:
        FormatUnsuitable: The format can't hold data of this kind.
        DataCubeEmpty: The cube has a dimension without labels and the format can't store that.
    """
    output = Output.of(data, format, options)
    env.outputs.append(output)
    return SavedStac(len(env.outputs) - 1, output.format.name)


@process(
    categories=["stac"],
    experimental=True,
    links=[MERGE_PATCH],
    examples=[
        Example(
            {
                "data": {"type": "Feature", "id": "a", "properties": {"title": "A", "gsd": 10}},
                "changes": {"id": "b", "properties": {"gsd": None, "platform": "kite"}},
            },
            {"type": "Feature", "id": "b", "properties": {"title": "A", "platform": "kite"}},
        )
    ],
)
def stac_modify(data: StacResource, changes: Changes) -> StacResource:
    """Change STAC metadata.

    Follows RFC 7386: what is in `changes` replaces what is in `data`, objects are merged, null removes a
    member. Of what `save_result` has saved, the Collection can be changed (id, title, description, license,
    keywords, providers and members of your own), but not what follows from the data: its type, links, extent
    and assets.

    Args:
        data: What `save_result` returned, or any STAC object.
        changes: The members to change.

    Returns:
        The changed STAC metadata.
    """
    if not isinstance(data, SavedStac):
        return merge_patch(data, changes)
    _check_changes(changes)
    return replace(data, changes=(*data.changes, changes))


@process(categories=["export", "stac"], experimental=True, pure=False)
def export_workspace(
    data: StacResource, workspace: WorkspaceId, merge: MergePath = None, *, env: Environment
) -> StacResource:
    """Copy saved data into a workspace.

    Files, STAC Items and the STAC Collection are copied when the batch job has written them. They stay there
    whatever happens to the job. Nothing in the workspace is overwritten, except what the same job has
    exported before. Links and addresses in the metadata are relative.

    Args:
        data: What `save_result` returned, as it is or changed by `stac_modify`.
        workspace: The id of one of your workspaces, see `GET /workspaces`.
        merge: The path of a STAC Collection in the workspace, with or without its name `collection.json`. The
            Items and files are added to it and its extent grows; it is made if it is not there. By default
            there is a Collection of its own in a folder that has its id as name.

    Returns:
        The STAC metadata, as given.
    """
    stac, exports = _exportable(data, "export_workspace"), _exports(env, "export_workspace")
    workspaces.get(env.catalog.config, UUID(env.user), workspace)
    workspaces.clean_place(merge, stac.id)
    exports.append(ToWorkspace(stac, workspace, merge))
    return stac


@process(categories=["export", "stac"], experimental=True, pure=False)
def export_collection(data: StacResource, collection: AnyCollectionId, *, env: Environment) -> CollectionId:
    """Make saved data a collection of your own.

    Files and STAC Items are copied when the batch job has written them. The collection stays whatever happens
    to the job; only you see it, in `GET /collections` and for `load_collection`. `DELETE
    /collections/{collection_id}` removes it.

    Args:
        data: What `save_result` returned for a raster cube in the format GTiff, as it is or changed by
            `stac_modify`.
        collection: The id of the collection. If you have one of this id, the data are added to it; else it is
            made, with title, description, license, keywords and providers as in the STAC metadata.

    Returns:
        The id of the collection.
    """
    stac, exports = _exportable(data, "export_collection"), _exports(env, "export_collection")
    if stac.format != LOADABLE:
        reason = f"it was saved as {stac.format}, and only {LOADABLE} can be loaded from collections."
        raise ProcessParameterInvalid(process="export_collection", parameter="data", reason=reason)
    own_collections.check_id(collection)
    if _is_of_the_index(env.catalog, collection):
        reason = "that collection is not yours, so nothing can be added. Choose another id."
        raise ProcessParameterInvalid(process="export_collection", parameter="collection", reason=reason)
    exports.append(ToCollection(stac, collection))
    return collection


def _check_changes(changes: Mapping[str, Any]) -> None:
    fixed = ", ".join(fixed_members(changes))
    if fixed:
        raise _bad_changes(f"of saved data these members can't be changed: {fixed}. Leave them out.")
    if "id" in changes and not (isinstance(changes["id"], str) and changes["id"]):
        raise _bad_changes("'id' must be a text that is not empty.")
    try:
        own_collections.check_said(changes)
    except ValueError as error:
        raise _bad_changes(str(error)) from error


def _bad_changes(reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process="stac_modify", parameter="changes", reason=reason)


def _exportable(data: Any, process_id: str) -> SavedStac:
    if isinstance(data, SavedStac):
        return data
    reason = "only what save_result returned can be exported, as it is or changed by stac_modify."
    raise ProcessParameterInvalid(process=process_id, parameter="data", reason=reason)


def _exports(env: Environment, process_id: str) -> list[Any]:
    if env.exports is None or env.user is None:
        raise FeatureUnsupported(feature=f"{process_id} outside of batch jobs. Create a batch job")
    return env.exports


def _is_of_the_index(catalog: Catalog, id_: str) -> bool:
    try:
        catalog.product(id_)
    except CollectionNotFound:
        return False
    return True
