"""Processes that export data: to files, workspaces and the user's own collections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final
from uuid import UUID

from odc_openeo.catalog import Catalog
from odc_openeo.errors import CollectionNotFound, FeatureUnsupported, ProcessParameterInvalid
from odc_openeo.formats.registry import get_format
from odc_openeo.formats.write import Output
from odc_openeo.registry.demand import same_part
from odc_openeo.registry.environment import Environment
from odc_openeo.registry.process import Example, Schema, process
from odc_openeo.registry.schemas import Cube, StringOrNull
from odc_openeo.user_data import collections, workspaces
from odc_openeo.user_data.stac_export import (
    CollectionExport,
    SavedStac,
    WorkspaceExport,
    find_fixed_members,
    merge_patch,
)

LOADABLE: Final = "GTiff"
"""The format that collections can be loaded from."""

APPENDED: Final = "Icechunk"
"""The format of which dates are appended to cubes that are there."""

EXPORTING: Final = "its files are exported together"

OutputFormat = Annotated[str, Schema({"type": "string", "subtype": "output-format"})]
FormatOptions = Annotated[dict[str, Any], Schema({"type": "object", "subtype": "output-format-options"})]
StacResource = Annotated[Any, Schema({"type": "object", "subtype": "stac"})]
Changes = Annotated[Mapping[str, Any], Schema({"type": "object"})]
WorkspaceId = Annotated[
    str, Schema({"type": "string", "pattern": r"^[\w\-\.~]+$", "subtype": "workspace-id"})
]
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


def _check_format(arguments: Mapping[str, Any]) -> None:
    """Check the name of a format and, if they are there, its options."""
    if "format" in arguments:
        output_format = get_format(arguments["format"])
        output_format.complete_options(arguments.get("options"))


@process(
    categories=["cubes", "export", "stac"],
    needs=same_part("data"),
    pointwise=True,
    raw_values_of=None,
    check=_check_format,
)
def save_result(
    data: Cube,
    format: OutputFormat,
    options: FormatOptions = {},  # noqa: B006 (the published default; never changed)
    *,
    env: Environment,
) -> StacResource:
    """Save data in a file format.

    The files become the results of a batch job or the response to a synchronous request (as one archive if
    there are several). They are written after the whole graph has been evaluated; whether the format suits
    the data is checked immediately.

    Args:
        data: The data to save.
        format: The name of the file format in any casing, one of those that `GET /file_formats` lists.
        options: Options of the format, see `GET /file_formats`. Unknown options are refused; those of other
            back-ends that change no value are ignored with a warning.

    Returns:
        The STAC Collection of the saved data, for `stac_modify`, `export_workspace` and `export_collection`.

    Raises:
        FormatUnsuitable: The format can't hold data of this kind.
        DataCubeEmpty: The cube has a dimension without labels, which the format can't store.
    """
    output = Output.from_data(data, format, options)
    for warning in output.warnings:
        env.log.warning("save_result: %s", warning)
    env.outputs.append(output)
    replaces = output.options.get("existing_dates") == "REPLACE"
    return SavedStac(len(env.outputs) - 1, output.format.name, replaces_dates=replaces)


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

    Follows RFC 7386: the members of `changes` replace those of `data`, objects are merged, null removes a
    member. For data saved by `save_result`, the Collection can be changed (id, title, description, license,
    keywords, providers and custom members), but not the members that describe the data itself: type, links,
    extent and assets.

    Args:
        data: The return value of `save_result`, or any STAC object.
        changes: The members to change.

    Returns:
        The changed STAC metadata.
    """
    if not isinstance(data, SavedStac):
        return merge_patch(data, changes)
    _check_changes(changes)
    return replace(data, changes=(*data.changes, changes))


