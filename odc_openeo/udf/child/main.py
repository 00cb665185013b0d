"""The process of a user-defined function: closes its sandbox, then carries out one call after the other."""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .messages import Link
from .sandbox import close_sandbox

ALIGNMENT = 64
LONGEST_TEXT = 20_000
MOST_FRAMES = 30
CODE_NAMES = ("udf.py", "<string>")
"""The file names of user code in tracebacks."""


class Dispatcher(Protocol):
    """A module that carries out calls of user code."""

    def dispatch(
        self, code: str, header: Mapping[str, Any], arrays: Sequence[Any]
    ) -> tuple[Mapping[str, Any], Sequence[Any]]:
        """Return the header and the arrays of the reply."""


class ResultTooLarge(Exception):
    """The arrays of a result do not fit; the argument is their size in bytes."""


def serve(descriptor: int) -> None:
    """Serve calls that come through a socket until it is closed."""
    link = Link(socket.socket(fileno=descriptor))
    start, _ = link.receive()
    try:
        close_sandbox(start["rules"])
        if start.get("relay") is not None:
            from .relayed_sockets import open_network  # noqa: PLC0415

            open_network(start["relay"])
        add_packages(start["packages"])
        dispatcher = importlib.import_module(f"{__package__}.{start['dispatcher']}")
    except (OSError, ImportError) as error:
        link.send({"kind": "refused", "reason": f"{type(error).__name__}: {error}"})
        return
    # What fails here fails again in the first call, where it is the error of user code.
    with contextlib.suppress(Exception):
        getattr(dispatcher, "prepare", _do_nothing)()
    link.send({"kind": "ready"})
    with contextlib.suppress(EOFError, BrokenPipeError):
        _serve_calls(link, dispatcher)
    # Threads of user code would keep the process alive.
    os._exit(0)


def add_packages(folders: Sequence[str]) -> None:
    """Put folders of packages in front of those of the interpreter, but behind its standard library."""
    names = ("site-packages", "dist-packages")
    places = [place for place, path in enumerate(sys.path) if os.path.basename(path) in names]
    place = places[0] if places else len(sys.path)
    sys.path[place:place] = folders


def _do_nothing() -> None:
    pass


def _serve_calls(link: Link, dispatcher: Dispatcher) -> None:
    arena: mmap.mmap | None = None
    sys.argv = ["udf.py"]
    while True:
        message, descriptor = link.receive()
        if descriptor is not None:
            arena = mmap.mmap(descriptor, message["size"])
            os.close(descriptor)
        if arena is None:
            raise EOFError
        link.send({"kind": "reply", **_carry_out(link, dispatcher, message, arena)})


def _carry_out(
    link: Link, dispatcher: Dispatcher, message: Mapping[str, Any], arena: mmap.mmap
) -> dict[str, Any]:
    try:
        with _collect_logs(link, dispatcher):
            arrays = read_arrays(message["arrays"], arena)
            header, results = dispatcher.dispatch(message["code"], message["header"], arrays)
            # Here, so that what cannot be JSON is the error of user code.
            placed = place_arrays(results, arena, message["reserved"], message["room"])
            return {"header": _check_header(header), "arrays": placed}
    except ResultTooLarge as error:
        return {"too_large": error.args[0]}
    except BaseException as error:
        return {"error": describe_error(error, message["code"])}


def _check_header(header: Any) -> Any:
    import json  # noqa: PLC0415

    return json.loads(json.dumps(header))


def read_arrays(descriptions: Sequence[Mapping[str, Any]], arena: mmap.mmap) -> list[Any]:
    """Return the arrays in the arena, without a copy."""
    if not descriptions:
        return []
    import numpy as np  # noqa: PLC0415

    return [
        np.ndarray(tuple(d["shape"]), dtype=np.dtype(d["dtype"]), buffer=arena, offset=d["offset"])
        for d in descriptions
    ]


def place_arrays(results: Sequence[Any], arena: mmap.mmap, start: int, room: int) -> list[dict[str, Any]]:
    """Copy arrays into the arena, from ``start`` on; return their descriptions.

    Raises:
        ResultTooLarge: they take more than ``room`` bytes.
    """
    if not results:
        return []
    import numpy as np  # noqa: PLC0415

    arrays = [np.asarray(result) for result in results]
    size = sum(-(-values.nbytes // ALIGNMENT) * ALIGNMENT for values in arrays)
    if size > room:
        raise ResultTooLarge(size)
    descriptions, offset = [], start
    for values in arrays:
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if values.dtype.hasobject:
            raise TypeError(f"arrays of type {values.dtype} cannot be returned")
        target = np.ndarray(values.shape, dtype=values.dtype, buffer=arena, offset=offset)
        np.copyto(target, values)
        descriptions.append({"dtype": values.dtype.str, "shape": list(values.shape), "offset": offset})
        offset += -(-values.nbytes // ALIGNMENT) * ALIGNMENT
    return descriptions


def describe_error(error: BaseException, code: str) -> dict[str, Any]:
    """Describe an error of user code: its type, message, and traceback from the first line of the user on."""
    frames = list(traceback.extract_tb(error.__traceback__))
    places = [number for number, frame in enumerate(frames) if frame.filename in CODE_NAMES]
    lines = [_format_frame(frame, code) for frame in (frames[places[0] :] if places else ())][-MOST_FRAMES:]
    line = frames[places[-1]].lineno if places else None
    if isinstance(error, SyntaxError) and error.filename in CODE_NAMES:
        line = error.lineno
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be shown)"
    return {
        "type": type(error).__name__,
        "message": text[:LONGEST_TEXT],
        "traceback": "".join(lines)[:LONGEST_TEXT],
        "line": line,
        "memory": isinstance(error, MemoryError),
    }


def _format_frame(frame: traceback.FrameSummary, code: str) -> str:
    name, text = frame.filename, frame.line
    if name in CODE_NAMES:
        lines = code.splitlines()
        name = "udf.py"
        text = lines[frame.lineno - 1].strip() if frame.lineno and frame.lineno <= len(lines) else ""
    return f'  File "{os.path.basename(name)}", line {frame.lineno}, in {frame.name}\n    {text}\n'


@contextlib.contextmanager
def _collect_logs(link: Link, dispatcher: Dispatcher) -> Any:
    """Send what user code logs while it runs, so that it is not lost when the process is killed."""
    make_collector = getattr(dispatcher, "LogCollector", None)
    if make_collector is None:
        yield
        return
    collector = make_collector()
    collector.entries = SentEntries(link)
    with collector:
        yield


class SentEntries(list[Any]):
    """A list of log entries that sends each one that is appended; only their number is kept."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def append(self, entry: Any) -> None:
        """Send an entry."""
        super().append(None)
        self._link.send({"kind": "log", "entry": entry})
