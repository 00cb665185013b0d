"""Icechunk repositories that the parts of a job write, each in one commit.

An array beside the cube says which parts are there: it is changed by the same commit as their pixels. Whoever
writes a part that another process has written in the meantime has a conflict, so that none is written twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.storage import WrapperStore

from odc_openeo.formats.icechunk import WITHOUT_SHARDS
from odc_openeo.formats.model import Compute, Options
from odc_openeo.formats.repositories import (
    MAIN,
    commit_session,
    create_repository,
    open_repository,
    translate_repository_failures,
)
from odc_openeo.formats.zarr_regions import Starts, create_template, write_region

MARKS: Final = "parts"
"""The group with the array ``done``, which has 1 for each part that is there; the last commit removes it."""


def create_shared_repository(
    place: Any, cube: xr.DataArray, options: Options, starts: Starts, parts: int
) -> None:
    """Create a repository at an `icechunk.Storage` and commit the cube without its pixels.

    ``starts`` are where parts begin along dimensions, ``parts`` their number.
    """
    session = create_repository(place).writable_session(MAIN)
    with translate_repository_failures():
        create_template(session.store, cube, {**options, **WITHOUT_SHARDS}, starts, consolidated=False)
        group = zarr.open_group(session.store, mode="r+").create_group(MARKS)
        group.create_array("done", shape=(parts,), chunks=(1,), dtype="uint8", fill_value=0)
    commit_session(session, "The cube before its first part", {"parts": parts})


def is_part_there(place: Any, number: int) -> bool:
    """Whether a part is committed; all are once the cube is complete."""
    repository = open_repository(place)
    with translate_repository_failures():
        group = zarr.open_group(repository.readonly_session(MAIN).store, mode="r")
        return MARKS not in group or bool(group[f"{MARKS}/done"][number])


class PartSession:
    """A part of a cube that is being written; readers see it when it is committed."""

    def __init__(self, place: Any, number: int) -> None:
        self.number = number
        self.session = open_repository(place).writable_session(MAIN)
        self.store = CountingStore(self.session.store)

    @property
    def written_bytes(self) -> int:
        """The bytes of the chunks that were written."""
        return self.store.written_bytes

    def write_pixels(
        self, pixels: xr.DataArray, options: Options, offsets: Mapping[str, int], compute: Compute
    ) -> None:
        """Write the pixels of the part; ``offsets`` are its first indices along dimensions of the whole."""
        with translate_repository_failures():
            write_region(pixels, self.store, options, offsets, compute)
            zarr.open_array(self.session.store, path=f"{MARKS}/done", mode="r+")[self.number] = 1

    def commit(self) -> None:
        """Commit the part.

        Raises:
            CommitConflict: it is there already.
        """
        commit_session(self.session, f"Part {self.number + 1}", {"part": self.number + 1}, rebase=True)


def complete_repository(place: Any) -> None:
    """Commit that the cube is complete; does nothing if it was done before."""
    session = open_repository(place).writable_session(MAIN)
    with translate_repository_failures():
        group = zarr.open_group(session.store, mode="r+")
        if MARKS not in group:
            return
        del group[MARKS]
    commit_session(session, "The cube is complete", {})


class CountingStore(WrapperStore[Store]):
    """A store of zarr that counts the bytes that are written."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.written_bytes = 0

    async def set(self, key: str, value: Any) -> None:
        """Store a value and count it."""
        self.written_bytes += len(value)
        await super().set(key, value)
