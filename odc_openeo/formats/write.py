"""From what a process graph gave to files: all of them or none."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import dask
import xarray as xr

from odc_openeo.cube import GEOMETRY, T, has_raster_dimensions
from odc_openeo.errors import NO_ROOM, DataCubeEmpty, StorageFailure
from odc_openeo.formats.blocks import BATCH_BYTES
from odc_openeo.formats.model import Asset, Compute, Format, Target
from odc_openeo.formats.registry import find_format
from odc_openeo.formats.storing import failure

ARCHIVE_TYPE: Final = "application/zip"
_STORED: Final = {".tif", ".nc", ".png", ".jpg", ".parquet"}
"""Files that are compressed already."""


@dataclass(frozen=True)
class Output:
    """Data to be saved in a format, as `save_result` was asked to."""

    data: Any
    format: Format
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Any, format_: str, options: Mapping[str, Any] | None = None) -> Output:
        """Check that format, options and data go together; nothing is computed.

        Raises:
            FileTypeInvalid: there is no such format.
            ProcessParameterInvalid: an option is unknown or its value not allowed.
            FormatUnsuitable: the format can't hold the data.
            DataCubeEmpty: a dimension has no labels, and the format can't store that.
        """
        found = find_format(format_)
        complete = found.complete(options)
        if _is_empty(data) and not found.stores_empty:
            raise DataCubeEmpty()
        if isinstance(data, xr.DataArray):
            # The names that dask gives to its arrays mean nothing to a reader.
            data = data.rename(None)
        found.check(data)
        return cls(data, found, complete)


def _is_empty(data: Any) -> bool:
    return isinstance(data, xr.DataArray | xr.Dataset) and 0 in data.sizes.values()


def default_format(value: Any) -> str:
    """The format of a result that no `save_result` named one for.

    Raster cubes: GTiff. Vector cubes: JSON (a time series) if they have dates, else GeoJSON. All else: JSON.
    """
    if not isinstance(value, xr.DataArray | xr.Dataset):
        return "JSON"
    if GEOMETRY in value.dims:
        return "JSON" if T in value.dims else "GeoJSON"
    return "GTiff" if isinstance(value, xr.DataArray) and has_raster_dimensions(value) else "JSON"


def write_outputs(
    value: Any, outputs: Sequence[Output], folder: Path, compute: Compute = dask.compute, name: str = "result"
) -> list[Asset]:
    """Compute and write what a process graph gave, into a folder that exists.

    ``value`` is the graph's result; it is written in its default format if there are no ``outputs``.
    ``compute``
    is called with dask collections, several times for large ones. Files appear in the folder when all are
    written; their names start with ``name``, followed by a number if there are several outputs.

    Raises:
        StorageFailure: a file could not be written.
    """
    wanted = list(outputs) or [Output.of(value, default_format(value))]
    partial = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        written = list(_written(wanted, partial, compute, name))
        return [
            replace(_moved(asset, folder), output=i) for i, found in enumerate(written) for asset in found
        ]
    except OSError as error:
        if error.errno in (*NO_ROOM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTDIR):
            raise failure(error) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _written(
    outputs: Sequence[Output], folder: Path, compute: Compute, name: str
) -> Iterator[Sequence[Asset]]:
    names = [name] if len(outputs) == 1 else [f"{name}_{i}" for i in range(1, len(outputs) + 1)]
    for output, stem in zip(_together(outputs, compute), names, strict=True):
        yield output.format.write(output.data, Target(folder, stem, compute), output.options)


def _together(outputs: Sequence[Output], compute: Compute) -> Sequence[Output]:
    """Small cubes of several outputs are computed at once, so that what they share is read once."""
    cubes = [o.data for o in outputs if isinstance(o.data, xr.DataArray | xr.Dataset)]
    if len(cubes) < 2 or sum(c.nbytes for c in cubes) > BATCH_BYTES:
        return outputs
    computed = iter(compute(*cubes))
    return [
        replace(o, data=next(computed)) if isinstance(o.data, xr.DataArray | xr.Dataset) else o
        for o in outputs
    ]


def _moved(asset: Asset, folder: Path) -> Asset:
    if not asset.path.exists() or (asset.path.is_file() and not asset.path.stat().st_size):
        raise StorageFailure()
    path = folder / asset.path.name
    if path.is_dir():
        shutil.rmtree(path)
    os.replace(asset.path, path)
    return replace(asset, path=path)


def single_file(assets: Sequence[Asset], folder: Path, name: str = "result") -> tuple[Path, str]:
    """One file for all assets, and its media type: the only file itself, else a zip archive made in the
    folder.

    The archive has the same bytes for the same files.
    """
    if len(assets) == 1 and assets[0].path.is_file():
        return assets[0].path, assets[0].media_type
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member, file in sorted(_members(assets)):
            info = zipfile.ZipInfo(member)
            info.compress_type = zipfile.ZIP_STORED if file.suffix in _STORED else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            with file.open("rb") as source, archive.open(info, "w", force_zip64=True) as sink:
                shutil.copyfileobj(source, sink, 2**20)
    return path, ARCHIVE_TYPE


def _members(assets: Sequence[Asset]) -> Iterator[tuple[str, Path]]:
    for asset in assets:
        files = [asset.path] if asset.path.is_file() else asset.path.rglob("*")
        for file in files:
            if file.is_file():
                yield file.relative_to(asset.path.parent).as_posix(), file
