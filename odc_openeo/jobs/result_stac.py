"""The results of a batch job as STAC Collection and Items."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import shapely

from odc_openeo.catalog.stac_documents import STAC_VERSION, WORLD
from odc_openeo.jobs import Job
from odc_openeo.spatial.globe import enclose_longitudes, outline_geojson, wrap_longitude
from odc_openeo.timestamps import format_rfc3339

EXTENSIONS: Final = (
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
)

COLLECTION: Final = "collection.json"
ITEMS: Final = "items"
ITEMS_TABLE: Final = "items.parquet"
"""All Items as stac-geoparquet, unless a file of the results has this name."""
THUMBNAIL: Final = "thumbnail"
"""The role of the preview picture of the results."""

Href = Callable[[str], str]
"""The signed URL of a file or document of the results, by name."""


@dataclass(frozen=True)
class Results:
    """The files of a job; while it is not ``complete``, those written so far."""

    job: Job
    attempt: UUID
    complete: bool
    assets: Sequence[Mapping[str, Any]]
    details: Mapping[str, Any]
    created: datetime
    expires: datetime | None

    @property
    def folder(self) -> str:
        """The folder of the storage with the files."""
        return f"results/{self.job.id}/{self.attempt}"

    @property
    def data(self) -> Sequence[Mapping[str, Any]]:
        """All assets but the thumbnail, as clients assume that a single asset is the result."""
        return [asset for asset in self.assets if THUMBNAIL not in asset.get("roles", ())]

    @property
    def thumbnail(self) -> str | None:
        """The name of the thumbnail, None if there is none."""
        return next((a["name"] for a in self.assets if THUMBNAIL in a.get("roles", ())), None)

    def find_asset(self, name: str) -> Mapping[str, Any] | None:
        """Return the asset that a file belongs to: itself, or the folder it is in. None if there is none."""
        top = name.partition("/")[0]
        asset = next((a for a in self.assets if a["name"] == top), None)
        return asset if asset is None or top == name or asset.get("folder") else None


def find_asset_key(asset: Mapping[str, Any], name: str) -> str:
    """Return where a file of an asset is, below the folder of the results.

    Files of parts are in folders of their own; the names of their assets do not tell.
    """
    path = str(asset.get("path", asset["name"]))
    return path + name.removeprefix(str(asset["name"]))


def make_collection(results: Results, href: Href, expires: int) -> dict[str, Any]:
    """Return all results as a STAC 1.1 Collection: its assets are all files, its Items locate them."""
    job, details = results.job, results.details
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": str(job.id),
        "title": job.draft.title or f"Results of batch job {job.id}",
        "description": job.draft.description or "Computed by an openEO batch job.",
        "license": details.get("license", "other"),
        "providers": list_providers(results),
        "extent": _make_extent(results),
        **_make_timestamps(results, expires),
        "openeo:status": job.status,
        "assets": {asset["name"]: make_asset(asset, href) for asset in results.data},
        "links": [
            _make_link("canonical", href(COLLECTION), "This metadata, by a signed link"),
            *_make_preview_links(results, href),
            *(
                _make_link("item", href(f"{ITEMS}/{id_}.json"), id_, "application/geo+json")
                for id_ in group_items(results)
            ),
            *_make_table_links(results, href),
            *_make_source_links(details),
        ],
        **_make_provenance(results),
    }


def has_items_table(results: Results) -> bool:
    """Whether there is a table of the Items."""
    return bool(group_items(results)) and results.find_asset(ITEMS_TABLE) is None


def _make_table_links(results: Results, href: Href) -> list[dict[str, Any]]:
    media_type = "application/vnd.apache.parquet"
    if not has_items_table(results):
        return []
    return [_make_link("items", href(ITEMS_TABLE), "All Items as stac-geoparquet", media_type)]


def make_feature(results: Results, href: Href, expires: int) -> dict[str, Any]:
    """Return all results as one STAC Item."""
    return _make_item(str(results.job.id), results, results.data, href, expires)


def group_items(results: Results) -> dict[str, list[Mapping[str, Any]]]:
    """Group assets by the id of their Item: assets of the same time and place share one.

    Assets without a place have no Item.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for asset in results.assets:
        if asset.get("bbox"):
            place = [
                asset.get(k) for k in ("datetime", "start_datetime", "end_datetime", "bbox", "projection")
            ]
            groups.setdefault(json.dumps(place, sort_keys=True), []).append(asset)
    return {str(group[0]["name"]).rpartition(".")[0]: group for group in groups.values()}


def find_item(results: Results, id_: str, href: Href, expires: int) -> dict[str, Any] | None:
    """Return one STAC 1.1 Item of the results, None if there is none with this id."""
    assets = group_items(results).get(id_)
    return None if assets is None else _make_item(id_, results, assets, href, expires)


