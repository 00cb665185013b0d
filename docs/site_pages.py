"""Pages of the documentation site that are made from the code: settings, processes, errors, notebooks.

MkDocs calls the functions ``on_...`` of this file while it builds the site.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

import odc_openeo.processes  # noqa: F401  (registers them)
from odc_openeo import errors
from odc_openeo.config import PREFIX, Config, describe_field
from odc_openeo.registry.process import PROCESSES

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/odc-openeo/odc-openeo/blob/main/"
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
    }
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        files.remove(files.get_file_from_path(f"notebooks/{path.name}"))
        pages[f"notebooks/{path.stem}.md"] = describe_notebook(path)
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

    return LINK.sub(replace, markdown)


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


def iterate_errors(kind: type[errors.OpenEOError]) -> Iterator[type[errors.OpenEOError]]:
    """Iterate over the classes of errors that have a code of their own."""
    for child in kind.__subclasses__():
        yield from iterate_errors(child)
        if child.__module__ == errors.__name__ and not child.__name__.startswith("_"):
            yield child


def describe_notebook(path: Path) -> str:
    """Make a page from the cells of a notebook, with the picture that it draws."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    picture = ROOT / "docs" / "pictures" / f"{path.stem}.png"
    if picture.exists():
        parts.append(f"![What the notebook draws](../pictures/{picture.name})")
    parts.append(f"[The notebook]({REPOSITORY}docs/notebooks/{path.name}) runs against the sample scenes.")
    return "\n\n".join(parts)


def escape_cell(text: str) -> str:
    """Write text that may stand in a cell of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")
