"""STAC Items as scenes: where and when by their metadata, bands and pixel types by their files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from odc_openeo.catalog import Band, File, Scene, find_interval, get_nominal_time
from odc_openeo.errors import NoDataAvailable
from odc_openeo.load.driver import get_file_name
from odc_openeo.load.raster_headers import Header, find_headers, make_refusal, read_headers
from odc_openeo.load.stac_assets import StacRaster, list_rasters, name_item_in_errors
from odc_openeo.load.stac_bands import AssetBand, BandSource, BandTable, Slot, make_band, name_bands
from odc_openeo.untrusted.raster_bands import is_complex
from odc_openeo.untrusted.rasters import RasterPlace

MOST_HEADERS: Final = 1000
"""Files that are opened to learn their types; those of further files are checked when they are read."""

Rasters = Mapping[int, Sequence[StacRaster]]
"""The rasters of Items, by number of Item."""

SelectScenes = Callable[[Sequence[Scene]], Sequence[Scene]]


def read_items(
    items: Sequence[Mapping[str, Any]],
    place: RasterPlace,
    names: Sequence[str] | None = None,
    process_id: str = "load_stac",
    select: SelectScenes | None = None,
    log: logging.Logger | None = None,
) -> tuple[list[Band], list[Scene]]:
    """The bands of Items that have these names (None: all that are data), and the Items as scenes.

    Bands are in the order of the names, or in which the Items have them first; see `stac_bands`. Files are
    opened: pixel type, no-data value, unit, scale and offset are those of the file; what it lacks is what
    STAC declares (see ADR 14). The type of a band holds the pixels of all Items that ``select`` returns as
    scenes, which may be none. Addresses are relative to the Item's member ``base``; ``place`` is where the
    files may be.

    Raises:
        NoDataAvailable: no Item has an asset with pixels.
        ProcessParameterInvalid: a name that no band has.
        UrlUnreachable, FileContentInvalid: a file cannot be had, is not a raster, or refers to other files.
    """
    rasters: dict[int, list[StacRaster]] = {}
    for number, item in enumerate(items):
        with name_item_in_errors(item):
            rasters[number] = list_rasters(item)
    headers = _Headers(place)
    loadable, table = _find_bands(rasters, names, headers)
    outlines = _Outlines(items)
    kept = _select_items(items, loadable, headers, outlines, select)
    headers.open_each(_list_relevant(table, names, process_id, [loadable[number] for number in kept]))
    table = BandTable({number: headers.list_sources(group) for number, group in loadable.items()})
    slots = table.select(names, process_id)
    bands = [make_band(label, slot, kept, log) for label, slot in slots.items()]
    scenes = [
        scene for number in kept for scene in _make_scenes(items[number], number, slots, outlines, place)
    ]
    return bands, list(scenes if select is None else select(scenes))


def _find_bands(
    rasters: Rasters, names: Sequence[str] | None, headers: _Headers
) -> tuple[Rasters, BandTable]:
    """The rasters that the named bands may be in, and the bands that they have by one file of each kind."""
    named = frozenset(names or ())
    loadable = _filter_rasters(rasters, lambda r: r.is_readable and (r.is_data or r.key in named))
    readable = _filter_rasters(rasters, lambda r: r.is_readable)
    table = headers.make_table(loadable)
    if names is not None and not table.has_all(names) and readable != loadable:
        loadable, table = readable, headers.make_table(readable)
    if names is None or not table.has_all(names):
        _check_readable(rasters, names, table)
    if not any(loadable.values()):
        raise NoDataAvailable(reason=_explain_no_rasters(readable))
    return loadable, table


def _filter_rasters(rasters: Rasters, accepts: Callable[[StacRaster], bool]) -> dict[int, list[StacRaster]]:
    return {number: [raster for raster in group if accepts(raster)] for number, group in rasters.items()}


def _check_readable(rasters: Rasters, names: Sequence[str] | None, table: BandTable) -> None:
    """Raise FeatureUnsupported if a band is in no asset but one that cannot be read."""
    for group in rasters.values():
        for raster in group:
            if raster.is_readable:
                continue
            bands = {str(band["name"]) for band in raster.declared if band.get("name")} or {raster.key}
            needed = bands if names is None else {raster.key, *bands} & set(names)
            if (raster.is_data or names is not None) and not table.has_all(needed):
                raster.check_readable()


def _explain_no_rasters(readable: Rasters) -> str:
    keys = sorted({raster.key for group in readable.values() for raster in group})
    if not keys:
        return "no asset is a GeoTIFF or JPEG 2000 file or a Zarr array."
    return (
        "no asset with the role of data is a GeoTIFF, JPEG 2000 file or Zarr array. Others may be loaded if "
        f"they are named in 'bands': {', '.join(keys)}."
    )


def _list_relevant(
    table: BandTable, names: Sequence[str] | None, process_id: str, groups: Iterable[Sequence[StacRaster]]
) -> list[StacRaster]:
    """The rasters whose own headers matter: of the assets that have the bands in any Item."""
    if names is not None and not table.has_all(names):
        return [raster for group in groups for raster in group]
    slots = table.select(names, process_id).values()
    keys = {s.raster.kind[0] for slot in slots for group in slot.values() for s in group}
    return [raster for group in groups for raster in group if raster.kind[0] in keys]


class _Headers:
    """The headers of files that are opened so far, and the bands that they and files of their kind have."""

    def __init__(self, place: RasterPlace) -> None:
        self._place = place
        self._headers: dict[str, Header] = {}
        self._kinds: dict[tuple[str, str], StacRaster] = {}
        self._bands: dict[Any, list[AssetBand]] = {}

    def make_table(self, rasters: Rasters) -> BandTable:
        """The bands by the first file of each kind."""
        for group in rasters.values():
            for raster in group:
                self._kinds.setdefault(raster.kind, raster)
        needed = [r.href for r in self._kinds.values()]
        needed += [r.href for group in rasters.values() for r in group if r.grid is None]
        self._headers |= read_headers((href for href in needed if href not in self._headers), self._place)
        return BandTable({number: self.list_sources(group) for number, group in rasters.items()})

    def open_each(self, rasters: Iterable[StacRaster]) -> None:
        """Open the files of which neither metadata nor another file say what they are."""
        hrefs = [r.href for r in rasters if r.href not in self._headers and not self._is_declared(r)]
        self._headers |= find_headers(list(dict.fromkeys(hrefs))[:MOST_HEADERS], self._place)

    def _is_declared(self, raster: StacRaster) -> bool:
        """Whether type and no-data value are declared, and the first such file has them."""
        bands = self._list_bands(raster)
        return len(raster.declared) == len(bands) == len(self._get_header(raster).bands) and all(
            band.default.data_type == band.header.dtype
            and band.default.nodata is not None
            and band.header.nodata in (None, band.default.nodata)
            and not band.is_masked
            for band in bands
        )

    def list_sources(self, rasters: Sequence[StacRaster]) -> list[BandSource]:
        """The bands of an Item, in the order of its assets."""
        return [
            BandSource(raster, band, self.get_grid(raster))
            for raster in rasters
            for band in self._list_bands(raster)
        ]

    def get_grid(self, raster: StacRaster) -> GeoBox:
        """The declared grid of a raster, else that of its file; an error if it has none."""
        grid = raster.grid or self._get_header(raster).grid
        if grid is None:
            name = get_file_name(raster.href)
            raise make_refusal(raster.href, f"the raster {name} has no reference system.")
        return grid

    def _get_header(self, raster: StacRaster) -> Header:
        return self._headers.get(raster.href) or self._headers[self._kinds[raster.kind].href]

    def _list_bands(self, raster: StacRaster) -> list[AssetBand]:
        header = self._get_header(raster)
        key = (raster.kind, raster.key, header.bands)
        if key not in self._bands:
            self._bands[key] = name_bands(raster, header, self._find_only_name(raster))
        return self._bands[key]

    def _find_only_name(self, raster: StacRaster) -> str | None:
        """The name of a single band in other Items, whatever the descriptions in their files."""
        first = self._kinds[raster.kind]
        if first is raster or first.key != raster.key or raster.declared:
            return None
        bands = self._list_bands(first)
        return bands[0].name if len(bands) == 1 else None


# --- Items in the extents ------------------------------------------------------------------------


class _Outlines:
    """The footprints of Items, in degrees, or of their files where Items have none."""

    def __init__(self, items: Sequence[Mapping[str, Any]]) -> None:
        self._items = items
        self._footprints: dict[int, Geometry] = {}

    def get_footprint(self, number: int, grid: GeoBox) -> Geometry:
        """The geometry of an Item, the outline of the grid if it has none."""
        if not self._items[number].get("geometry"):
            return grid.extent
        if number not in self._footprints:
            self._footprints[number] = _parse_footprint(self._items[number])
        return self._footprints[number]


def _parse_footprint(item: Mapping[str, Any]) -> Geometry:
    footprint = Geometry(item["geometry"], "EPSG:4326")
    west, south, east, north = footprint.boundingbox.bbox
    if not (-720 <= west <= east <= 720 and -90 <= south <= north <= 90):
        raise ValueError("a geometry that is not in degrees")
    return footprint


def _select_items(
    items: Sequence[Mapping[str, Any]],
    rasters: Rasters,
    headers: _Headers,
    outlines: _Outlines,
    select: SelectScenes | None,
) -> list[int]:
    """The numbers of Items that are selected, by their metadata and grids; before their files are opened."""
    if select is None:
        return [number for number, group in rasters.items() if group]
    numbers: dict[int, int] = {}
    probes: list[Scene] = []
    for number, group in rasters.items():
        with name_item_in_errors(items[number]):
            # The geometry of an Item is the outline of all its files.
            probed = group[:1] if items[number].get("geometry") else group
            for grid in dict.fromkeys(headers.get_grid(raster) for raster in probed):
                probe = _make_scene(items[number], [grid], {}, outlines.get_footprint(number, grid))
                numbers[id(probe)] = number
                probes.append(probe)
    return sorted({numbers[id(probe)] for probe in select(probes)})


# --- Scenes --------------------------------------------------------------------------------------


def _make_scenes(
    item: Mapping[str, Any], number: int, slots: Mapping[str, Slot], outlines: _Outlines, place: RasterPlace
) -> list[Scene]:
    """The Item as a scene; as several where it has the same band more than once, or several systems."""
    parts: dict[tuple[int, CRS], dict[str, BandSource]] = {}
    for label, slot in slots.items():
        for i, source in enumerate(slot.get(number, ())):
            if not is_complex(source.band.header.dtype):
                parts.setdefault((i, source.grid.crs), {})[label] = source
    scenes = []
    with name_item_in_errors(item):
        for part in parts.values():
            grids = list(dict.fromkeys(source.grid for source in part.values()))
            names = {grid: f"grid{i}" if i else "default" for i, grid in enumerate(grids)}
            files = {
                label: File(
                    source.raster.href,
                    source.band.position,
                    None,
                    names[source.grid],
                    place,
                    source.band.declared_nodata,
                    source.band.uses_alpha,
                )
                for label, source in part.items()
            }
            scenes.append(_make_scene(item, grids, files, outlines.get_footprint(number, grids[0])))
    return scenes


def _make_scene(
    item: Mapping[str, Any], grids: Sequence[GeoBox], files: Mapping[str, File], footprint: Geometry
) -> Scene:
    properties = item.get("properties") or {}
    id_ = f"{item.get('id')}"
    times = _name_times(properties)
    return Scene(
        id=id_,
        product=str(item.get("collection") or "STAC"),
        time=get_nominal_time(times, id_),
        crs=grids[0].crs,
        grids={f"grid{i}" if i else "default": grid for i, grid in enumerate(grids)},
        files=files,
        footprint=footprint,
        properties=properties,
        interval=find_interval(times, id_),
    )


def _name_times(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The times of an Item as EO3 names them."""
    eo3 = {f"dtr:{name}": properties.get(name) for name in ("start_datetime", "end_datetime")}
    return {**eo3, "datetime": properties.get("datetime")}