def _make_item(
    id_: str, results: Results, assets: Sequence[Mapping[str, Any]], href: Href, expires: int
) -> dict[str, Any]:
    placed = [a for a in assets if a.get("bbox")]
    bbox = _find_bbox(placed)
    geometry = placed[0].get("geometry") if len(placed) == 1 else _make_geometry(bbox)
    projections = {json.dumps(a.get("projection", {}), sort_keys=True) for a in placed}
    projection = dict(placed[0].get("projection", {})) if len(projections) == 1 else {}
    is_whole = id_ == str(results.job.id)
    document = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": id_,
        "geometry": geometry,
        "bbox": list(bbox) if bbox else None,
        "properties": {
            "title": results.job.draft.title or id_,
            **_make_datetime(results, assets),
            **projection,
            **_make_timestamps(results, expires),
            "openeo:status": results.job.status,
            "license": results.details.get("license", "other"),
            "providers": list_providers(results),
            **_make_provenance(results),
        },
        "assets": {asset["name"]: make_asset(asset, href) for asset in assets},
        "links": [
            _make_link(
                "canonical" if is_whole else "self", href(f"{ITEMS}/{id_}.json"), id_, "application/geo+json"
            ),
            _make_link("collection", href(COLLECTION), "All results of the job"),
            _make_link("parent", href(COLLECTION), "All results of the job"),
            *_make_preview_links(results, href),
        ],
    }
    if not is_whole:
        document["collection"] = str(results.job.id)
    return {name: value for name, value in document.items() if value is not None or name == "geometry"}


def make_asset(asset: Mapping[str, Any], href: Href) -> dict[str, Any]:
    """Return a STAC Asset."""
    names = ("type", "title", "roles", "bands", "file:size", "file:checksum")
    properties = {name: asset[name] for name in names if name in asset}
    return {"href": href(asset["name"]), **properties, **asset.get("projection", {})}


def list_providers(results: Results) -> list[dict[str, Any]]:
    """List the providers of the input data, and this service, which has processed it."""
    service = {"name": results.details.get("facility", "odc-openeo"), "roles": ["processor", "host"]}
    producers = [p for p in results.details.get("providers", ()) if p["name"] != service["name"]]
    return [*producers, service]


def _make_extent(results: Results) -> dict[str, Any]:
    times = [t for a in results.assets for t in _list_asset_times(a)]
    interval = [min(times), max(times)] if times else results.details.get("interval") or [None, None]
    created = format_rfc3339(results.job.created)
    bounds = [interval[0] or created, interval[1] or created]
    return {
        "spatial": {"bbox": [list(_find_bbox(results.assets) or WORLD)]},
        "temporal": {"interval": [bounds]},
    }


def _list_asset_times(asset: Mapping[str, Any]) -> list[str]:
    return [asset[k] for k in ("datetime", "start_datetime", "end_datetime") if asset.get(k)]


def _make_datetime(results: Results, assets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    times = [t for a in assets for t in _list_asset_times(a)] or list(results.details.get("interval") or ())
    if not times:
        return {"datetime": format_rfc3339(results.job.created)}
    if min(times) == max(times):
        return {"datetime": times[0]}
    return {"datetime": None, "start_datetime": min(times), "end_datetime": max(times)}


def _find_bbox(assets: Sequence[Mapping[str, Any]]) -> tuple[float, ...] | None:
    boxes = [a["bbox"] for a in assets if a.get("bbox")]
    if not boxes:
        return None
    _, south, _, north = zip(*boxes, strict=True)
    intervals = [(box[0], box[2] if box[0] <= box[2] else box[2] + 360) for box in boxes]
    west, east = enclose_longitudes(intervals) if len(set(intervals)) > 1 else intervals[0]
    return west, min(south), wrap_longitude(east), max(north)


def _make_geometry(bbox: Sequence[float] | None) -> dict[str, Any] | None:
    if bbox is None:
        return None
    west, south, east, north = bbox
    return outline_geojson(shapely.box(west, south, east if west <= east else east + 360, north))


def _make_timestamps(results: Results, expires: int) -> dict[str, Any]:
    job = results.job
    times = {
        "created": job.created,
        "updated": job.updated,
        "queued": job.queued,
        "started": job.started,
        "expires": datetime.fromtimestamp(expires, UTC),
        "unpublished": results.expires,
    }
    return {name: format_rfc3339(value) for name, value in times.items() if value is not None}


def _make_provenance(results: Results) -> dict[str, Any]:
    details = results.details
    if not details:
        return {}
    return {
        "processing:datetime": details["processed"],
        "processing:facility": details["facility"],
        "processing:software": details["software"],
        "processing:expression": {"format": "openeo", "expression": results.job.draft.process},
        "odc:inputs": details["inputs"],
        "odc:input_count": details["input_count"],
        **({"odc:missing_parts": details["missing_parts"]} if "missing_parts" in details else {}),
    }


def _make_preview_links(results: Results, href: Href) -> list[dict[str, Any]]:
    name = results.thumbnail
    return [] if name is None else [_make_link("preview", href(name), "Thumbnail", "image/png")]


def _make_source_links(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    collections = dict.fromkeys(dataset["collection"] for dataset in details.get("inputs", ()))
    api = details.get("api")
    return (
        [
            _make_link("derived_from", f"{api}/collections/{name}", f"Input collection {name}")
            for name in collections
        ]
        if api
        else []
    )


def _make_link(rel: str, href: str, title: str, type_: str = "application/json") -> dict[str, Any]:
    return {"rel": rel, "href": href, "type": type_, "title": title}
