"""The bands of STAC Items: the asset that each Item has of a band, and the names that mean it.

A band is asked for by the key of its asset, which means this asset and no other, or by its name or common
name. Where several assets of an Item have a band of the same name, the name means one of them: the asset
whose key it is, else one that is data, else the finest, else one without other bands, else the first; and
with it only its tiles, which have the same bands on the same grid beside it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from odc.geo.geobox import GeoBox
from odc.loader.types import RasterBandMetadata

from odc_openeo.catalog import Band
from odc_openeo.cube.common_types import PixelKind, choose_common_type
from odc_openeo.errors import FileContentInvalid, ProcessParameterInvalid
from odc_openeo.load.driver import get_file_name
from odc_openeo.load.raster_headers import Header
from odc_openeo.load.stac_assets import StacRaster, name_item_in_errors
from odc_openeo.load.stac_metadata import read_band_metadata
from odc_openeo.untrusted.raster_bands import (
    BandHeader,
    find_usable_nodata,
    is_complex,
    list_data_bands,
    make_unique_names,
)

SLACK: Final = 1e-3
"""Pixels by which the grids of tiles may be off each other."""


@dataclass(frozen=True, eq=False)
class AssetBand:
    """A band of the files of one kind: its name, its position from 1, what file and metadata say of it.

    ``names`` are those of all bands of the file; ``uses_alpha`` says whether its alpha band is a mask.
    """

    name: str
    position: int
    header: BandHeader
    declared: Mapping[str, Any]
    default: RasterBandMetadata
    names: tuple[str, ...]
    uses_alpha: bool

    @property
    def is_masked(self) -> bool:
        """Whether a mask of the file marks what is no-data."""
        return self.header.mask == "mask" or (self.header.mask == "alpha" and self.uses_alpha)

    @property
    def declared_nodata(self) -> float | None:
        """The no-data value that STAC declares, if the file says nothing and its pixels can have it."""
        if self.is_masked or self.header.nodata is not None:
            return None
        return find_usable_nodata(self.default.nodata, self.header.dtype)

    @property
    def kind(self) -> PixelKind:
        """How pixels of the band are stored."""
        nodata = None if self.is_masked else self.header.nodata
        nodata = self.declared_nodata if nodata is None else nodata
        is_nan = nodata is not None and math.isnan(nodata)
        return PixelKind(self.header.dtype, None if is_nan else nodata, self.is_masked)


@dataclass(frozen=True, eq=False)
class BandSource:
    """A band in the file of one Item, on the grid of the file."""

    raster: StacRaster
    band: AssetBand
    grid: GeoBox

    @property
    def place(self) -> tuple[str, int]:
        """The address of the file, and the position of the band in it."""
        return self.raster.href, self.band.position


Slot = Mapping[int, Sequence[BandSource]]
"""A band of a cube: by number of Item the sources that it has there, several if they are tiles."""


# --- The bands of an asset -----------------------------------------------------------------------


def name_bands(raster: StacRaster, header: Header, only_name: str | None = None) -> list[AssetBand]:
    """The bands of an asset, by its metadata and the header of its file; without an alpha band.

    ``only_name`` is the name that the asset has in other Items, if it is a single band without a declared
    name.
    """
    with name_item_in_errors(raster.fields):
        declared, metadata = raster.declared, read_band_metadata(raster.fields)
        count = len(header.bands)
        declared_names = [band.get("name") for band in declared] if len(declared) == count else None
        positions = list_data_bands(header.bands, declared_names)
        matched = _match_declarations(declared, count, positions, {})
        # What is declared once, without bands, holds for all of them.
        metadata = metadata * count if len(metadata) == 1 else metadata
        defaults = _match_declarations(metadata, count, positions, RasterBandMetadata())
        extended = _match_declarations(raster.fields.get("raster:bands") or [], count, positions, {})
        several = len(positions) > 1
        names = []
        for i in positions:
            number = f"{raster.key}_{i + 1}" if several else only_name or raster.key
            description = header.bands[i].description if several or not only_name else None
            names.append(str(matched[i].get("name") or description or number))
        uses_alpha = not any(header.bands[i].is_alpha for i in positions)
        unique = tuple(make_unique_names(names))
        return [
            AssetBand(
                name,
                i + 1,
                header.bands[i],
                {**_read_packing(extended[i]), **matched[i]},
                defaults[i],
                unique,
                uses_alpha,
            )
            for name, i in zip(unique, positions, strict=True)
        ]


def _match_declarations(
    declared: Sequence[Any], count: int, positions: Sequence[int], empty: Any
) -> list[Any]:
    """Assign declarations to the bands of a file: there is one for each band, or one for each with data."""
    if len(declared) == count:
        return list(declared)
    if len(declared) != len(positions):
        return [empty] * count
    by_position = dict(zip(positions, declared, strict=True))
    return [by_position.get(i, empty) for i in range(count)]


def _read_packing(declared: Mapping[str, Any]) -> dict[str, Any]:
    return {f"raster:{name}": declared[name] for name in ("scale", "offset") if name in declared}


# --- The bands of all Items ----------------------------------------------------------------------


class BandTable:
    """The bands of several Items, given the sources of each Item in the order of its assets."""

    def __init__(self, items: Mapping[int, Sequence[BandSource]]) -> None:
        self._items = items
        self._by_name = _assign_names(items)
        sources = [source for group in items.values() for source in group]
        self._keys = frozenset(source.raster.key for source in sources)
        common_names = {n: _find_common_name(slot) for n, slot in self._by_name.items()}
        self._common_names = {n: common_name for n, common_name in common_names.items() if common_name}

    def has_all(self, names: Iterable[str]) -> bool:
        """Whether each of the names is that of a band, a common name, or the key of an asset."""
        return {*names} <= self._keys | self._by_name.keys() | {*self._common_names.values()}

    def select(self, names: Sequence[str] | None, process_id: str) -> dict[str, Slot]:
        """The bands by their labels in the cube, in the order of the names and without duplicates.

        None selects all bands of assets that are data, each name once.

        Raises:
            ProcessParameterInvalid: a name that no band has; the message lists the bands.
        """
        if names is None:
            return dict(self._by_name)
        slots: dict[str, Slot] = {}
        for name in names:
            matches = self._find(name)
            if not matches:
                raise self._make_error(name, process_id)
            for label, slot in matches:
                _add_slot(slots, label, slot)
        return slots

    def _find(self, name: str) -> list[tuple[str, Slot]]:
        if name in self._keys:
            return list(self._list_bands_of(name))
        if name in self._by_name:
            return [(name, self._by_name[name])]
        return [(n, slot) for n, slot in self._by_name.items() if self._common_names.get(n) == name]

    def _list_bands_of(self, key: str) -> Iterator[tuple[str, Slot]]:
        """The bands of an asset, under their names or, if other assets have these, under one with the key."""
        slots: dict[str, dict[int, list[BandSource]]] = {}
        for number, sources in self._items.items():
            for source in sources:
                if source.raster.key == key:
                    slots.setdefault(source.band.name, {}).setdefault(number, []).append(source)
        for name, slot in slots.items():
            if _is_same(slot, self._by_name.get(name, {})):
                yield name, slot
            else:
                yield (key if len(slots) == 1 else f"{key}_{name}"), slot

    def _make_error(self, name: str, process_id: str) -> ProcessParameterInvalid:
        bands = ", ".join(_describe_names(label, slot) for label, slot in self._by_name.items())
        hidden = sorted(
            self._keys - {n for label, slot in self._by_name.items() for n in _names(label, slot)}
        )
        more = f" By the key of their asset: {', '.join(hidden)}." if hidden else ""
        return ProcessParameterInvalid(
            parameter="bands",
            process=process_id,
            reason=f"there is no band '{name}'. The bands are: {bands}.{more}",
        )


def _add_slot(slots: dict[str, Slot], label: str, slot: Slot) -> None:
    if any(_is_same(slot, other) for other in slots.values()):
        return
    labels = (label, *(f"{label}_{i}" for i in range(2, len(slots) + 2)))
    slots[next(free for free in labels if free not in slots)] = slot


def _is_same(one: Slot, other: Slot) -> bool:
    return one.keys() == other.keys() and all(
        [a.place for a in one[number]] == [b.place for b in other[number]] for number in one
    )


def _assign_names(items: Mapping[int, Sequence[BandSource]]) -> dict[str, Slot]:
    """The sources of each name, in the order in which the Items have them."""
    chosen: dict[int, dict[str, list[BandSource]]] = {}
    winners: dict[str, set[str]] = {}
    losers: dict[str, set[str]] = {}
    for number, sources in items.items():
        candidates: dict[str, list[BandSource]] = {}
        for source in sources:
            candidates.setdefault(source.band.name, []).append(source)
        chosen[number] = {name: _choose_tiles(name, group) for name, group in candidates.items()}
        for name, group in candidates.items():
            keys = {s.raster.key for s in group if not s.raster.is_named_by_file}
            best = {s.raster.key for s in chosen[number][name]}
            if keys - best:
                winners.setdefault(name, set()).update(best)
                losers.setdefault(name, set()).update(keys - best)
    slots: dict[str, dict[int, list[BandSource]]] = {}
    for number, sources in items.items():
        for source in sources:
            name = source.band.name
            # What is another band beside the band of that name in one Item is no stand-in for it elsewhere.
            is_other = source.raster.key in losers.get(name, set()) - winners.get(name, set())
            if source in chosen[number][name] and not is_other:
                slots.setdefault(name, {}).setdefault(number, []).append(source)
    return dict(slots)


def _choose_tiles(name: str, candidates: Sequence[BandSource]) -> list[BandSource]:
    """The source that has a name in an Item, with its tiles, in the order of the Item."""
    if len(candidates) == 1:
        return list(candidates)
    best = min(candidates, key=lambda source: _rank(name, source))
    tiles = [best]
    for source in candidates:
        is_alike = source.band.names == best.band.names and source.raster.is_data == best.raster.is_data
        if source is not best and is_alike and all(_are_tiles(source.grid, t.grid) for t in tiles):
            tiles.append(source)
    return [source for source in candidates if source in tiles]


def _rank(name: str, source: BandSource) -> tuple[bool, bool, float, bool]:
    raster, several = source.raster, len(source.band.names) > 1
    size = max(abs(source.grid.resolution.x), abs(source.grid.resolution.y))
    return raster.key != name, not raster.is_data, round(size, 9), several


def _are_tiles(one: GeoBox, other: GeoBox) -> bool:
    """Whether two grids are parts of one grid, side by side or sharing less than half of the smaller."""
    if one.crs != other.crs or not one.transform.almost_equals(
        _move_to(other, one), precision=SLACK * abs(one.resolution.x)
    ):
        return False
    column, row = ~one.transform @ (other.transform.c, other.transform.f)
    if abs(column - round(column)) > SLACK or abs(row - round(row)) > SLACK:
        return False
    rows = min(one.shape.y, row + other.shape.y) - max(0, row)
    columns = min(one.shape.x, column + other.shape.x) - max(0, column)
    smaller = min(one.shape.y * one.shape.x, other.shape.y * other.shape.x)
    return bool(max(rows, 0) * max(columns, 0) < smaller / 2)


def _move_to(grid: GeoBox, other: GeoBox) -> Any:
    """The transform of a grid with the origin of another."""
    a, b, _, d, e, _ = grid.transform[:6]
    return type(grid.transform)(a, b, other.transform.c, d, e, other.transform.f)


# --- Metadata ------------------------------------------------------------------------------------


def make_band(label: str, slot: Slot, items: Iterable[int], log: logging.Logger | None = None) -> Band:
    """The metadata of a band with a type that holds its pixels of these Items.

    Unit, scale and offset are left out if the files differ in them, of which ``log`` is warned.

    Raises:
        FileContentInvalid: its pixels are complex numbers.
    """
    sources = [s for number in items for s in slot.get(number, ())] or [s for g in slot.values() for s in g]
    for source in sources:
        if is_complex(source.band.header.dtype):
            reason = f"band '{label}' has complex numbers ({source.band.header.dtype}). Name other bands."
            raise FileContentInvalid(file=get_file_name(source.raster.href), reason=reason)
    dtype, nodata = choose_common_type(source.band.kind for source in sources)
    packing = {name: _agree([_get_packing(s.band)[name] for s in sources]) for name in PACKING}
    differing = [name for name, (_, agree) in packing.items() if not agree]
    if differing and log is not None:
        log.warning("band %s: the files differ in %s, which is left out", label, " and ".join(differing))
    bands = [s.band for s in (s for group in slot.values() for s in group)]
    return Band(
        name=label,
        aliases=tuple(sorted(_names(label, slot) - {label, _find_common_name(slot)})),
        common_name=_find_common_name(slot),
        dtype=dtype,
        nodata=nodata,
        units=packing["unit"][0],
        scale=packing["scale"][0],
        offset=packing["offset"][0],
        wavelength=_find_declared(bands, "eo:center_wavelength", "center_wavelength"),
        bandwidth=_find_declared(bands, "eo:full_width_half_max", "full_width_half_max"),
    )


PACKING: Final = ("unit", "scale", "offset")


def _get_packing(band: AssetBand) -> dict[str, Any]:
    """Unit, scale and offset: those of the file, else the declared ones."""
    header = band.header
    return {
        "unit": band.default.units if header.unit is None else header.unit,
        "scale": band.declared.get("raster:scale") if header.scale == 1 else header.scale,
        "offset": band.declared.get("raster:offset") if header.offset == 0 else header.offset,
    }


def _agree(values: Sequence[Any]) -> tuple[Any, bool]:
    first = values[0]
    agree = all(value == first for value in values)
    return (first if agree else None), agree


def _find_declared(bands: Iterable[AssetBand], *members: str) -> Any:
    values = (band.declared.get(member) for band in bands for member in members)
    return next((value for value in values if value is not None), None)


def _find_common_name(slot: Slot) -> str | None:
    bands = (source.band for group in slot.values() for source in group)
    name = _find_declared(bands, "eo:common_name", "common_name")
    return None if name is None else str(name)


def _names(label: str, slot: Slot) -> set[str]:
    """The names of a band: its label, its common name, and the key of its asset if it has one for itself."""
    sources = [source for group in slot.values() for source in group]
    keys = {source.raster.key for source in sources}
    has_key = len(keys) == 1 and all(
        len(s.band.names) == 1 and not s.raster.is_named_by_file for s in sources
    )
    common_name = _find_common_name(slot)
    return {label, *(keys if has_key else ()), *((common_name,) if common_name else ())}


def _describe_names(label: str, slot: Slot) -> str:
    synonyms = sorted(_names(label, slot) - {label})
    return f"{label} ({', '.join(synonyms)})" if synonyms else label
