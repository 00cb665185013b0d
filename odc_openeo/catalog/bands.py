"""The bands of an ODC product: names, aliases, common names, pixel type, no-data, scale and wavelengths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from odc_openeo.errors import ProcessParameterInvalid

VISIBLE = ["pan", "coastal", "blue", "green", "green05", "yellow", "red"]
NEAR_INFRARED = ["rededge", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09"]
LONGER = ["cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12"]
COMMON_NAMES = frozenset([*VISIBLE, *NEAR_INFRARED, *LONGER])
"""The common band names of the STAC extension ``eo``."""


@dataclass(frozen=True)
class ExtraDimension:
    """A dimension of measurements besides time and space: each label is the next band of their files."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Band:
    """One measurement of a product. Wavelengths are micrometres; ``nodata`` may be NaN.

    The physical value of a raw value is ``raw * scale + offset``; it is never applied when loading.
    ``given_aliases`` are those of the operator. If the band was asked for by one of them, it is ``alias``,
    and the label of the band in cubes.
    """

    name: str
    aliases: tuple[str, ...] = ()
    common_name: str | None = None
    dtype: str = "float32"
    nodata: float | None = None
    units: str | None = None
    scale: float | None = None
    offset: float | None = None
    wavelength: float | None = None
    bandwidth: float | None = None
    extra_dimension: ExtraDimension | None = None
    given_aliases: tuple[str, ...] = ()
    alias: str | None = None

    @property
    def label(self) -> str:
        """The label of the band in cubes: the alias by which it was asked for, else its name."""
        return self.alias or self.name

    @property
    def names(self) -> frozenset[str]:
        """Every name that selects the band."""
        return frozenset({self.name, *self.aliases} | ({self.common_name} if self.common_name else set()))

    @property
    def is_float(self) -> bool:
        """Whether its pixels are floats, so that NaN is their no-data value."""
        return np.issubdtype(np.dtype(self.dtype), np.floating)


def read_bands(
    definition: Mapping[str, Any],
    common_names: Mapping[str, str],
    aliases: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Band, ...]:
    """Read the bands of a product definition; common names and further aliases are the operator's, by band
    name. An alias of the operator is no longer one that the definition has for another band."""
    given = {alias: name for name, synonyms in (aliases or {}).items() for alias in synonyms}
    dimensions = {
        d["name"]: ExtraDimension(d["name"], tuple(d["values"]))
        for d in definition.get("extra_dimensions") or ()
    }
    return tuple(_parse_band(m, common_names, given, dimensions) for m in definition.get("measurements", ()))


def _parse_band(
    measurement: Mapping[str, Any],
    common_names: Mapping[str, str],
    given: Mapping[str, str],
    dimensions: Mapping[str, ExtraDimension],
) -> Band:
    name = measurement["name"]
    declared = tuple(measurement.get("aliases") or ())
    kept = [alias for alias in declared if given.get(alias, name) == name]
    added = tuple(alias for alias, band in given.items() if band == name != alias)
    centre, width = _measure_spectrum(measurement.get("spectral_definition"))
    return Band(
        name=name,
        aliases=tuple(dict.fromkeys([*kept, *added])),
        common_name=common_names.get(name) or next((n for n in (name, *declared) if n in COMMON_NAMES), None),
        dtype=measurement.get("dtype", "float32"),
        nodata=_parse_nodata(measurement.get("nodata")),
        units=measurement.get("units"),
        scale=measurement.get("scale_factor"),
        offset=measurement.get("add_offset"),
        wavelength=centre,
        bandwidth=width,
        given_aliases=added,
        extra_dimension=dimensions.get(measurement.get("extra_dim", "")),
    )


def _parse_nodata(value: Any) -> float | None:
    """Parse a no-data value; JSON has no NaN, so products write it as a string."""
    if value is None:
        return None
    number = float(value)
    return int(number) if number.is_integer() else number


def _measure_spectrum(definition: Any) -> tuple[float | None, float | None]:
    """Compute centre and full width at half maximum in micrometres of a spectral response over nanometres."""
    if not isinstance(definition, Mapping):
        return None, None
    wavelengths, response = definition.get("wavelength"), definition.get("response")
    if not wavelengths or not response or len(wavelengths) != len(response):
        return None, None
    nm, weights = np.asarray(wavelengths, float), np.asarray(response, float)
    if not weights.sum() > 0:
        return None, None
    half = nm[weights >= weights.max() / 2]
    centre = float((nm * weights).sum() / weights.sum())
    return round(centre / 1000, 5), round(float(half.max() - half.min()) / 1000, 5) or None


def resolve_bands(
    bands: Sequence[Band], names: Iterable[str] | None, process_id: str = "load_collection"
) -> list[Band]:
    """Resolve names to bands, in the order of the names and without duplicates; None selects all bands.

    A band name takes precedence over a common name, a common name over an alias; a common name or alias that
    several bands share selects all of them. A band that is asked for by an alias of the operator is
    labelled by it, so that graphs made for other names run; several such aliases are several bands.

    Raises:
        ProcessParameterInvalid: a name that no band has; the message lists the bands.
    """
    if names is None:
        return list(bands)
    matches = [band for name in names for band in _match_name(bands, name, process_id)]
    return list(dict.fromkeys(matches))


def _match_name(bands: Sequence[Band], name: str, process_id: str) -> list[Band]:
    for matching in ([b for b in bands if b.name == name], [b for b in bands if b.common_name == name]):
        if matching:
            return matching
    named = [b for b in bands if name in b.aliases]
    if named:
        return [replace(b, alias=name) if name in b.given_aliases else b for b in named]
    raise ProcessParameterInvalid(
        parameter="bands",
        process=process_id,
        reason=f"there is no band '{name}'. The bands are: {', '.join(_describe_band(b) for b in bands)}.",
    )


def map_aliases(bands: Sequence[Band]) -> dict[str, str]:
    """Map all other names of the bands of a cube to their labels, but names that several bands share."""
    labels = {band.label for band in bands}
    owners: dict[str, dict[str, str]] = {}
    for band in bands:
        for name in band.names - labels:
            owners.setdefault(name, {}).setdefault(band.name, band.label)
    return {name: next(iter(owner.values())) for name, owner in sorted(owners.items()) if len(owner) == 1}


def _describe_band(band: Band) -> str:
    synonyms = sorted(band.names - {band.name})
    return f"{band.name} ({', '.join(synonyms)})" if synonyms else band.name


def stac_band(band: Band, gsd: float | None) -> dict[str, Any]:
    """The band as a STAC 1.1 common band object with the fields of ``eo`` and ``raster``."""
    fields = {
        "name": band.name,
        "data_type": band.dtype,
        "nodata": _json_nodata(band.nodata),
        "unit": band.units if band.units not in ("1", "") else None,
        "gsd": gsd,
        "eo:common_name": band.common_name,
        "eo:center_wavelength": band.wavelength,
        "eo:full_width_half_max": band.bandwidth,
        "raster:scale": band.scale,
        "raster:offset": band.offset,
        "aliases": list(band.aliases) or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def eo_band(band: Band, gsd: float | None) -> dict[str, Any]:
    """The band as clients older than STAC 1.1 read it (``eo:bands``)."""
    fields = {
        "name": band.name,
        "common_name": band.common_name,
        "center_wavelength": band.wavelength,
        "full_width_half_max": band.bandwidth,
        "gsd": gsd,
        "aliases": list(band.aliases) or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _json_nodata(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
