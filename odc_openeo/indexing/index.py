"""Put products and datasets into the Open Data Cube index with the `datacube` command.

Every function starts the real command in a process of its own, so that what it does is what an operator does.
`environ` is the whole environment of that process (the database is named by `ODC_*` variables); None inherits
ours.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from subprocess import PIPE, STDOUT

from odc_openeo.indexing.samples import SampleSet, make_samples

Environ = Mapping[str, str] | None
Progress = Callable[[int, int], None]


class IndexingError(Exception):
    """The index did not take something; the message carries what the `datacube` command said."""


def run_datacube(arguments: Sequence[str], environ: Environ = None) -> str:
    """Run `datacube` with `arguments`; what it printed. Raises IndexingError when it fails."""
    command = [sys.executable, "-m", "datacube.scripts.cli_app", *arguments]
    done = subprocess.run(command, env=environ, text=True, check=False, stdout=PIPE, stderr=STDOUT)
    if done.returncode != 0:
        shown = " ".join(arguments[:3])
        raise IndexingError(f"`datacube {shown} ...` failed:\n{_tail(done.stdout)}")
    return done.stdout


def init_index(environ: Environ = None) -> None:
    """Make the tables of the index, unless they are there (`datacube system init`)."""
    run_datacube(["system", "init"], environ)


def index_products(paths: Iterable[Path], environ: Environ = None) -> None:
    """Add product definitions, leaving alone those that are there (`datacube product add`)."""
    run_datacube(["product", "add", *map(str, paths)], environ)


def index_datasets(documents: Iterable[Path], environ: Environ = None) -> None:
    """Add datasets from EO3 documents, leaving alone those that are there (`datacube dataset add`).

    Raises IndexingError when the command refuses one of them; the others are indexed then.
    """
    output = run_datacube(["dataset", "add", *map(str, documents)], environ)
    # The command ends well even when it logs that it left datasets out.
    if " ERROR " in output:
        raise IndexingError(f"`datacube dataset add` refused datasets:\n{_tail(output)}")


def product_definitions() -> list[Path]:
    """The product definitions of the sample scenes that come with this package."""
    with as_file(files("odc_openeo.indexing") / "products") as folder:
        return sorted(folder.glob("*.odc-product.yaml"))


def index_samples(folder: Path, environ: Environ = None, progress: Progress | None = None) -> list[SampleSet]:
    """Make the sample scenes in `folder` and index them; does nothing twice.

    `progress` is called with the number of scenes made and the number in all.
    """
    samples = make_samples(folder, progress)
    index_products(product_definitions(), environ)
    index_datasets([document for sample in samples for document in sample.documents], environ)
    return samples


def _tail(text: str, lines: int = 30) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
