"""Append the dates of a cube to one in another Icechunk repository: all of them in one commit, or none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import zarr

from odc_openeo.cube import T
from odc_openeo.formats.icechunk_documents import (
    CubeDocuments,
    CubesDiffer,
    compare_documents,
    find_time_axis,
    find_time_unit,
    read_documents,
    write_documents,
)
from odc_openeo.formats.repositories import MAIN, commit_session, translate_repository_failures

BLOCK_BYTES: Final = 2**26
"""Most bytes that are copied at once, unless one chunk has more."""
MOST_COMMITS: Final = 10_000
"""Commits among which those of a run are looked for."""
MOST_NAMED: Final = 3
"""Dates that an error names."""


@dataclass(frozen=True)
class CubeAppend:
    """Dates of the cube in ``source`` that are appended to the one in ``target``, which may be empty.

    Both are repositories of Icechunk. ``run`` is who appends: what it has written before is always replaced.
    ``replaces``: dates that others have written are replaced, too.
    """

    source: Any
    target: Any
    run: str
    replaces: bool = False

    def prepare_commit(self) -> Any:
        """Write all values, which nobody sees yet; return the session to be committed by `commit_dates`.

        Raises:
            CubesDiffer: the cubes don't fit together.
        """
        with translate_repository_failures():
            session = self.target.writable_session(MAIN)
            reader = self.source.readonly_session(MAIN).store
            documents, existing = read_documents(reader), read_documents(session.store)
            if T not in documents.arrays:
                raise CubesDiffer("this result has no dates (dimension 't'), which could be appended.")
            if existing.root is None or not existing.arrays:
                write_documents(session.store, documents)
                places = _start_cube(reader, session.store, documents)
            else:
                compare_documents(documents, existing)
                places = self._place_dates(reader, session.store, documents, existing)
            _copy_dates(reader, session.store, documents, places)
            return session

    def commit_dates(self, session: Any) -> str:
        """Commit what `prepare_commit` has written; return the id of the snapshot.

        Raises:
            CommitConflict: somebody else has committed in the meantime: prepare it again.
        """
        documents = read_documents(self.source.readonly_session(MAIN).store)
        dates = _read_times(self.source.readonly_session(MAIN).store, documents)
        details = {"run": self.run, "dates": [_format_date(date) for date in dates.tolist()]}
        return commit_session(session, f"{len(dates)} dates", details)

    def _place_dates(
        self, reader: Any, writer: Any, documents: CubeDocuments, existing: CubeDocuments
    ) -> list[int]:
        """Make room for the dates that are new; return the index of each date in the existing cube."""
        _compare_coordinates(reader, writer, documents)
        new, old = _read_times(reader, documents), _read_times(writer, existing)
        index = {date: position for position, date in enumerate(old.tolist())}
        repeated = [date for date in new.tolist() if date in index]
        if repeated and not self.replaces:
            own = self._list_own_dates()
            _refuse_dates([date for date in repeated if _format_date(date) not in own])
        added = [date for date in new.tolist() if date not in index]
        if added and added[0] <= old[-1]:
            first, last = _format_date(added[0]), _format_date(int(old[-1]))
            raise CubesDiffer(f"its last date is {last}; dates before that, as {first}, can't be added.")
        index |= {date: len(old) + i for i, date in enumerate(added)}
        if added:
            _extend_arrays(writer, documents, len(index))
        return [index[date] for date in new.tolist()]

    def _list_own_dates(self) -> set[str]:
        """List the dates that this run has committed before, perhaps before its worker was lost."""
        own: set[str] = set()
        for snapshot in itertools.islice(self.target.ancestry(branch=MAIN), MOST_COMMITS):
            dates = snapshot.metadata.get("dates")
            if snapshot.metadata.get("run") == self.run and isinstance(dates, list):
                own |= set(map(str, dates))
        return own


def _refuse_dates(dates: Sequence[int]) -> None:
    if dates:
        named = ", ".join(map(_format_date, dates[:MOST_NAMED]))
        more = f" and {len(dates) - MOST_NAMED} more" if len(dates) > MOST_NAMED else ""
        reason = "To write these dates again, use the option 'existing_dates': 'REPLACE' in save_result."
        raise CubesDiffer(f"it has {named}{more} already. {reason}")


def _format_date(microseconds: int) -> str:
    return f"{np.datetime64(microseconds, 'us')}Z".replace(".000000", "")


def _read_times(store: Any, documents: CubeDocuments) -> np.ndarray:
    """Read the labels along t in microseconds since 1970, which must increase."""
    unit = find_time_unit(documents.arrays[T])
    if unit is None:
        raise CubesDiffer("the labels along 't' are not dates.")
    stored = zarr.open_array(store, path=T, mode="r")[:]
    times = np.asarray(stored).astype(np.int64) * unit
    if not (np.diff(times) > 0).all():
        raise CubesDiffer("the dates are not in order, or there are some twice.")
    return times


def _compare_coordinates(reader: Any, writer: Any, documents: CubeDocuments) -> None:
    """Compare all arrays that have no dates: coordinates of pixels, names of bands."""
    for name, document in documents.arrays.items():
        if find_time_axis(document) is not None:
            continue
        here, there = (np.asarray(zarr.open_array(s, path=name, mode="r")[...]) for s in (reader, writer))
        differs = here != there
        if differs.any():
            one, other = (values[differs].flat[0] for values in (there, here))
            raise CubesDiffer(f"'{name}' differs: {one} there is {other} in this result.")


def _start_cube(reader: Any, writer: Any, documents: CubeDocuments) -> list[int]:
    """Copy all arrays that have no dates into a new cube; return the index of each date."""
    for name, document in documents.arrays.items():
        if find_time_axis(document) is None:
            zarr.open_array(writer, path=name, mode="r+")[...] = zarr.open_array(reader, path=name, mode="r")[
                ...
            ]
    return list(range(len(_read_times(reader, documents))))


def _extend_arrays(writer: Any, documents: CubeDocuments, dates: int) -> None:
    for name, document in documents.arrays.items():
        axis = find_time_axis(document)
        if axis is not None:
            array = zarr.open_array(writer, path=name, mode="r+")
            array.resize((*array.shape[:axis], dates, *array.shape[axis + 1 :]))


def _copy_dates(reader: Any, writer: Any, documents: CubeDocuments, places: Sequence[int]) -> None:
    """Copy the values of all dates, chunk by chunk, to their places in the other cube."""
    for name, document in documents.arrays.items():
        axis = find_time_axis(document)
        if axis is None:
            continue
        source, target = (
            zarr.open_array(reader, path=name, mode="r"),
            zarr.open_array(writer, path=name, mode="r+"),
        )
        ratio = _compare_units(name, source, target)
        for position, place in enumerate(places):
            for block in _list_blocks(target, axis):
                _copy_block(source, target, block, axis, (position, place), ratio)


def _compare_units(name: str, source: zarr.Array, target: zarr.Array) -> tuple[int, int]:
    """Return the microseconds of the units of both arrays if they have times, else 1 and 1."""
    units = [find_time_unit({"attributes": dict(array.attrs)}) for array in (source, target)]
    if None in units:
        return 1, 1
    here, there = int(units[0] or 1), int(units[1] or 1)
    if here < there and bool((np.asarray(source[...]) * here % there).any()):
        raise CubesDiffer(f"'{name}' has whole {there // 1_000_000} seconds only; this result has fractions.")
    return here, there


def _list_blocks(array: zarr.Array, axis: int) -> Iterator[list[slice]]:
    """List blocks of whole chunks of one date, of at most `BLOCK_BYTES`; the slice along t means nothing."""
    sides = [1 if i == axis else chunk for i, chunk in enumerate(array.chunks)]
    chunks = max(1, BLOCK_BYTES // (math.prod(sides) * array.dtype.itemsize))
    for i in reversed(range(array.ndim)):
        if i != axis:
            count = min(chunks, math.ceil(array.shape[i] / sides[i]))
            sides[i], chunks = sides[i] * count, chunks // count
    ranges = [
        [slice(0, 1)]
        if i == axis
        else [slice(first, min(first + side, size)) for first in range(0, size, side)]
        for i, (size, side) in enumerate(zip(array.shape, sides, strict=True))
    ]
    return (list(block) for block in itertools.product(*ranges))


def _copy_block(
    source: zarr.Array,
    target: zarr.Array,
    block: list[slice],
    axis: int,
    dates: tuple[int, int],
    units: tuple[int, int],
) -> None:
    here, there = (
        tuple(slice(date, date + 1) if i == axis else edge for i, edge in enumerate(block)) for date in dates
    )
    values = np.asarray(source[here])
    target[there] = values if units[0] == units[1] else values.astype(np.int64) * units[0] // units[1]
