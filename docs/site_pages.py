"""Pages of the documentation site that are made from the code: the reference, and the notebooks.

MkDocs calls the functions ``on_...`` of this file while it builds the site.
"""

from __future__ import annotations

import json
import posixpath
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

import odc_openeo.processes  # noqa: F401  (registers them)
from odc_openeo import errors
from odc_openeo.api import openapi
from odc_openeo.api.backend import API_PATH
from odc_openeo.api.pages.schemas import describe_type
from odc_openeo.app import create_app
from odc_openeo.config import PREFIX, Config, describe_field
from odc_openeo.formats import describe_formats
from odc_openeo.registry.process import PROCESSES

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/odc-openeo/odc-openeo/blob/main/"
NOTEBOOK_LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\.ipynb\)")
LIMIT = re.compile(
    r"_(bytes|s|hours|days|user|address|nodes|depth|tasks|attempts|tries|entries|memory|output|disk|threads)$"
    r"|^runners$"
)
"""Names of settings that limit something."""

LINK = re.compile(r"\]\((?P<target>\.\./[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """List the decisions in the navigation by their numbers."""
    paths = sorted((ROOT / "docs" / "adr").glob("*.md"))
    pages = [f"adr/{path.name}" for path in paths]
    config.nav = replace_entry(config.nav, "adr/", pages)
    return config


def replace_entry(nav: Any, entry: str, pages: list[str]) -> Any:
    """Return the navigation with a list of pages in the place of an entry."""
    if isinstance(nav, list):
        return [replace_entry(item, entry, pages) for item in nav]
    if isinstance(nav, dict):
        return {title: replace_entry(item, entry, pages) for title, item in nav.items()}
    return pages if nav == entry else nav


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from the code."""
    pages = {
        "reference/settings.md": describe_settings(),
        "reference/process-list.md": describe_processes(),
        "reference/errors.md": describe_errors(),
        "reference/endpoints.md": describe_endpoints(),
        "reference/formats.md": describe_format_options(),
        "reference/limits.md": describe_limits(),
    }
    for path in sorted((ROOT / "docs").glob("*/*.ipynb")):
        files.remove(files.get_file_from_path(f"{path.parent.name}/{path.name}"))
        pages[f"{path.parent.name}/{path.stem}.md"] = describe_notebook(path)
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to files of the repository outside of the documentation lead there."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", folder, match["target"]))
        if target.startswith("docs/"):
            return match[0]
        if not (ROOT / target).exists():
            raise ValueError(f"{page.file.src_uri}: {match['target']} does not exist")
        return f"]({REPOSITORY}{target}{match['anchor'] or ''})"

    return NOTEBOOK_LINK.sub(r"](\1.md)", LINK.sub(replace, markdown))


# --- Pages ---------------------------------------------------------------------------------------


