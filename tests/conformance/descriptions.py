"""Compare process descriptions with the official ones: ``python -m tests.conformance.descriptions [DIR]``.

Prose (titles, descriptions, examples) is left out; parameters by position, names, optionality, defaults and
JSON Schemas, return schemas, and the codes of exceptions must be equal. A parameter may be added if it has a
default.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo.registry.process import PROCESSES

DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "openeo" / "processes"
PROSE = {"description", "title", "examples", "summary", "links", "$comment"}


def official(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The official descriptions by process id, proposals included."""
    paths = [*folder.glob("*.json"), *(folder / "proposals").glob("*.json")]
    return {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted(paths)}


def without_prose(schema: Any, inside_properties: bool = False) -> Any:
    """A JSON Schema without its prose."""
    if isinstance(schema, Mapping):
        return {
            k: without_prose(v, k == "properties")
            for k, v in schema.items()
            if inside_properties or k not in PROSE
        }
    return [without_prose(v) for v in schema] if isinstance(schema, list) else schema


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two descriptions of a process."""
    our_parameters, given = ours["parameters"], theirs["parameters"]
    if [p["name"] for p in our_parameters[: len(given)]] != [p["name"] for p in given]:
        yield f"parameters {[p['name'] for p in our_parameters]}, officially {[p['name'] for p in given]}"
        return
    for parameter in our_parameters[len(given) :]:
        if not parameter.get("optional"):
            yield f"the additional parameter {parameter['name']} has no default"
    for a, b in zip(our_parameters, given, strict=False):
        yield from (f"{b['name']}: {text}" for text in _parameter_differences(a, b))
    if without_prose(ours["returns"]["schema"]) != without_prose(theirs["returns"]["schema"]):
        yield f"returns {_show(ours['returns']['schema'])}, officially {_show(theirs['returns']['schema'])}"
    if set(ours["categories"]) != set(theirs.get("categories", [])):
        yield f"categories {ours['categories']}, officially {theirs.get('categories')}"
    missing = set(theirs.get("exceptions", {})) - set(ours.get("exceptions", {}))
    if missing:
        yield f"exceptions {sorted(missing)} are missing"


def _parameter_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    for key in ("optional", "deprecated"):
        if ours.get(key, False) != theirs.get(key, False):
            yield f"{key} is {ours.get(key, False)}, officially {theirs.get(key, False)}"
    if ours.get("default") != theirs.get("default"):
        yield f"default {ours.get('default')!r}, officially {theirs.get('default')!r}"
    if without_prose(ours["schema"]) != without_prose(theirs["schema"]):
        yield f"schema {_show(ours['schema'])}, officially {_show(theirs['schema'])}"


def _show(schema: Any) -> str:
    return json.dumps(without_prose(schema))


def main(arguments: list[str]) -> int:
    """Compare all, print the differences, return the exit code."""
    result = official(Path(arguments[0]) if arguments else DEFAULT)
    different = 0
    for id_, theirs in result.items():
        if id_ not in PROCESSES:
            continue
        lines = list(differences(PROCESSES[id_].to_dict(), theirs))
        different += bool(lines)
        for line in lines:
            print(f"{id_}: {line}")
    missing = [id_ for id_ in result if id_ not in PROCESSES]
    print(f"not offered: {', '.join(missing) or 'none'}")
    same = len(result) - len(missing) - different
    print(f"{same} passed, {different} failed")
    return 1 if different or not same else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
