"""Put products and datasets into the Open Data Cube index with the `datacube` command.

Every function runs the real command in a process of its own, exactly as an operator does. `environ` is the
whole environment of that process (`ODC_*` variables name the database); None inherits the current one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from subprocess import PIPE, STDOUT

from odc_openeo.indexing.datacube_command import build_datacube_command
from odc_openeo.indexing.samples import SampleSet, make_samples

Environ = Mapping[str, str] | None
Progress = Callable[[int, int], None]


class IndexingError(Exception):
    """Indexing failed; the message includes the output of the `datacube` command."""


def run_datacube(arguments: Sequence[str], environ: Environ = None) -> str:
    """Run `datacube` with `arguments` and return its output. Raises IndexingError if it fails."""
    command = build_datacube_command(arguments)
    done = subprocess.run(command, env=environ, text=True, check=False, stdout=PIPE, stderr=STDOUT)
    if done.returncode != 0:
        command_name = " ".join(arguments[:3])
        raise IndexingError(f"`datacube {command_name} ...` failed:\n{_last_lines(done.stdout)}")
    return done.stdout


def init_command(driver: str, *, users: bool = True) -> list[str]:
    """Return the arguments of `datacube` that create the tables of an index unless they exist.

    With the driver ``postgis``, Open Data Cube can create its roles only on PostgreSQL 16 or later; ``users``
    says whether it should.
    """
    return ["system", "init", *([] if users or driver == "postgres" else ["--no-init-users"])]


def index_products(paths: Iterable[Path], environ: Environ = None) -> None:
    """Add product definitions, except for existing products (`datacube product add`)."""
    run_datacube(["product", "add", *map(str, paths)], environ)


def index_datasets(documents: Iterable[Path], environ: Environ = None) -> None:
    """Add datasets from EO3 documents, except for existing ones (`datacube dataset add`).

    Existing datasets get the places of their documents, which may have moved. Raises IndexingError if the
    command refuses some of them; the others are indexed.
    """
    paths = [str(document) for document in documents]
    output = run_datacube(["dataset", "add", *paths], environ)
    # The command exits with status 0 even when it logs that it skipped datasets.
    if " ERROR " in output:
        raise IndexingError(f"`datacube dataset add` refused datasets:\n{_last_lines(output)}")
    if "already in the database" in output:
        run_datacube(["dataset", "update", *paths], environ)


def product_definitions() -> list[Path]:
    """Return the product definitions of the sample scenes that come with this package."""
    with as_file(files("odc_openeo.indexing") / "products") as folder:
        return sorted(folder.glob("*.odc-product.yaml"))


def index_samples(folder: Path, environ: Environ = None, progress: Progress | None = None) -> list[SampleSet]:
    """Make the sample scenes in `folder` and index them; skips what already exists.

    `progress` is called with the number of finished scenes and their total number.
    """
    samples = make_samples(folder, progress)
    index_products(product_definitions(), environ)
    index_datasets([document for sample in samples for document in sample.documents], environ)
    return samples


def _last_lines(text: str, lines: int = 30) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
