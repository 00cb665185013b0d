"""The `datacube` command of Open Data Cube, as a program that starts in half of its usual time.

Nothing about the command differs but what it imports, which is most of what short commands do.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence


def build_datacube_command(arguments: Sequence[str]) -> list[str]:
    """Build the command that runs `datacube` with `arguments` in a process of its own."""
    return [sys.executable, "-m", __name__, *arguments]


def _run_command() -> None:
    # jsonschema looks for the grammar of IRIs, which takes more than a second to compile. No schema of a
    # product or of a dataset checks that format.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    # Imports make many objects that stay, and collections would walk over all of them again and again.
    gc.disable()
    from datacube.scripts.cli_app import cli

    gc.freeze()
    gc.enable()
    cli(prog_name="datacube")


if __name__ == "__main__":
    _run_command()