def describe_settings() -> str:
    """Make the page of all settings from their definitions."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {describe_default(field)} "
        f"| {escape_cell(describe_field(name, field))} |"
        for name, field in Config.model_fields.items()
    ]
    head = [
        "# Settings",
        "",
        "Each setting is an environment variable. `odc-openeo doctor --settings` prints them with the",
        "values of an installation; unknown names are reported at the start.",
        "",
        "| setting | default | meaning |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def describe_default(field: Any) -> str:
    """Describe a default: nothing for those that depend on the machine."""
    default = None if field.is_required() or field.default_factory else field.default
    return "" if default in (None, "", ()) else f"`{default}`"


def describe_processes() -> str:
    """Make the page of all processes from their descriptions."""
    descriptions = [PROCESSES[id_].to_dict() for id_ in sorted(PROCESSES)]
    rows = [
        f"| `{process['id']}` | {escape_cell(process['summary'])} | {', '.join(process['categories'])} |"
        for process in descriptions
    ]
    head = [
        "# List of processes",
        "",
        f"The {len(rows)} processes that the service offers; `GET /processes` describes their parameters.",
        "",
        "| process | summary | categories |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def describe_errors() -> str:
    """Make the page of all error codes from their classes."""
    kinds = sorted(set(iterate_errors(errors.OpenEOError)), key=lambda kind: kind.__name__)
    rows = [f"| `{kind.__name__}` | {kind.status} | {escape_cell(kind.template)} |" for kind in kinds]
    head = [
        "# Error codes",
        "",
        "Every error is an object with `code`, `message` and an `id`, which the log of the server has too;",
        "words in braces are filled in.",
        "",
        "| code | HTTP status | message |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def describe_endpoints() -> str:
    """Make the page of all addresses of the service, in groups."""
    with tempfile.TemporaryDirectory() as folder:
        # Nothing connects to a database as long as nothing is asked.
        app = create_app(Config(database_url="postgresql://nobody@127.0.0.1/nothing", data_dir=Path(folder)))
        with app.test_request_context():
            described = openapi.describe_api()
    summaries = {tag["name"]: tag["description"] for tag in described["tags"]}
    groups: dict[str, list[str]] = {name: [] for name in summaries}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            needs = "" if operation["security"] == [{}] else ", ".join(*operation["security"])
            row = f"| {method.upper()} | `{path}` | {escape_cell(operation['summary'])} | {needs} |"
            groups[operation["tags"][0]].append(row)
    parts = [
        "# Endpoints",
        "",
        f"Addresses below `{API_PATH}` are the openEO API and the STAC API; clients find them by",
        "`/.well-known/openeo`. A running service describes all of them with parameters and bodies at `/api`",
        "(OpenAPI) and `/api.html`. *Bearer* is the token of a signed-in user.",
    ]
    for name, rows in groups.items():
        title = name.replace("_", " ").capitalize()
        parts += ["", f"## {title}", "", escape_cell(summaries[name]), ""]
        parts += ["| method | address | what it does | needs |", "|---|---|---|---|", *rows]
    return "\n".join(parts)


def describe_format_options() -> str:
    """Make the page of all formats with their options."""
    formats = describe_formats()
    parts = ["# Formats and options", "", "[File formats](../formats.md) says what the files look like."]
    for direction, title in (("output", "Written"), ("input", "Read")):
        for name, format_ in formats[direction].items():
            kinds = ", ".join(format_["gis_data_types"])
            parts += ["", f"## {title}: {name}", "", f"{format_['title']} ({kinds})."]
            if format_["parameters"]:
                parts += ["", "| option | type | default | meaning |", "|---|---|---|---|"]
            for option, schema in format_["parameters"].items():
                default = f"`{json.dumps(schema['default'])}`" if "default" in schema else ""
                meaning = escape_cell(schema.get("description", ""))
                parts.append(f"| `{option}` | {describe_type(schema)} | {default} | {meaning} |")
    return "\n".join(parts)


def describe_limits() -> str:
    """Make the page of the settings that limit something, with their defaults in the units of people."""
    limits = {
        name: field
        for name, field in Config.model_fields.items()
        if LIMIT.search(name) and type(field.default) in (int, float)
    }
    rows = [
        f"| {escape_cell(field.description or '')} | {describe_amount(name, field.default)} "
        f"| `{PREFIX}{name.upper()}` |"
        for name, field in limits.items()
    ]
    head = [
        "# Limits",
        "",
        "What the operator can change. What happens beyond each limit, and limits that are fixed, are in",
        "[limits and safety](../safety.md#limits) and, for process graphs, in",
        "[processes](../processes.md#arguments-and-limits).",
        "",
        "| what | default | setting |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def describe_amount(name: str, amount: float) -> str:
    """Write an amount with the unit that the name of its setting implies."""
    if re.search(r"(bytes|memory|output|disk)$", name) or name == "udf_cache_user_bytes":
        for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if amount >= size:
                return f"{amount / size:g} {unit}"
        return f"{amount:g} bytes"
    unit = re.search(r"_(s|hours|days)$", name)
    words = {"s": "seconds", "hours": "hours", "days": "days"}
    return f"{amount:,} {words[unit[1]]}" if unit else f"{amount:,}"


def iterate_errors(kind: type[errors.OpenEOError]) -> Iterator[type[errors.OpenEOError]]:
    """Iterate over the classes of errors that have a code of their own."""
    for child in kind.__subclasses__():
        yield from iterate_errors(child)
        if child.__module__ == errors.__name__ and not child.__name__.startswith("_"):
            yield child


def describe_notebook(path: Path) -> str:
    """Make a page from the cells of a notebook; its picture stands below the cell that draws it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        if cell["metadata"].get("picture"):
            parts.append(f"![What this cell draws](../pictures/{path.stem}.png)")
    address = f"{REPOSITORY}docs/{path.parent.name}/{path.name}"
    parts.append(
        f"[This page is a notebook]({address}): it runs against the sample scenes of `odc-openeo up`."
    )
    return "\n\n".join(parts)


def escape_cell(text: str) -> str:
    """Write text that may stand in a cell of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")
