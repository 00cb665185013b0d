"""What runs in the process of user code, here in the process of the test: not sandboxed, but measured."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

from odc_openeo.udf.child import dispatch as child
from odc_openeo.udf.child import main, plain
from odc_openeo.udf.child.messages import Link

TIMES = np.array(["2022-06-01", "2022-06-11", "2022-06-21"], "datetime64[ns]")
VALUES = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
ROOM = 2**16


@pytest.fixture(autouse=True)
def _names_of_earlier_versions() -> Iterator[None]:
    """`openeo_udf` is importable only in the process of user code."""
    from openeo.udf import run_code

    before = run_code._apply_timeseries_xarray
    yield
    run_code._apply_timeseries_xarray = before
    for name in [name for name in sys.modules if name.startswith("openeo_udf")]:
        del sys.modules[name]


def describe_cube() -> tuple[dict[str, Any], list[np.ndarray]]:
    """A cube (t, bands, x) as it is sent: its description and its arrays."""
    description = {
        "kind": "cube",
        "array": 0,
        "dims": ["t", "bands", "x"],
        "types": ["temporal", "bands", "spatial"],
        "coords": {"t": {"array": 1, "times": True}, "bands": {"list": ["B04", "B08"]}, "x": {"array": 2}},
        "extents": {"t": ["2022-06-01", "2022-06-21"], "x": [0.0, 30.0]},
        "attrs": {"units": "1"},
    }
    return description, [VALUES, TIMES.view("int64"), np.arange(0.0, 40.0, 10.0)]


def run(code: str, context: Any = None, call: str = "run") -> tuple[Any, list[np.ndarray]]:
    description, arrays = describe_cube()
    header = {"call": call, "context": context, "proj": {"EPSG": 32632}, "inputs": [description]}
    return child.dispatch(code, header, arrays)


def test_cubes_come_and_go_with_labels() -> None:
    code = """
from openeo.udf import XarrayDataCube
def apply_datacube(cube: XarrayDataCube, context: dict) -> XarrayDataCube:
    array = cube.get_array()
    assert array.attrs == {"units": "1"} and list(array.bands.values) == ["B04", "B08"]
    return XarrayDataCube(array.isel(x=slice(1, 3)) * context["factor"])
"""
    header, arrays = run(code, {"factor": 3})
    (output,) = header["outputs"]
    assert output["dims"] == ["t", "bands", "x"]
    np.testing.assert_array_equal(arrays[output["array"]], VALUES[:, :, 1:3] * 3)
    assert output["coords"]["bands"] == {"list": ["B04", "B08"]}
    times = output["coords"]["t"]
    assert times["times"]
    np.testing.assert_array_equal(arrays[times["array"]], TIMES.view("int64"))
    np.testing.assert_array_equal(arrays[output["coords"]["x"]["array"]], [10.0, 20.0])


def test_names_of_the_predecessor_and_series_with_times() -> None:
    code = """
import pandas as pd
from openeo_udf.api.datacube import DataCube
from openeo_udf.api.base import UdfData
def apply_timeseries(series: pd.Series, context: dict) -> pd.Series:
    assert series.index[1] == pd.Timestamp("2022-06-11")
    return series - series.iloc[0]
"""
    header, arrays = run(code)
    np.testing.assert_array_equal(arrays[header["outputs"][0]["array"]], VALUES - VALUES[:1])
    with pytest.raises(ValueError, match="must return 3 values"):
        run(code.replace("series - series.iloc[0]", "series[:2]"))
    with pytest.raises(ValueError, match="needs a dimension 't'. There are only y, x"):
        child.apply_to_series(xr.DataArray(np.zeros((2, 2)), dims=("y", "x")), lambda series: series)


def test_metadata_tell_the_labels_of_the_result() -> None:
    code = """
from openeo.metadata import CubeMetadata
def apply_metadata(metadata: CubeMetadata, context: dict) -> CubeMetadata:
    return metadata.rename_labels("bands", ["red", "infrared"])
"""
    header, arrays = run(code, call="metadata")
    assert header == {"dimensions": [["t", None], ["bands", ["red", "infrared"]], ["x", None]]}
    assert arrays == []
    assert run("x = 1", call="metadata")[0] == {"dimensions": None}
    for value, reason in (("None", "returned None"), ("7", "returned int. Return the metadata")):
        with pytest.raises(ValueError, match=reason):
            run(f"def apply_metadata(metadata, context):\n    return {value}", call="metadata")
    other = {"dims": ["id"], "types": ["other"], "coords": {}, "extents": {}}
    assert [d.name for d in child.iterate_dimensions(child.make_metadata(other))] == ["id"]


def test_json_and_features_come_and_go() -> None:
    frame = gpd.GeoDataFrame(
        {"name": ["a", None], "count": [1.5, float("nan")]},
        geometry=[shapely.Point(1, 2), shapely.box(0, 0, 3, 3)],
        crs=32632,
    )
    arrays: list[np.ndarray] = []
    sent = child.encode_features(frame, arrays)
    assert json.loads(arrays[sent["properties"]].tobytes()) == {"name": ["a", None], "count": [1.5, None]}
    code = """
