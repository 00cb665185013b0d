"""STAC exports of a process graph: metadata of data yet to be saved, changes to them, destinations.

Files are written when the graph has been evaluated. Until then `SavedStac` stands for their metadata; a
`Package` is handed over when they exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from odc_openeo.config import Config
from odc_openeo.formats import icechunk
from odc_openeo.jobs import result_stac
from odc_openeo.jobs.result_stac import COLLECTION, ITEMS, Results
from odc_openeo.storage import Storage, get_storage

FIXED: Final = ("type", "stac_version", "stac_extensions", "links", "extent")
"""Members of the Collection that follow from the data."""
TRANSIENT: Final = ("expires", "unpublished", "openeo:status")
"""Members that only results of jobs have, as exports do not expire."""


@dataclass(frozen=True)
class SavedStac:
    """The STAC Collection that one `save_result` writes; ``output`` is the index of the graph's output.

    ``changes`` are merge patches (RFC 7386) for the Collection, in order. ``replaces_dates``: where its dates
    are appended to a cube, they replace those that are there.
    """

    openeo_subtypes: ClassVar = ("stac",)

    output: int
    format: str
    changes: tuple[Mapping[str, Any], ...] = ()
    replaces_dates: bool = False

    @property
    def id(self) -> str | None:
        """The id that a change gives the Collection; None if there is none."""
        return next((str(c["id"]) for c in reversed(self.changes) if c.get("id")), None)


@dataclass(frozen=True)
class WorkspaceExport:
    """An export to a workspace of the user; ``merge`` is the path of a Collection to add to."""

    stac: SavedStac
    workspace: str
    merge: str | None


@dataclass(frozen=True)
class CollectionExport:
    """An export to a collection of the user."""

    stac: SavedStac
    collection: str


Export = WorkspaceExport | CollectionExport


@dataclass(frozen=True)
class Package:
    """A STAC Collection, its Items by id, and its files; links are relative to one folder.

    ``run`` is the same whenever a run repeats its export, which may replace what the earlier attempt left.
    ``source`` is the folder of the files in the storage; a file may be a folder (Zarr). ``cubes`` are those
    whose dates can be appended to others; ``replaces_dates``: instead of dates that are there.
    """

    run: str
    collection: dict[str, Any]
    items: Mapping[str, dict[str, Any]]
    source: str
    files: Sequence[str]
    cubes: Sequence[str] = ()
    replaces_dates: bool = False


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON Merge Patch (RFC 7386): null removes, objects are merged."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def make_package(results: Results, stac: SavedStac, run: str, source: str) -> Package:
    """Package what one `save_result` has written; ``results`` are its files only."""

    def href(name: str) -> str:
        return f"./{name.removeprefix(f'{ITEMS}/')}"

    items = {
        id_: _export_item(result_stac.find_item(results, id_, href, 0) or {})
        for id_ in result_stac.group_items(results)
    }
    placed = {name for item in items.values() for name in item["assets"]}
    collection = _drop_transient(result_stac.make_collection(results, href, 0))
    collection["id"] = run
    collection["links"] = [link for link in collection["links"] if link["rel"] in ("item", "derived_from")]
    collection["assets"] = {k: v for k, v in collection["assets"].items() if k not in placed}
    for change in stac.changes:
        collection = merge_patch(collection, change)
    for item in items.values():
        item["collection"] = collection["id"]
    files = [str(asset["name"]) for asset in results.assets]
    cubes = [str(asset["name"]) for asset in results.assets if asset.get("type") == icechunk.MEDIA_TYPE]
    return Package(run, collection, items, source, files, cubes, stac.replaces_dates)


def _export_item(item: dict[str, Any]) -> dict[str, Any]:
    item["properties"] = _drop_transient(item["properties"])
    item["links"] = [_link_to_collection(rel, COLLECTION) for rel in ("collection", "parent")]
    return item


def _link_to_collection(rel: str, path: str) -> dict[str, Any]:
    return {"rel": rel, "href": f"./{path}", "type": "application/json"}


def _drop_transient(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in TRANSIENT}


def move_into_folder(document: dict[str, Any], folder: str) -> dict[str, Any]:
    """Make the links to Items and files of a document point into a folder below it."""

    def move(link: Mapping[str, Any]) -> dict[str, Any]:
        return {**link, "href": f"./{folder}/{link['href'].removeprefix('./')}"}

    links = [move(link) if link["rel"] == "item" else link for link in document["links"]]
    assets = {name: move(asset) for name, asset in document.get("assets", {}).items()}
    return {**document, "links": links, "assets": assets}


def get_sizes(config: Config, content: Package) -> dict[str, int]:
    """Get the sizes in bytes of all files of a package, by path below its source."""
    top = f"{content.source}/"
    file_sizes = [get_storage(config).sizes(f"{top}{file}") for file in content.files]
    return {key.removeprefix(top): size for sizes in file_sizes for key, size in sizes.items()}


def copy_files(config: Config, content: Package, store: Storage, folder: str) -> None:
    """Copy all files of a package into a folder of a storage."""
    for path in get_sizes(config, content):
        store.copy(get_storage(config), f"{content.source}/{path}", f"{folder}/{path}")


def place_cubes_above(content: Package) -> Package:
    """Return a package without the files of its cubes, whose Items refer to cubes in the folder above."""

    def place_asset(name: str, asset: Mapping[str, Any]) -> Mapping[str, Any]:
        if name not in content.cubes:
            return asset
        # The cube there has dates of others, too.
        return {**{k: v for k, v in asset.items() if k != "file:size"}, "href": f"../{name}"}

    items = {
        id_: {**item, "assets": {name: place_asset(name, a) for name, a in item["assets"].items()}}
        for id_, item in content.items.items()
    }
    files = [name for name in content.files if name not in content.cubes]
    return replace(content, items=items, files=files)


def find_fixed_members(changes: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of members that changes must not touch, as they follow from the data."""
    yield from (name for name in FIXED if name in changes)
    if "assets" in changes:
        yield "assets"
