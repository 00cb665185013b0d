"""Temporary pipe to a plain interpreter."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from odc_openeo.errors import UdfFailed


@dataclass(frozen=True)
class UdfCode:
    source: str
    runtime: str = "Python"


@dataclass(frozen=True)
class UdfLimits:
    memory_bytes: int = 2 * 2**30

    @classmethod
    def from_config(cls, config: Any) -> UdfLimits:
        return cls()


@dataclass(frozen=True)
class UdfReply:
    header: Mapping[str, Any]
    arrays: Sequence[np.ndarray]
    logs: Sequence[Mapping[str, Any]] = field(default_factory=list)


_children: dict[Any, subprocess.Popen[bytes]] = {}

_MAIN = """
import json, struct, sys, traceback
sys.path.insert(0, %r)
import dispatch, numpy as np
source = sys.stdin.buffer; sink = sys.stdout.buffer; sys.stdout = sys.stderr
def read():
    n = struct.unpack('<I', source.read(4))[0]
    head = json.loads(source.read(n)); arrays = []
    for a in head.pop('_arrays'):
        m = np.dtype(a['dtype']).itemsize * int(np.prod(a['shape'], dtype=int))
        arrays.append(np.frombuffer(bytearray(source.read(m)), a['dtype']).reshape(a['shape']))
    return head, arrays
def write(head, arrays):
    head = dict(head, _arrays=[{'dtype': a.dtype.str, 'shape': a.shape} for a in arrays])
    text = json.dumps(head).encode(); sink.write(struct.pack('<I', len(text))); sink.write(text)
    for a in arrays: sink.write(a.tobytes())
    sink.flush()
while True:
    head, arrays = read()
    code = head.pop('_code')
    with dispatch.LogCollector() as logs:
        try:
            reply, out = dispatch.dispatch(code, head, arrays)
        except BaseException as e:
            reply, out = {'_error': ''.join(traceback.format_exception_only(e)).strip()}, []
    write(dict(reply, _logs=logs.entries), out)
""" % str(Path(__file__).parent / "child")


def _write(pipe: Any, head: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
    head = {**head, "_arrays": [{"dtype": a.dtype.str, "shape": a.shape} for a in arrays]}
    text = json.dumps(head).encode()
    pipe.write(struct.pack("<I", len(text)))
    pipe.write(text)
    for a in arrays:
        pipe.write(a.tobytes())
    pipe.flush()


def _read(pipe: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
    n = struct.unpack("<I", pipe.read(4))[0]
    head = json.loads(pipe.read(n))
    arrays = []
    for a in head.pop("_arrays"):
        m = np.dtype(a["dtype"]).itemsize * int(np.prod(a["shape"], dtype=int))
        arrays.append(np.frombuffer(pipe.read(m), a["dtype"]).reshape(a["shape"]))
    return head, arrays


def call_udf(
    settings: Any, owner: str, code: UdfCode, header: Mapping[str, Any], arrays: Any, limits: UdfLimits
) -> UdfReply:
    key = (threading.get_ident(), owner, code)
    child = _children.get(key)
    if child is None:
        child = _children[key] = subprocess.Popen(
            [sys.executable, "-c", _MAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    _write(child.stdin, {**header, "_code": code.source}, arrays)
    reply, out = _read(child.stdout)
    logs = reply.pop("_logs")
    if "_error" in reply:
        error = UdfFailed(reason=reply["_error"])
        error.logs = logs
        raise error
    return UdfReply(reply, out, logs)
