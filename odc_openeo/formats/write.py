"""Write the results of a process graph to files: all of them or none."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask
import xarray as xr

from odc_openeo.cube import GEOMETRY, T, X, Y, has_raster_dimensions
from odc_openeo.errors import DataCubeEmpty, StorageFailure
from odc_openeo.formats.blocks import BATCH_BYTES
from odc_openeo.formats.file_names import choose_stems, make_stem
from odc_openeo.formats.model import Asset, Compute, Format, Target
from odc_openeo.formats.pieces import Piece, list_pieces
from odc_openeo.formats.raster import find_band_dimension
from odc_openeo.formats.registry import get_format
from odc_openeo.formats.write_errors import find_full_disk, make_storage_failure


@dataclass(frozen=True)
class Output:
    """Data that a `save_result` saves in a format.

    ``pieces`` have files of their own (none: the data is written whole); ``warnings`` are for the user.
    """

    data: Any
    format: Format
    options: Mapping[str, Any] = field(default_factory=dict)
    pieces: Sequence[Piece] = ()
    warnings: Sequence[str] = ()

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
        output_format.check_options(data, complete)
        pieces, warnings = list_pieces(data, complete)
        warnings = [*_list_warnings(output_format, options or {}, complete), *warnings]
        return cls(data, output_format, complete, pieces, warnings)

    @property
    def filename_prefix(self) -> str | None:
        """The prefix that the user has given for the names of the files."""
        return self.options.get("filename_prefix")

    def explain_files(self) -> str:
        """Say why this output has several files, and how to get one."""
        name = self.format.name
        if len(self.pieces) > 1:
            return f"each of {len(self.pieces)} features or tiles has files of its own."
        if self.options.get("separate_asset_per_band"):
            return "each band has a file of its own."
        layers = _list_layer_dimensions(self.data)
        if not layers or name not in ("GTiff", "PNG", "JPEG"):
            return f"the format {name} has several files."
        counts = " and ".join(f"each of the {size} labels of '{label}'" for label, size in layers.items())
        single = " Option 'layout' = 'bands' puts all in one GeoTIFF." if name == "GTiff" else ""
        return f"{name} has a file for {counts}. To get one, reduce the dimension or use netCDF.{single}"


def _list_layer_dimensions(data: Any) -> dict[str, int]:
    """The dimensions with several labels that are not in a file of a raster cube, with their sizes."""
    if not isinstance(data, xr.DataArray) or not has_raster_dimensions(data):
        return {}
    inside = (find_band_dimension(data), X, Y)
    return {str(name): size for name, size in data.sizes.items() if name not in inside and size > 1}


def _list_warnings(format_: Format, options: Mapping[str, Any], complete: Mapping[str, Any]) -> list[str]:
    warnings = [
        f"option '{option}' of format {format_.name} has no effect here: it changes no value."
        for option in format_.list_ignored_options(options)
    ]
    prefix = complete["filename_prefix"]
    if prefix is not None and make_stem(prefix) != prefix:
        warnings.append(f"option 'filename_prefix': file names begin with '{make_stem(prefix)}'.")
    return warnings


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


def name_outputs(outputs: Sequence[Output]) -> list[str]:
    """Choose what the names of the files of each output begin with."""
    return choose_stems([output.filename_prefix for output in outputs]) if outputs else []


def write_outputs(
    value: Any,
    outputs: Sequence[Output],
    folder: Path,
    compute: Compute = dask.compute,
    names: Sequence[str] = (),
) -> list[Asset]:
    """Compute and write the results of a process graph into an existing folder.

    ``value`` is the graph's result; it is written in its default format if there are no ``outputs``.
    ``compute`` is called with dask collections, several times for large ones. Files appear in the folder when
    all are written; their names start with the ``names`` of the outputs, by default those of `name_outputs`.

    Raises:
        StorageFailure: a file could not be written.
    """
    requested_outputs = list(outputs) or [Output.from_data(value, choose_format(value))]
    unfinished = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        stems = names or name_outputs(requested_outputs)
        written_assets = list(_write_files(requested_outputs, unfinished, compute, stems))
        return [
            replace(_move_asset(asset, folder), output=i)
            for i, assets in enumerate(written_assets)
            for asset in assets
        ]
    except Exception as error:
        full = find_full_disk(error, unfinished)
        if full is not None:
            raise make_storage_failure(full) from full
        if isinstance(error, OSError) and error.errno in (
            errno.EROFS,
            errno.EIO,
            errno.ESTALE,
            errno.ENOTDIR,
        ):
            raise make_storage_failure(error) from error
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_files(
    outputs: Sequence[Output], folder: Path, compute: Compute, stems: Sequence[str]
) -> Iterator[Sequence[Asset]]:
    for output, stem in zip(_compute_together(outputs, compute), stems, strict=True):
        target = Target(folder, stem, compute)
        if not output.pieces:
            yield output.format.write(output.data, target, output.options)
        else:
            yield list(_write_pieces(output, target))


def _write_pieces(output: Output, target: Target) -> Iterator[Asset]:
    """Write each piece to files of its own; a small cube is computed once for all of them."""
    data = output.data
    if data.nbytes <= BATCH_BYTES:
        (data,) = target.compute(data)
    for piece in output.pieces:
        named = replace(target, name=f"{target.name}_{piece.name}")
        for asset in output.format.write(piece.cut(data), named, output.options):
            has_title = asset.title != asset.path.stem
            yield replace(asset, title=f"{piece.name}: {asset.title}") if has_title else asset


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