from openeo.udf import StructuredData, UdfData
def transform(data: UdfData) -> UdfData:
    (features,) = data.get_feature_collection_list()
    (number,) = data.get_structured_data_list()
    features.data["area"] = features.data.area * number.data
    data.set_structured_data_list([StructuredData({"crs": features.data.crs.to_epsg()})])
"""
    inputs = [sent, {"kind": "json", "value": 2}]
    header, results = child.dispatch(code, {"call": "run", "inputs": inputs}, arrays)
    features, document = header["outputs"]
    back = child.decode_features(features, results).data
    assert list(back["area"]) == [0, 18]
    assert list(back.geometry) == list(frame.geometry)
    assert json.loads(results[document["array"]].tobytes()) == {"crs": 32632}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(1.5), 1.5),
        (np.datetime64("2022-06-01"), "2022-06-01"),
        (np.arange(3), [0, 1, 2]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.DataFrame({"a": [1]}), {"a": {"0": 1}}),
        (object, "<class 'object'>"),
    ],
)
def test_values_become_json(value: Any, expected: Any) -> None:
    arrays: list[np.ndarray] = []
    assert json.loads(arrays[child.append_json(value, arrays)].tobytes()) == expected


def test_values_of_results_must_be_numbers() -> None:
    mixed = xr.DataArray(np.array([1, 2.5], object), dims="x")
    arrays: list[np.ndarray] = []
    child.encode_cube(mixed, arrays)
    np.testing.assert_array_equal(arrays[0], [1, 2.5])
    with pytest.raises(TypeError, match="Return numbers or booleans"):
        child.encode_cube(xr.DataArray(np.array(["a"]), dims="x"), [])


def test_all_that_user_code_says_is_collected() -> None:
    class Cube:
        def get_array(self) -> xr.DataArray:
            return xr.DataArray(np.zeros((2, 3)), dims=("y", "x"))

    with child.LogCollector() as collector:
        print("one\ntwo", end="")
        print("three", file=sys.stderr)
        logging.getLogger("mine").warning("four", extra={"code": "Low", "data": {"cube": Cube()}})
        logging.getLogger(child.SILENT_LOGGERS[0]).warning("never")
        logging.getLogger("mine").error(
            "five", extra={"data": (np.arange(3), np.zeros(500), None, float("nan"))}
        )
        warnings.warn("six", UserWarning, stacklevel=1)
        print("x" * (child.LONGEST_MESSAGE + 5), end="")
    entries = collector.entries
    levels = [entry["level"] for entry in entries]
    assert levels == ["info", "info", "warning", "error", "warning", "info"]
    assert [entry["message"][:18] for entry in entries[:3]] == ["one", "three", "four"]
    assert entries[2]["data"] == {"cube": {"dims": ["y", "x"], "shape": [2, 3], "dtype": "float64"}}
    assert entries[2]["code"] == "Low"
    assert entries[3]["data"] == [[0, 1, 2], {"shape": [500], "dtype": "float64"}, None, "nan"]
    assert entries[4]["message"] == "UserWarning: six"
    assert entries[-1]["message"] == "two".ljust(child.LONGEST_MESSAGE, "x")
    assert sys.stdout.__class__ is not child.LineWriter


def test_too_many_entries_are_counted() -> None:
    with child.LogCollector() as collector:
        for number in range(child.MOST_ENTRIES + 7):
            logging.getLogger("mine").info("%d", number)
    assert len(collector.entries) == child.MOST_ENTRIES + 1
    assert collector.entries[-1]["message"] == "7 more log entries of this call are left out."


def test_values_in_logs_are_shortened() -> None:
    deep: Any = 1
    for _ in range(20):
        deep = [deep]
    assert len(json.dumps(child.summarize_value(deep))) < 200
    assert child.summarize_value(np.float64(2)) == 2
    assert child.summarize_value({1: {2}}) == {"1": [2]}
    assert child.summarize_value(object).startswith("<class")


# --- Calls, one after the other ------------------------------------------------------------------


class Caller:
    """The other end of the socket: places arrays in shared memory and sends calls."""

    def __init__(self, dispatcher: Any) -> None:
        ours, theirs = socket.socketpair()
        self.connection, self.link = ours, Link(ours)
        self.arena = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the caller)
        self.arena.truncate(2 * ROOM)
        self.is_new = True
        self.thread = threading.Thread(target=self.serve, args=[Link(theirs), dispatcher], daemon=True)
        self.thread.start()

    def serve(self, link: Link, dispatcher: Any) -> None:
        with pytest.raises(EOFError):
            main._serve_calls(link, dispatcher)

    def call(self, code: str, *arrays: np.ndarray, room: int = ROOM, header: Any = None) -> dict[str, Any]:
        """Send a call; the reply."""
        descriptions, offset = [], 0
        for array in arrays:
            os.pwrite(self.arena.fileno(), array.tobytes(), offset)
            descriptions.append({"dtype": array.dtype.str, "shape": list(array.shape), "offset": offset})
            offset += array.nbytes
        message = {"code": code, "header": header, "arrays": descriptions, "reserved": ROOM, "room": room}
        if self.is_new:
            content = json.dumps({**message, "size": 2 * ROOM}).encode()
            frame = len(content).to_bytes(4, "big") + content
            socket.send_fds(self.connection, [frame], [self.arena.fileno()])
            self.is_new = False
        else:
            self.link.send(message)
        while True:
            reply, _ = self.link.receive()
            if reply["kind"] == "reply":
                return reply

    def read(self, description: dict[str, Any]) -> np.ndarray:
        """An array of a reply."""
        dtype, shape = np.dtype(description["dtype"]), tuple(description["shape"])
        content = os.pread(self.arena.fileno(), dtype.itemsize * int(np.prod(shape)), description["offset"])
        return np.frombuffer(content, dtype).reshape(shape)


@pytest.fixture
def caller() -> Iterator[Caller]:
    """A caller of plain functions."""
    new_caller = Caller(plain)
    yield new_caller
    new_caller.connection.shutdown(socket.SHUT_RDWR)
    new_caller.thread.join(60)
    assert not new_caller.thread.is_alive()


def test_arrays_are_passed_through_shared_memory(caller: Caller) -> None:
    code = (
        "def call(header, arrays):\n    return {'n': len(arrays)}, [arrays[0] * 2, arrays[1].astype('>i4')]"
    )
    for factor in (1, 2):
        reply = caller.call(code, VALUES * factor, np.arange(5))
        assert reply["header"] == {"n": 2}
        np.testing.assert_array_equal(caller.read(reply["arrays"][0]), VALUES * factor * 2)
        np.testing.assert_array_equal(caller.read(reply["arrays"][1]), np.arange(5))
        assert reply["arrays"][1]["offset"] % main.ALIGNMENT == 0


def test_errors_of_user_code_are_described(caller: Caller) -> None:
    reply = caller.call("def call(header, arrays):\n    x = 0\n    return 1 / x")["error"]
    assert (reply["type"], reply["message"], reply["line"]) == ("ZeroDivisionError", "division by zero", 3)
    assert 'File "udf.py", line 3, in call\n    return 1 / x' in reply["traceback"]
    assert caller.call("def call(:")["error"]["line"] == 1
    odd = "class E(Exception):\n    def __str__(self):\n        raise self\ndef call(h, a):\n    raise E"
    assert caller.call(odd)["error"]["message"] == "(its message cannot be shown)"
    assert caller.call("def call(h, a):\n    raise MemoryError")["error"]["memory"]
    assert "JSON" in caller.call("def call(h, a):\n    return {1, 2}, []")["error"]["message"]
    objects = "import numpy as np\ndef call(h, a):\n    return {}, [np.array([{}])]"
    assert "cannot be returned" in caller.call(objects)["error"]["message"]


def test_results_must_fit(caller: Caller) -> None:
    code = "import numpy as np\ndef call(header, arrays):\n    return {}, [np.zeros(100)]"
    assert caller.call(code, room=100) == {"kind": "reply", "too_large": 832}
    assert "arrays" in caller.call(code, room=832)


def test_logs_are_sent_while_user_code_runs() -> None:
    speaker = Caller(child)
    code = """
from openeo.udf import XarrayDataCube
def apply_datacube(cube: XarrayDataCube, context: dict) -> XarrayDataCube:
    print("started")
    raise KeyError("b")
"""
    description, arrays = describe_cube()
    entries: list[dict[str, Any]] = []
    receive = speaker.link.receive

    def receive_logged() -> Any:
        message, descriptor = receive()
        if message["kind"] == "log":
            entries.append(message["entry"])
        return message, descriptor

    speaker.link.receive = receive_logged  # type: ignore[method-assign]
    reply = speaker.call(code, *arrays, header={"call": "run", "context": {}, "inputs": [description]})
    assert reply["error"]["type"] == "KeyError"
    assert {"level": "info", "message": "started"} in entries
    speaker.connection.shutdown(socket.SHUT_RDWR)
    speaker.thread.join(60)