@process(categories=["export", "stac"], experimental=True, pure=False, whole_because=EXPORTING)
def export_workspace(
    data: StacResource, workspace: WorkspaceId, merge: StringOrNull = None, *, env: Environment
) -> StacResource:
    """Copy saved data into a workspace.

    Files, STAC Items and the STAC Collection are copied as soon as the batch job has written them. They stay
    there even if the job is deleted. Nothing in the workspace is overwritten, except files that the same job
    has exported before. Links and URLs in the metadata are relative.

    Args:
        data: The return value of `save_result`, unchanged or changed by `stac_modify`.
        workspace: The id of one of your workspaces, see `GET /workspaces`.
        merge: The path of a STAC Collection in the workspace, with or without its name `collection.json`. The
            Items and files are added to it and its extent grows; it is created if it does not exist. By
            default a separate Collection is created in a folder named after its id. The dates of a cube that
            was saved as Icechunk are appended to the cube next to the Collection, which must have the same
            grid, bands and type.

    Returns:
        The STAC metadata, unchanged.
    """
    stac, exports = _get_saved(data, "export_workspace"), _get_exports(env, "export_workspace")
    place = workspaces.get_workspace(env.catalog.config, UUID(env.user), workspace)
    if stac.format == APPENDED and merge is not None:
        workspaces.check_place_of_cubes(env.catalog.config, place)
    workspaces.clean_collection_path(merge, stac.id)
    exports.append(WorkspaceExport(stac, workspace, merge))
    return stac


@process(categories=["export", "stac"], experimental=True, pure=False, whole_because=EXPORTING)
def export_collection(data: StacResource, collection: AnyCollectionId, *, env: Environment) -> CollectionId:
    """Turn saved data into a collection of your own.

    Files and STAC Items are copied as soon as the batch job has written them. The collection stays even if
    the job is deleted; only you can see it, in `GET /collections` and with `load_collection`. `DELETE
    /collections/{collection_id}` removes it.

    Args:
        data: The return value of `save_result` for a raster cube in the format GTiff, unchanged or changed by
            `stac_modify`.
        collection: The id of the collection. If you have a collection with this id, the data are added to it;
            otherwise it is created with the title, description, license, keywords and providers of the STAC
            metadata.

    Returns:
        The id of the collection.
    """
    stac, exports = _get_saved(data, "export_collection"), _get_exports(env, "export_collection")
    if stac.format != LOADABLE:
        reason = f"it was saved as {stac.format}, and only {LOADABLE} can be loaded from collections."
        raise ProcessParameterInvalid(process="export_collection", parameter="data", reason=reason)
    collections.check_id(collection)
    if _is_indexed(env.catalog, collection):
        reason = "that collection is not yours, so nothing can be added. Choose another id."
        raise ProcessParameterInvalid(process="export_collection", parameter="collection", reason=reason)
    exports.append(CollectionExport(stac, collection))
    return collection


def _check_changes(changes: Mapping[str, Any]) -> None:
    fixed = ", ".join(find_fixed_members(changes))
    if fixed:
        raise _make_error(f"of saved data these members can't be changed: {fixed}. Leave them out.")
    if "id" in changes and not (isinstance(changes["id"], str) and changes["id"]):
        raise _make_error("'id' must be a string that is not empty.")
    try:
        collections.check_description(changes)
    except ValueError as error:
        raise _make_error(str(error)) from error


def _make_error(reason: str) -> ProcessParameterInvalid:
    return ProcessParameterInvalid(process="stac_modify", parameter="changes", reason=reason)


def _get_saved(data: Any, process_id: str) -> SavedStac:
    if isinstance(data, SavedStac):
        return data
    reason = "only the return value of save_result can be exported, unchanged or changed by stac_modify."
    raise ProcessParameterInvalid(process=process_id, parameter="data", reason=reason)


def _get_exports(env: Environment, process_id: str) -> list[Any]:
    if env.user is None:
        env.require_run()
    if env.exports is None or env.user is None:
        raise FeatureUnsupported(feature=f"{process_id} outside of batch jobs. Create a batch job")
    return env.exports


def _is_indexed(catalog: Catalog, id_: str) -> bool:
    try:
        catalog.get_product(id_)
    except CollectionNotFound:
        return False
    return True
