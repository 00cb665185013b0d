"""GeoParquet of jobs in parts: a file for each range of geometries, which together are one dataset.

All files have the schema of the whole, which is known before anything is computed: what a property is in one
part does not depend on the values that it has there.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import xarray as xr

from odc_openeo.formats.assets import make_cube_asset
from odc_openeo.formats.model import Asset, Compute, Options
from odc_openeo.formats.properties import to_plain, to_string
from odc_openeo.formats.skeletons import strip_values
from odc_openeo.formats.vector import FEATURE, as_array, make_features
from odc_openeo.formats.vector_tables import PARQUET, convert_parquet_columns
from odc_openeo.spatial.vector_cubes import make_object_column

GEO: Final = b"geo"
"""The member of a file's metadata that makes it a GeoParquet."""


def make_table_schema(data: xr.DataArray | xr.Dataset) -> bytes:
    """Return the serialized schema of the table of a whole vector cube, whose values stay uncomputed."""
    rows = convert_parquet_columns(make_features(strip_values(as_array(data)).compute()))
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    buffer.seek(0)
    return bytes(pq.read_schema(buffer).serialize())


def write_parquet_part(
    data: xr.DataArray | xr.Dataset, path: Path, schema: bytes, first: int, options: Options, compute: Compute
) -> Asset:
    """Write the rows of a part whose first geometry is number ``first`` of the whole."""
    rows = make_features(as_array(compute(data)[0]))
    geometries = rows.geometry.to_numpy()
    table_schema = pa.ipc.read_schema(pa.py_buffer(schema))
    columns: dict[str, Any] = {}
    for name in map(str, rows.columns):
        if name == rows.geometry.name:
            columns[name] = make_object_column(shapely.to_wkb(geometries, flavor="iso").tolist())
        elif name == FEATURE:
            columns[name] = rows[name].to_numpy() + first
        else:
            columns[name] = fit_column(rows[name].to_numpy(), table_schema.field(name).type)
    table = pa.Table.from_pandas(pd.DataFrame(columns), schema=table_schema, preserve_index=False)
    metadata = {**table_schema.metadata, GEO: _describe_bounds(table_schema.metadata[GEO], geometries)}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression=options["compression"])
    return make_cube_asset(path, PARQUET.media_type, data)


def fit_column(values: np.ndarray, type_: pa.DataType) -> np.ndarray:
    """Convert a column of a part as the whole column is converted, whose type is given."""
    if values.dtype != object:
        return values
    plain = [to_plain(value) for value in values]
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        plain = [None if value is None else to_string(value) for value in plain]
    return make_object_column(plain)


def _describe_bounds(geo: bytes, geometries: np.ndarray) -> bytes:
    """Replace the bounds of the whole by those of the geometries in the file."""
    document = json.loads(geo)
    column = document["columns"][document["primary_column"]]
    bounds = shapely.total_bounds(geometries)
    column.pop("bbox", None)
    if np.isfinite(bounds).all():
        column["bbox"] = bounds.tolist()
    return json.dumps(document).encode()
