"""Run the notebooks in Jupyter kernels: ``python -m tests.notebooks [NAME …]``.

Writes them with their outputs to ``build/notebooks``, and the pictures in them to ``docs/pictures``.
Starts a service with the sample scenes, unless ``OPENEO_URL`` names a running one.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

from tests.conftest import start_stack
from tests.notebooks.cells import NOTEBOOKS, PICTURES, ROOT

BUILD = ROOT / "build" / "notebooks"


@contextmanager
def start_service() -> Iterator[str]:
    """Yield the URL of a service with the sample scenes."""
    if "OPENEO_URL" in os.environ:
        yield os.environ["OPENEO_URL"]
        return
    with tempfile.TemporaryDirectory(prefix="odc-openeo-notebooks-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "data").mkdir()
        stack = start_stack(folder / "data")
        try:
            yield stack.url
        finally:
            stack.stop()


def run_notebook(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in a new kernel; return it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(BUILD)}}
    ).execute()
    return notebook


def write_pictures(notebook: nbformat.NotebookNode) -> None:
    """Write the picture of each cell that names one in its metadata."""
    for cell in notebook.cells:
        name = cell.metadata.get("picture")
        if name is None:
            continue
        pictures = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
        with Image.open(io.BytesIO(base64.b64decode(pictures[-1]))) as picture:
            # A palette: a third of the size, and no difference to see.
            picture.convert("RGB").quantize(128).save(PICTURES / f"{name}.png", optimize=True)


def main() -> None:
    """Run the notebooks of the given names, or all."""
    chosen = [path for path in NOTEBOOKS if not sys.argv[1:] or path.stem in sys.argv[1:]]
    BUILD.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    with start_service() as url:
        os.environ["OPENEO_URL"] = url
        for path in chosen:
            start = time.monotonic()
            notebook = run_notebook(path)
            nbformat.write(notebook, BUILD / path.name)
            write_pictures(notebook)
            print(f"{path.stem}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
