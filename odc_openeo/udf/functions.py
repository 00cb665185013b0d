"""A user-defined function of a run: its calls in the sandbox, and what it logs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odc_openeo.errors import OpenEOError, UdfResultInvalid
from odc_openeo.udf.caches import Lease
from odc_openeo.udf.calls import UdfCode, UdfSettings, call_udf
from odc_openeo.udf.cube_messages import (
    PlainCube,
    decode_outputs,
    encode_cube,
    encode_features,
    is_announcement,
)
from odc_openeo.udf.user_logs import LogTarget


@dataclass(frozen=True)
class CubeSurroundings:
    """The description of a cube for user code, besides its values and labels.

    ``types``: openEO types by dimension; ``attrs``: attributes of the array; ``proj``: the reference system
    as the client names it, such as ``{"EPSG": 4326}``.
    """

    types: Mapping[str, str]
    attrs: Mapping[str, str] = field(default_factory=dict)
    proj: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class UserFunction:
    """User code with its context, on behalf of an owner; picklable, so that dask tasks can call it.

    ``leases``: of the folders of its libraries and archives, in the process that evaluates the graph.
    """

    settings: UdfSettings
    owner: str
    code: UdfCode
    context: Any
    target: LogTarget
    leases: tuple[Lease | None, ...] = field(default=(), compare=False, repr=False)

    @property
    def key(self) -> str:
        """A digest of code, owner and context."""
        parts = [self.owner, repr(self.code), self.context]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def call(
        self, header: Mapping[str, Any], arrays: Sequence[np.ndarray], *, quiet: bool = False
    ) -> tuple[Mapping[str, Any], Sequence[np.ndarray]]:
        """Call user code; return the header and the arrays of the reply.

        With ``quiet`` nothing is logged, and errors name no node.

        Raises:
            OpenEOError: user code failed, or was stopped by a limit; ``node`` names where.
        """
        full = {"context": self.context, **header}
        try:
            reply = call_udf(self.settings, self.owner, self.code, full, arrays)
        except OpenEOError as error:
            if not quiet:
                self.target.deliver(getattr(error, "logs", ()))
                self.name_node(error)
            raise
        if not quiet:
            self.target.deliver(reply.logs)
        return reply.header, reply.arrays

    def name_node(self, error: OpenEOError) -> None:
        """Name the node of the process graph in an error, unless it names one."""
        if error.node is None:
            error.node = self.target.node

    def run_on_cube(self, data: PlainCube, about: CubeSurroundings, *, quiet: bool = False) -> PlainCube:
        """Run the function on a cube; return the cube that it returns.

        Raises:
            UdfResultInvalid: it returned anything else.
        """
        arrays: list[np.ndarray] = []
        description = encode_cube(data, about.types, about.attrs, arrays)
        features = [] if data.features is None else [encode_features(data.features, arrays)]
        header = {"call": "run", "proj": about.proj, "inputs": [description, *features]}
        reply, results = self.call(header, arrays, quiet=quiet)
        cubes = decode_outputs(reply, results, "cube")
        if len(cubes) != 1:
            reason = f"one data cube is needed here, not {len(cubes)}."
            raise UdfResultInvalid(reason=reason, node=self.target.node)
        cube: PlainCube = cubes[0]
        return cube

    def find_announced_labels(self, data: PlainCube, about: CubeSurroundings) -> dict[str, list[str] | None]:
        """Ask ``apply_metadata`` of user code for the dimensions of its result, with the labels of bands.

        Empty if there is no such function.
        """
        arrays: list[np.ndarray] = []
        description = encode_cube(data, about.types, about.attrs, arrays)
        reply, _ = self.call({"call": "metadata", "proj": about.proj, "inputs": [description]}, arrays)
        announced = reply.get("dimensions") or []
        if not isinstance(announced, list) or not all(map(is_announcement, announced)):
            reason = (
                "the names of dimensions and bands in the result of 'apply_metadata' must be strings that "
                "differ from each other."
            )
            raise UdfResultInvalid(reason=reason, node=self.target.node)
        return dict(announced)
