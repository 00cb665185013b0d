"""What leaves a process graph as STAC: the promise of saved data, changes to it, where it is to go.

Files are written when the graph has been evaluated. Until then `SavedStac` stands for their metadata; a
`Package` is what is handed over when they are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from odc_openeo import results
from odc_openeo.config import Config
from odc_openeo.results import COLLECTION, ITEMS, Results
from odc_openeo.storage import Storage, storage

FIXED: Final = ("type", "stac_version", "stac_extensions", "links", "extent")
"""Members of the Collection that follow from the data."""
TRANSIENT: Final = ("expires", "unpublished", "openeo:status")
"""What only results of jobs have: exports stay."""


@dataclass(frozen=True)
class SavedStac:
    """The STAC Collection of what one `save_result` writes; ``output`` is which of the graph, from zero.

    ``changes`` are merge patches (RFC 7386) for the Collection, in order.
    """

    openeo_subtypes: ClassVar = ("stac",)

    output: int
    format: str
    changes: tuple[Mapping[str, Any], ...] = ()

    @property
    def id(self) -> str | None:
        """The id that a change gave to the Collection."""
        return next((str(c["id"]) for c in reversed(self.changes) if c.get("id")), None)


@dataclass(frozen=True)
class ToWorkspace:
    """An export into a workspace of the user; ``merge`` is the path of a Collection to add to."""

    stac: SavedStac
    workspace: str
    merge: str | None


@dataclass(frozen=True)
class ToCollection:
    """An export to a collection of the user."""

    stac: SavedStac
    collection: str


Export = ToWorkspace | ToCollection


@dataclass(frozen=True)
class Package:
    """A STAC Collection, its Items by id, and its files; links and addresses are relative to one folder.

    ``run`` is the same whenever the same run exports the same: what it has left behind may be replaced.
    ``source`` is the folder of the files in the storage; a file may be a folder (Zarr).
    """

    run: str
    collection: dict[str, Any]
    items: Mapping[str, dict[str, Any]]
    source: str
    files: Sequence[str]


def merge_patch(target: Any, patch: Any) -> Any:
    """The target changed as RFC 7386 (JSON Merge Patch) says: null removes, objects are merged."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def package(found: Results, stac: SavedStac, run: str, source: str) -> Package:
    """What one `save_result` has written, ready to be exported: ``found`` are its files only."""

    def href(name: str) -> str:
        return f"./{name.removeprefix(f'{ITEMS}/')}"

    items = {id_: _item(results.item(found, id_, href, 0) or {}) for id_ in results.items(found)}
    placed = {name for item in items.values() for name in item["assets"]}
    collection = _lasting(results.collection(found, href, 0))
    collection["id"] = run
    collection["links"] = [link for link in collection["links"] if link["rel"] in ("item", "derived_from")]
    collection["assets"] = {k: v for k, v in collection["assets"].items() if k not in placed}
    for change in stac.changes:
        collection = merge_patch(collection, change)
    for item in items.values():
        item["collection"] = collection["id"]
    return Package(run, collection, items, source, [str(asset["name"]) for asset in found.assets])


def _item(item: dict[str, Any]) -> dict[str, Any]:
    item["properties"] = _lasting(item["properties"])
    item["links"] = [_to_collection(rel, COLLECTION) for rel in ("collection", "parent")]
    return item


def _to_collection(rel: str, path: str) -> dict[str, Any]:
    return {"rel": rel, "href": f"./{path}", "type": "application/json"}


def _lasting(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in TRANSIENT}


def moved(document: dict[str, Any], folder: str) -> dict[str, Any]:
    """The document with the addresses of its Items and files led into a folder below it."""

    def address(each: Mapping[str, Any]) -> dict[str, Any]:
        return {**each, "href": f"./{folder}/{each['href'].removeprefix('./')}"}

    links = [address(link) if link["rel"] == "item" else link for link in document["links"]]
    assets = {name: address(asset) for name, asset in document.get("assets", {}).items()}
    return {**document, "links": links, "assets": assets}


def sizes(config: Config, content: Package) -> dict[str, int]:
    """The sizes in bytes of all files of a package, by path below its source."""
    top = f"{content.source}/"
    found = [storage(config).sizes(f"{top}{file}") for file in content.files]
    return {key.removeprefix(top): size for each in found for key, size in each.items()}


def copy_files(config: Config, content: Package, store: Storage, folder: str) -> None:
    """Copy all files of a package into a folder of a storage."""
    for path in sizes(config, content):
        with storage(config).open(f"{content.source}/{path}") as stream:
            store.write(f"{folder}/{path}", stream)


def fixed_members(changes: Mapping[str, Any]) -> Iterator[str]:
    """The names of what changes would touch though it follows from the data."""
    yield from (name for name in FIXED if name in changes)
    if "assets" in changes:
        yield "assets"
