"""Processes that hand data out: `save_result`."""

from __future__ import annotations

from typing import Annotated, Any

from odc_openeo.demand import same
from odc_openeo.formats.write import Output
from odc_openeo.process import Environment, Schema, process
from odc_openeo.processes.schemas import Cube

OutputFormat = Annotated[str, Schema({"type": "string", "subtype": "output-format"})]
FormatOptions = Annotated[dict[str, Any], Schema({"type": "object", "subtype": "output-format-options"})]
StacResource = Annotated[bool, Schema({"type": "object", "subtype": "stac"})]


@process(categories=["cubes", "export", "stac"], needs=same("data"))
def save_result(
    data: Cube,
    format: OutputFormat,
    options: FormatOptions = {},  # noqa: B006 (the published default; never changed)
    *,
    env: Environment,
) -> StacResource:
    """Save data in a file format.

    The files become the results of a batch job, or the answer to a synchronous request (as one archive if
    there
    are several). They are written when the whole graph has been evaluated; whether the format suits the
    data is checked at once.

    Args:
        data: The data to save.
        format: The name of the file format in any casing, one of those that `GET /file_formats` lists.
        options: Options of the format, see `GET /file_formats`. Unknown options are refused.

    Returns:
        The STAC metadata of what was saved; within a process graph a placeholder for it.

    Raises:
        FormatUnsuitable: The format can't hold data of this kind.
        DataCubeEmpty: The cube has a dimension without labels and the format can't store that.
    """
    env.outputs.append(Output.of(data, format, options))
    return True
