"""Check the folder with a built openEO Web Editor that the operator wants to be served."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from odc_openeo.config import PREFIX, Config

PATH: Final = "/editor"
INDEX: Final = "index.html"
LONGEST_INDEX: Final = 2**20

_SCRIPT: Final = re.compile(r"<script\b[^>]*?\bsrc\s*=\s*[\"']?(/(?!/)[^\"'\s>]*)", re.IGNORECASE)
"""The path of a script that the page loads from the root of its host."""


def find_editor_warning(config: Config) -> str | None:
    """Tell what to change about a build that would stay empty where it is served; None if there is nothing.

    A build for another path asks for its scripts there, and finds none.
    """
    if config.web_editor_dir is None:
        return None
    index = config.web_editor_dir / INDEX
    if not index.is_file():
        folder = config.web_editor_dir
        return f"{PREFIX}WEB_EDITOR_DIR: there is no {INDEX} in {folder}; name the folder of the build"
    with index.open(encoding="utf-8", errors="replace") as file:
        scripts = _SCRIPT.findall(file.read(LONGEST_INDEX))
    base = f"{urlsplit(config.public_url or '').path.rstrip('/')}{PATH}/"
    wrong = next((path for path in scripts if not path.startswith(base)), None)
    if wrong is None:
        return None
    return (
        f"the Web Editor in {config.web_editor_dir} asks for {wrong}, but it is served at {base}, so its "
        f"page stays empty; build it again with `CLIENT_URL={base} npm run build`"
    )
