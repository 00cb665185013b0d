"""Add many STAC Items to the index: in batches by its bulk interface, in several processes."""

from __future__ import annotations

import multiprocessing
import resource
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, cast

import pyarrow as pa
from datacube import Datacube
from datacube.index import Index
from datacube.index.abstract import DatasetTuple
from datacube.index.hl import Doc2Dataset
from datacube.model import Dataset

from odc_openeo.indexing.index import IndexingError
from odc_openeo.indexing.stac import get_product, make_dataset
from odc_openeo.indexing.stac_parquet import Row, make_item, open_items, read_rows

STAC_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://stacspec.org")
"""Open Data Cube derives the ids of datasets from Items in this namespace."""
WORKER_BYTES: Final = 2 * 2**30
"""Memory of a process that reads a file."""
MOST_PROBLEMS: Final = 50
"""Bad rows that are named; the others are counted."""


@dataclass
class BulkResult:
    """The counts of rows of a file that were added, present and bad, and what is wrong with the first."""

    added: int = 0
    present: int = 0
    bad: int = 0
    problems: list[str] = field(default_factory=list)

    def add_problem(self, row: int, item_id: str | None, reason: str) -> None:
        """Count a bad row."""
        self.bad += 1
        if len(self.problems) < MOST_PROBLEMS:
            name = f" (Item {item_id[:100]})" if item_id else ""
            self.problems.append(f"row {row}{name}: {reason}")

    def include(self, other: BulkResult) -> None:
        """Add the counts of another result."""
        self.added += other.added
        self.present += other.present
        self.bad += other.bad
        self.problems += other.problems[: MOST_PROBLEMS - len(self.problems)]


@dataclass(frozen=True)
class BulkRequest:
    """A file to index: into which product (by default each Item's collection), and where files may be.

    ``memory_bytes`` is what each process that reads it may use.
    """

    path: Path
    product: str | None = None
    folders: Sequence[Path] = ()
    memory_bytes: int = WORKER_BYTES


def derive_dataset_id(collection: str, item_id: str) -> uuid.UUID:
    """Derive the id of a dataset from its Item, as Open Data Cube does."""
    try:
        return uuid.UUID(item_id)
    except ValueError:
        return uuid.uuid5(STAC_NAMESPACE, f"{collection}\n{item_id}\n")


def index_parquet(request: BulkRequest, processes: int = 1) -> Iterator[BulkResult]:
    """Index the Items of a stac-geoparquet file; yield the result so far now and then, and at the end.

    Items whose dataset is indexed are left as they are, so that a call that was interrupted can be repeated.
    Only processes of their own with limited memory read the file. The index is that of ``ODC_*`` variables.

    Raises:
        IndexingError: the file cannot be read, or a process has ended.
    """
    context = multiprocessing.get_context("spawn")
    total = BulkResult()
    workers: dict[Connection, Any] = {}
    try:
        for shard in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            worker = context.Process(target=_run_shard, args=(sender, request, shard, processes), daemon=True)
            worker.start()
            sender.close()
            workers[receiver] = worker
        while workers:
            for ready in wait(list(workers)):
                receiver = cast(Connection, ready)
                if _receive_result(receiver, workers[receiver], request, total):
                    yield total
                else:
                    workers.pop(receiver).join()
    finally:
        for worker in workers.values():
            worker.terminate()
    yield total


def _receive_result(receiver: Connection, worker: Any, request: BulkRequest, total: BulkResult) -> bool:
    """Include what a process has done; False when it is finished."""
    try:
        message = receiver.recv()
    except EOFError:
        worker.join()
        reason = f"the process that read it has ended ({worker.exitcode})"
        raise IndexingError(f"{request.path}: {reason}; it may need too much memory") from None
    if isinstance(message, BulkResult):
        total.include(message)
        return True
    if message is not None:
        raise IndexingError(str(message))
    return False


def _run_shard(sender: Connection, request: BulkRequest, shard: int, shards: int) -> None:
    """Index a share of the batches of a file in a process of its own."""
    # Other allocators reserve more than they use.
    pa.set_memory_pool(pa.system_memory_pool())
    warnings.simplefilter("ignore")
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(
        resource.RLIMIT_DATA, (request.memory_bytes if hard < 0 else min(request.memory_bytes, hard), hard)
    )
    try:
        file = open_items(request.path)
        with Datacube(app="odc-openeo-index-stac") as cube:
            indexer = BulkIndexer(cube.index, request)
            for rows in read_rows(file, shard, shards):
                sender.send(indexer.index_rows(rows))
        sender.send(None)
    except MemoryError:
        sender.send(
            f"{request.path}: a batch of rows needs more than {request.memory_bytes >> 20} MiB of memory"
        )
    except Exception as error:
        sender.send(f"{request.path}: {' '.join(str(error).split())[:1000]}")


@dataclass
class BulkIndexer:
    """Adds rows of a file to an index."""

    index: Index
    request: BulkRequest

    def __post_init__(self) -> None:
        self._to_dataset = Doc2Dataset(self.index, eo3=True, skip_lineage=True)

    def index_rows(self, rows: Sequence[Row]) -> BulkResult:
        """Add the Items of rows that are not indexed yet."""
        result = BulkResult()
        items: dict[uuid.UUID, Row] = {}
        for row in rows:
            if row.item is None:
                result.add_problem(row.number, None, str(row.problem))
                continue
            collection = row.item.get("collection", row.item.get("properties", {}).get("odc:product", "_"))
            dataset_id = derive_dataset_id(str(collection), row.item["id"])
            result.present += dataset_id in items
            items.setdefault(dataset_id, row)
        present = dict(zip(items, self.index.datasets.bulk_has(items), strict=True)) if items else {}
        result.present += sum(present.values())
        made = [
            (row, dataset)
            for dataset_id, row in items.items()
            if not present[dataset_id] and (dataset := self._make_dataset(row, result)) is not None
        ]
        self._add_datasets(made, result)
        return result

    def _make_dataset(self, row: Row, result: BulkResult) -> Dataset | None:
        assert row.item is not None
        item_id = row.item["id"]
        try:
            item = make_item(row.item, self.request.folders)
            product = get_product(self.index, item_id, self.request.product or item.collection_id)
            return make_dataset(item, product, self._to_dataset)
        except IndexingError as error:
            result.add_problem(
                row.number, item_id, str(error).removeprefix(f"STAC Item {item_id}").lstrip(": ")
            )
        except Exception as error:
            result.add_problem(row.number, item_id, " ".join(str(error).split())[:300])
        return None

    def _add_datasets(self, made: Sequence[tuple[Row, Dataset]], result: BulkResult) -> None:
        """Add datasets in one transaction; if the index refuses it, in halves, down to those at fault."""
        if not made:
            return
        tuples = [DatasetTuple(d.product, d.metadata_doc, str(d.uri), {}) for _, d in made]
        try:
            self.index.datasets.bulk_add(tuples, batch_size=len(tuples) + 1)
            result.added += len(made)
        except Exception as error:
            if getattr(error, "connection_invalidated", False):
                raise
            if len(made) > 1:
                middle = len(made) // 2
                self._add_datasets(made[:middle], result)
                self._add_datasets(made[middle:], result)
                return
            (row, dataset), *_ = made
            if self.index.datasets.has(dataset.id):
                result.present += 1
                return
            reason = str(getattr(error, "orig", error)).partition("\n")[0]
            result.add_problem(
                row.number, (row.item or {}).get("id"), f"the index refuses it ({reason[:300]})"
            )
