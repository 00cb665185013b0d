"""Results of batch jobs: what was published, signed links to it, and its STAC metadata."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import ResultLinkExpired
from odc_openeo.jobs import Job
from odc_openeo.jobs.store import job_of

STAC_VERSION: Final = "1.1.0"
EXTENSIONS: Final = (
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
)
WORLD: Final = (-180.0, -90.0, 180.0, 90.0)
LINK_STEP_S: Final = 3600
"""Links of the same hour are the same, so that caches and interrupted downloads can use them."""

COLLECTION: Final = "collection.json"
THUMBNAIL: Final = "thumbnail"
"""The role of a small picture of the results."""

ITEMS: Final = "items"

Href = Callable[[str], str]
"""The signed URL of a file or document of the results, by name."""


@dataclass(frozen=True)
class Results:
    """The files of a job; only some of them while it is not ``complete``."""

    job: Job
    attempt: UUID
    complete: bool
    assets: Sequence[Mapping[str, Any]]
    details: Mapping[str, Any]
    created: datetime
    expires: datetime | None

    @property
    def folder(self) -> str:
        """Where in the storage the files are."""
        return f"results/{self.job.id}/{self.attempt}"

    @property
    def data(self) -> Sequence[Mapping[str, Any]]:
        """What was asked for. The thumbnail is no asset: clients take a single asset for the result."""
        return [asset for asset in self.assets if THUMBNAIL not in asset.get("roles", ())]

    @property
    def thumbnail(self) -> str | None:
        """The name of the thumbnail."""
        return next((a["name"] for a in self.assets if THUMBNAIL in a.get("roles", ())), None)

    def asset(self, name: str) -> Mapping[str, Any] | None:
        """The asset that a file belongs to: itself, or the folder it is in."""
        top = name.partition("/")[0]
        found = next((a for a in self.assets if a["name"] == top), None)
        return found if found is None or top == name or found.get("folder") else None


def find(config: Config, job: Job) -> Results | None:
    """What the job has published, None if nothing."""
    with db.session(config) as session:
        row = session.get(db.JobResult, job.id)
    return None if row is None else _results(row, job)


def _results(row: db.JobResult, job: Job) -> Results:
    assets, details = json.loads(row.assets), json.loads(row.details)
    return Results(job, row.attempt, row.complete, assets, details, row.created, row.expires)


# --- Signed links --------------------------------------------------------------------------------


def expiry(config: Config) -> int:
    """When a link made now expires, in seconds since 1970."""
    until = time.time() + config.link_lifetime_hours * 3600
    return math.ceil(until / LINK_STEP_S) * LINK_STEP_S


def sign(config: Config, job: UUID, attempt: UUID, expires: int) -> str:
    """The signature of links to the results of one attempt: they end with it, and with the key."""
    message = f"results {job} {attempt} {expires}".encode()
    return hmac.new(config.signing_key(), message, hashlib.sha256).hexdigest()[:40]


def open_link(config: Config, job: UUID, expires: int, signature: str) -> Results:
    """The results that a signed link leads to.

    Raises:
        ResultLinkExpired: its time is over, the results are others by now or gone, or it was never right.
    """
    if expires < time.time():
        raise ResultLinkExpired
    with db.session(config) as session:
        found = session.execute(
            select(db.JobResult, db.Job)
            .join(db.Job, db.Job.id == db.JobResult.job_id)
            .where(db.Job.id == job)
        ).one_or_none()
    if found is None or not hmac.compare_digest(signature, sign(config, job, found[0].attempt, expires)):
        raise ResultLinkExpired
    return _results(found[0], job_of(found[1], found[0].expires))


# --- STAC ----------------------------------------------------------------------------------------


def empty(job: Job) -> Results:
    """The results of a job that has not written any file yet."""
    return Results(job, job.attempt or job.id, False, (), {}, job.updated, None)


def collection(results: Results, href: Href, expires: int) -> dict[str, Any]:
    """All results as a STAC 1.1 Collection: its assets are all files, its items tell where they are."""
    job, details = results.job, results.details
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": str(job.id),
        "title": job.draft.title or f"Results of batch job {job.id}",
        "description": job.draft.description or "Computed by an openEO batch job.",
        "license": details.get("license", "other"),
        "providers": providers(results),
        "extent": _extent(results),
        **_times(results, expires),
        "openeo:status": job.status,
        "assets": {asset["name"]: asset_of(asset, href) for asset in results.data},
        "links": [
            _link("canonical", href(COLLECTION), "These metadata, by a signed link"),
            *_preview(results, href),
            *(
                _link("item", href(f"{ITEMS}/{id_}.json"), id_, "application/geo+json")
                for id_ in items(results)
            ),
            *_derived_from(details),
        ],
        **_provenance(results),
    }


def feature(results: Results, href: Href, expires: int) -> dict[str, Any]:
    """All results as one STAC Item."""
    return _item(str(results.job.id), results, results.data, href, expires)


def items(results: Results) -> dict[str, list[Mapping[str, Any]]]:
    """Assets by the id of their item: those of one time and place share one; no place, no item."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for asset in results.assets:
        if asset.get("bbox"):
            place = [
                asset.get(k) for k in ("datetime", "start_datetime", "end_datetime", "bbox", "projection")
            ]
            groups.setdefault(json.dumps(place, sort_keys=True), []).append(asset)
    return {str(group[0]["name"]).rpartition(".")[0]: group for group in groups.values()}


