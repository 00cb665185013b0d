"""User code of services and synchronous requests has its archives."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
from flask.testing import FlaskClient

from tests.api.conftest import API
from tests.services.conftest import DATA, graph, load, node, path_of
from tests.services.test_tiles import HERE, ZOOM, grey, picture
from tests.support.sandbox import needs_sandbox

ARCHIVES = {"udf-dependency-archives": ["udf/number.zip#deps"]}
PIXELS = """
import xarray

def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    with open("deps/number.txt") as file:
        return xarray.full_like(cube, int(file.read()))
"""
NUMBER = """
from openeo.udf import StructuredData, UdfData

def apply_udf_data(data: UdfData):
    with open("deps/number.txt") as file:
        data.set_structured_data_list([StructuredData(int(file.read()))])
"""


def upload_archive(client: FlaskClient, bearer: dict[str, str]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("number.txt", "200")
    answer = client.put(f"{API}/files/udf/number.zip", data=packed.getvalue(), headers=bearer)
    assert answer.status_code == 200


@needs_sandbox
def test_archives_of_services_and_requests(two: Any, client: FlaskClient, bearer: dict[str, str]) -> None:
    upload_archive(client, bearer)
    udf = {
        "process_id": "run_udf",
        "arguments": {"data": {"from_parameter": "x"}, "udf": PIXELS, "runtime": "Python"},
    }
    process = graph(
        load=load(bands=["B04"]),
        max=node(
            "reduce_dimension",
            dimension="t",
            reducer={"process_graph": graph(m={"process_id": "max", "arguments": {"data": DATA}})},
        ),
        code=node("apply", "max", process={"process_graph": graph(udf=udf)}),
        save=node("save_result", "code", format="PNG"),
    )
    body = {"type": "XYZ", "process": {"process_graph": process}, "job_options": ARCHIVES}
    answer = client.post(f"{API}/services", json=body, headers=bearer)
    assert answer.status_code == 201, answer.get_json()
    service = client.get(f"{API}/services/{answer.headers['OpenEO-Identifier']}", headers=bearer).get_json()
    assert service["job_options"] == ARCHIVES
    pixels = grey(picture(client, f"{path_of(service['url'])}/{ZOOM}/{HERE[0]}/{HERE[1]}.png"))
    assert set(np.unique(pixels[np.isfinite(pixels)])) == {200}

    arguments = {"data": 0, "udf": NUMBER, "runtime": "Python"}
    number = {"process_graph": {"it": {"process_id": "run_udf", "arguments": arguments, "result": True}}}
    body = {"process": number, "job_options": ARCHIVES}
    assert client.post(f"{API}/result", json=body, headers=bearer).get_json() == 200
    for options, code in ((None, "UdfFailed"), ({"udf-dependency-archives": ["no.zip"]}, "FileNotFound")):
        answer = client.post(
            f"{API}/result", json={"process": number, "job_options": options}, headers=bearer
        )
        assert (answer.status_code, answer.get_json()["code"]) == (400 if code == "UdfFailed" else 404, code)
    body = {"process": number, "job_options": {"udf-dependency-archives": "no list"}}
    assert client.post(f"{API}/result", json=body, headers=bearer).get_json()["code"] == "RequestInvalid"
