"""`.openeo` of datasets and arrays: the process graph, and what a back-end does with it."""

from __future__ import annotations

from typing import Any

import xarray as xr

from openeo_xarray.array import RecordedArray
from openeo_xarray.lower import find_source
from openeo_xarray.request import make_graph, make_outputs, save


class OpenEOAccessor:
    """The recorded operations of a dataset or an array, as openEO."""

    def __init__(self, data: xr.Dataset | xr.DataArray) -> None:
        self._data = data

    def _list_arrays(self) -> list[RecordedArray]:
        data = self._data
        variables = (
            [data.variable]
            if isinstance(data, xr.DataArray)
            else [v.variable for v in data.data_vars.values()]
        )
        contents: list[Any] = [v._data for v in variables]
        arrays = [data for data in contents if isinstance(data, RecordedArray)]
        if not arrays:
            raise ValueError(
                "nothing is recorded here: the values are computed already, or not of an openEO collection"
            )
        return arrays

    @property
    def connection(self) -> Any:
        """The connection to the back-end."""
        return find_source(self._list_arrays()[0].node).connection

    def graph(self, format: str | None = "netCDF", **options: Any) -> dict[str, Any]:
        """The flat process graph of all recorded arrays; without `save_result` if the format is None."""
        nodes = list({array.node.key: array.node for array in self._list_arrays()}.values())
        cubes = [output.cube for output in make_outputs(nodes)]
        if format is None:
            return make_graph(cubes)
        prefixes = [
            {"filename_prefix": f"result{i:03d}x"} if len(cubes) > 1 else {} for i in range(len(cubes))
        ]
        return make_graph(
            [save(cube, format, **prefix, **options) for cube, prefix in zip(cubes, prefixes, strict=True)]
        )

    def explain(self) -> str:
        """Say what the back-end would do: its own explanation if it has one, else the graph step by step."""
        from openeo_xarray.explanation import explain_graph

        return explain_graph(self.connection, self.graph())

    def create_job(self, format: str = "netCDF", *, title: str | None = None, **options: Any) -> Any:
        """Create a batch job whose results are files of a format."""
        return self.connection.create_job(self.graph(format, **options), title=title)

    def save(self, path: Any, format: str = "netCDF", **options: Any) -> Any:
        """Compute with one request and save the file, or the archive of files, that the back-end answers."""
        self.connection.download(self.graph(format, **options), path, validate=False)
        return path


xr.register_dataset_accessor("openeo")(OpenEOAccessor)
xr.register_dataarray_accessor("openeo")(OpenEOAccessor)
