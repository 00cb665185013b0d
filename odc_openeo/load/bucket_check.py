"""Check whether the buckets that the operator has rules for can be reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from rasterio.io import DatasetReader

from odc_openeo.catalog import Catalog
from odc_openeo.config import Config
from odc_openeo.load.object_environment import expose_object
from odc_openeo.load.object_failures import Failure, describe_failure
from odc_openeo.storage.buckets import (
    AddressRefusedError,
    BucketAccess,
    BucketRules,
    find_location,
    read_bucket_rules,
)
from odc_openeo.untrusted.gdal_drivers import FOLDER_FORMATS, SELF_CONTAINED

PROBE: Final = "odc-openeo-doctor"
"""The key of an object that does not exist."""

THREADS: Final = 8

EMPTY: Final = "no dataset of the index is there"


@dataclass(frozen=True)
class _Probe:
    """A rule to check: ``uri`` is an indexed file, or an object that should not exist."""

    name: str
    access: BucketAccess
    uri: str
    is_indexed: bool


def check_buckets(config: Config) -> str:
    """Read from each bucket that there is a rule for; return what was reached.

    Raises:
        BucketRulesError: the rules are not valid.
        ValueError: some buckets cannot be read; the message says why, and what to do.
    """
    rules = read_bucket_rules(config.buckets)
    if not rules.products and not rules.prefixes:
        return "no rules; buckets are reached as the environment says"
    probes = list(_list_probes(rules, _find_files(config, rules)))
    with ThreadPoolExecutor(THREADS) as pool:
        failures = list(pool.map(_find_failure, probes))
    problems = [f"{p.name}: {f.reason}; {f.cure}" for p, f in zip(probes, failures, strict=True) if f]
    if problems:
        raise ValueError("; ".join(problems))
    names = [probe.name if probe.is_indexed else f"{probe.name} ({EMPTY})" for probe in probes]
    missing = {f"product {product}" for product in rules.products} - {probe.name for probe in probes}
    return f"can read {', '.join([*names, *(f'{name} ({EMPTY})' for name in sorted(missing))])}"


def _find_files(config: Config, rules: BucketRules) -> dict[str, str]:
    """A file of the index for each rule that has one, by the name of the rule."""
    catalog = Catalog(config)
    files: dict[str, str] = {}
    try:
        for collection in catalog.list_collections():
            for uri in _list_preview_files(catalog, collection["id"]):
                name = _find_rule(uri, collection["id"], rules)
                if name is not None:
                    files.setdefault(name, uri)
    except Exception:  # the index has a finding of its own
        return files
    finally:
        catalog.close()
    return files


def _list_preview_files(catalog: Catalog, product: str) -> list[str]:
    try:
        scene = catalog.find_preview_scene(product)
    except Exception:  # datasets of one product that cannot be loaded must not hide the others
        return []
    return [] if scene is None else [file.href for file in scene.files.values()]


def _find_rule(uri: str, product: str, rules: BucketRules) -> str | None:
    try:
        location = find_location(uri)
    except AddressRefusedError:
        return None
    if location is None:
        return None
    return f"product {product}" if product in rules.products else rules.find_prefix(location)


def _list_probes(rules: BucketRules, files: Mapping[str, str]) -> Iterator[_Probe]:
    for product, access in rules.products.items():
        name = f"product {product}"
        if name in files:
            yield _Probe(name, access, files[name], True)
    for prefix, access in rules.prefixes.items():
        uri = files.get(prefix)
        yield _Probe(prefix, access, uri or f"{prefix.rstrip('/')}/{PROBE}", uri is not None)


def _find_failure(probe: _Probe) -> Failure | None:
    try:
        with (
            expose_object(probe.uri, probe.access) as name,
            DatasetReader(name, driver=sorted(SELF_CONTAINED - FOLDER_FORMATS), sharing=False),
        ):
            return None
    except Exception as error:
        failure = describe_failure(error, probe.uri)
    # Who may not list a bucket is denied what does not exist, too.
    is_expected = failure.kind in ("object", "denied", "damaged") and not probe.is_indexed
    return None if is_expected else failure