def item(results: Results, id_: str, href: Href, expires: int) -> dict[str, Any] | None:
    """One STAC 1.1 Item of the results, None if there is none of this id."""
    found = items(results).get(id_)
    return None if found is None else _item(id_, results, found, href, expires)


def _item(
    id_: str, results: Results, assets: Sequence[Mapping[str, Any]], href: Href, expires: int
) -> dict[str, Any]:
    placed = [a for a in assets if a.get("bbox")]
    bbox = _bbox(placed)
    geometry = placed[0].get("geometry") if len(placed) == 1 else _box_geometry(bbox)
    alike = {json.dumps(a.get("projection", {}), sort_keys=True) for a in placed}
    projection = dict(placed[0].get("projection", {})) if len(alike) == 1 else {}
    whole = id_ == str(results.job.id)
    found = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": id_,
        "geometry": geometry,
        "bbox": list(bbox) if bbox else None,
        "properties": {
            "title": results.job.draft.title or id_,
            **_moment(results, assets),
            **projection,
            **_times(results, expires),
            "openeo:status": results.job.status,
            "license": results.details.get("license", "other"),
            "providers": providers(results),
            **_provenance(results),
        },
        "assets": {asset["name"]: asset_of(asset, href) for asset in assets},
        "links": [
            _link("canonical" if whole else "self", href(f"{ITEMS}/{id_}.json"), id_, "application/geo+json"),
            _link("collection", href(COLLECTION), "All results of the job"),
            _link("parent", href(COLLECTION), "All results of the job"),
            *_preview(results, href),
        ],
    }
    if not whole:
        found["collection"] = str(results.job.id)
    return {name: value for name, value in found.items() if value is not None or name == "geometry"}


def asset_of(asset: Mapping[str, Any], href: Href) -> dict[str, Any]:
    """A STAC Asset."""
    shown = ("type", "title", "roles", "bands", "file:size", "file:checksum")
    found = {name: asset[name] for name in shown if name in asset}
    return {"href": href(asset["name"]), **found, **asset.get("projection", {})}


def providers(results: Results) -> list[dict[str, Any]]:
    """Who made the data, and this service, which has processed it."""
    own = {"name": results.details.get("facility", "odc-openeo"), "roles": ["processor", "host"]}
    others = [p for p in results.details.get("providers", ()) if p["name"] != own["name"]]
    return [*others, own]


def _extent(results: Results) -> dict[str, Any]:
    times = [t for a in results.assets for t in _asset_times(a)]
    interval = [min(times), max(times)] if times else results.details.get("interval") or [None, None]
    created = rfc3339(results.job.created)
    bounds = [interval[0] or created, interval[1] or created]
    return {
        "spatial": {"bbox": [list(_bbox(results.assets) or WORLD)]},
        "temporal": {"interval": [bounds]},
    }


def _asset_times(asset: Mapping[str, Any]) -> list[str]:
    return [asset[k] for k in ("datetime", "start_datetime", "end_datetime") if asset.get(k)]


def _moment(results: Results, assets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    times = [t for a in assets for t in _asset_times(a)] or list(results.details.get("interval") or ())
    if not times:
        return {"datetime": rfc3339(results.job.created)}
    if min(times) == max(times):
        return {"datetime": times[0]}
    return {"datetime": None, "start_datetime": min(times), "end_datetime": max(times)}


def _bbox(assets: Sequence[Mapping[str, Any]]) -> tuple[float, ...] | None:
    boxes = [a["bbox"] for a in assets if a.get("bbox")]
    if not boxes:
        return None
    west, south, east, north = zip(*boxes, strict=True)
    return min(west), min(south), max(east), max(north)


def _box_geometry(bbox: Sequence[float] | None) -> dict[str, Any] | None:
    if bbox is None:
        return None
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _times(results: Results, expires: int) -> dict[str, Any]:
    job = results.job
    found = {
        "created": job.created,
        "updated": job.updated,
        "queued": job.queued,
        "started": job.started,
        "expires": datetime.fromtimestamp(expires, UTC),
        "unpublished": results.expires,
    }
    return {name: rfc3339(value) for name, value in found.items() if value is not None}


def _provenance(results: Results) -> dict[str, Any]:
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
    }


def _preview(results: Results, href: Href) -> list[dict[str, Any]]:
    name = results.thumbnail
    return [] if name is None else [_link("preview", href(name), "Thumbnail", "image/png")]


def _derived_from(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    collections = dict.fromkeys(each["collection"] for each in details.get("inputs", ()))
    api = details.get("api")
    return (
        [
            _link("derived_from", f"{api}/collections/{name}", f"Input collection {name}")
            for name in collections
        ]
        if api
        else []
    )


def _link(rel: str, href: str, title: str, type_: str = "application/json") -> dict[str, Any]:
    return {"rel": rel, "href": href, "type": type_, "title": title}


def rfc3339(time_: datetime) -> str:
    """A time in UTC, to the second, as the API writes it."""
    return time_.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
