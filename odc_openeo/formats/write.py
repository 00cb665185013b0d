"""Write the results of a process graph to files: all of them or none."""

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
from odc_openeo.formats.registry import get_format
from odc_openeo.formats.write_errors import make_storage_failure

ARCHIVE_TYPE: Final = "application/zip"
_STORED: Final = {".tif", ".nc", ".png", ".jpg", ".parquet"}
"""Extensions of files that are compressed already."""


@dataclass(frozen=True)
class Output:
    """Data that a `save_result` saves in a format."""

    data: Any
    format: Format
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_data(cls, data: Any, format_: str, options: Mapping[str, Any] | None = None) -> Output:
        """Check that format, options and data fit together; nothing is computed.

        Raises:
            FileTypeInvalid: there is no such format.
            ProcessParameterInvalid: an option is unknown or its value not allowed.
            FormatUnsuitable: the format can't hold the data.
            DataCubeEmpty: a dimension has no labels, and the format can't store that.
        """
        output_format = get_format(format_)
        complete = output_format.complete_options(options)
        if _is_empty(data) and not output_format.stores_empty:
            raise DataCubeEmpty()
        if isinstance(data, xr.DataArray):
            # Names that dask gives its arrays mean nothing to users.
            data = data.rename(None)
        output_format.check(data)
        return cls(data, output_format, complete)


def _is_empty(data: Any) -> bool:
    return isinstance(data, xr.DataArray | xr.Dataset) and 0 in data.sizes.values()


def choose_format(value: Any) -> str:
    """Choose the format of a result without a `save_result`.

    Raster cubes: GTiff. Vector cubes: JSON (a time series) if they have dates, else GeoJSON. Others: JSON.
    """
    if not isinstance(value, xr.DataArray | xr.Dataset):
        return "JSON"
    if GEOMETRY in value.dims:
        return "JSON" if T in value.dims else "GeoJSON"
    return "GTiff" if isinstance(value, xr.DataArray) and has_raster_dimensions(value) else "JSON"


def write_outputs(
    value: Any, outputs: Sequence[Output], folder: Path, compute: Compute = dask.compute, name: str = "result"
) -> list[Asset]:
    """Compute and write the results of a process graph into an existing folder.

    ``value`` is the graph's result; it is written in its default format if there are no ``outputs``.
    ``compute`` is called with dask collections, several times for large ones. Files appear in the folder when
    all are written; their names start with ``name``, followed by a number if there are several outputs.

    Raises:
        StorageFailure: a file could not be written.
    """
    requested_outputs = list(outputs) or [Output.from_data(value, choose_format(value))]
    unfinished = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        written_assets = list(_write_files(requested_outputs, unfinished, compute, name))
        return [
            replace(_move_asset(asset, folder), output=i)
            for i, assets in enumerate(written_assets)
            for asset in assets
        ]
    except OSError as error:
        if error.errno in (*NO_ROOM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTDIR):
            raise make_storage_failure(error) from error
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_files(
    outputs: Sequence[Output], folder: Path, compute: Compute, name: str
) -> Iterator[Sequence[Asset]]:
    names = [name] if len(outputs) == 1 else [f"{name}_{i}" for i in range(1, len(outputs) + 1)]
    for output, stem in zip(_compute_together(outputs, compute), names, strict=True):
        yield output.format.write(output.data, Target(folder, stem, compute), output.options)


def _compute_together(outputs: Sequence[Output], compute: Compute) -> Sequence[Output]:
    """Compute small cubes of several outputs together, so that shared data are read once."""
    cubes = [o.data for o in outputs if isinstance(o.data, xr.DataArray | xr.Dataset)]
    if len(cubes) < 2 or sum(c.nbytes for c in cubes) > BATCH_BYTES:
        return outputs
    computed = iter(compute(*cubes))
    return [
        replace(o, data=next(computed)) if isinstance(o.data, xr.DataArray | xr.Dataset) else o
        for o in outputs
    ]


def _move_asset(asset: Asset, folder: Path) -> Asset:
    if not asset.path.exists() or (asset.path.is_file() and not asset.path.stat().st_size):
        raise StorageFailure()
    path = folder / asset.path.name
    if path.is_dir():
        shutil.rmtree(path)
    os.replace(asset.path, path)
    return replace(asset, path=path)


def pack_files(assets: Sequence[Asset], folder: Path, name: str = "result") -> tuple[Path, str]:
    """Pack all assets into one file, and return it with its media type.

    A single file stays as it is, else a zip archive is made in the folder; it has the same bytes for the same
    files.
    """
    if len(assets) == 1 and assets[0].path.is_file():
        return assets[0].path, assets[0].media_type
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member, file in sorted(_iter_members(assets)):
            info = zipfile.ZipInfo(member)
            info.compress_type = zipfile.ZIP_STORED if file.suffix in _STORED else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            with file.open("rb") as source, archive.open(info, "w", force_zip64=True) as sink:
                shutil.copyfileobj(source, sink, 2**20)
    return path, ARCHIVE_TYPE


def _iter_members(assets: Sequence[Asset]) -> Iterator[tuple[str, Path]]:
    for asset in assets:
        files = [asset.path] if asset.path.is_file() else asset.path.rglob("*")
        for file in files:
            if file.is_file():
                yield file.relative_to(asset.path.parent).as_posix(), file
