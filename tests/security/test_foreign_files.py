"""The first wall: files and names of users lead to nothing but themselves, by whatever way they come in.

`test_first_wall.py` runs all of it once more where GDAL has all its drivers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

import dask
import h5py
import numpy as np
import pytest
import rasterio
import xarray as xr
from flask.testing import FlaskClient
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from werkzeug.test import TestResponse

from odc_openeo import db, jobs
from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.errors import FileContentInvalid, OpenEOError
from odc_openeo.formats.model import Asset
from odc_openeo.formats.read import get_input_format
from odc_openeo.formats.thumbnail import write_thumbnail
from odc_openeo.jobs import JobDraft
from odc_openeo.untrusted.rasters import LocalFolder, RasterRefusedError, open_foreign_raster, open_overview
from odc_openeo.untrusted.safe_http import Policy, RemoteFiles
from odc_openeo.user_data import workspaces
from odc_openeo.user_data.workspaces.store import get_storage
from odc_openeo.users import accounts
from odc_openeo.worker import run_worker
from tests.api.conftest import API, PASSWORD
from tests.conftest import CopyDatabase, Site, SiteHandler
from tests.runners import tasks
from tests.support.index_drivers import index_environment

SIDE = 16
SECRET = 137
GRID = {"crs": "EPSG:32632", "transform": from_origin(680_000, 5_152_000, 10, 10)}
PROFILE = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 1, "dtype": "uint8", **GRID}
ALL_DRIVERS: Final = "ODC_OPENEO_GDAL_DRIVERS"
"""Variable that names the drivers of GDAL."""
CODES = {
    "FileContentInvalid",
    "FileNotFound",
    "FileOperationUnsupported",
    "FilePathInvalid",
    "FeatureUnsupported",
    "NoDataAvailable",
    "ProcessParameterInvalid",
    "UrlForbidden",
    "UrlUnreachable",
    "FormatUnsuitable",
}

Graph = dict[str, Any]


def tiff(value: int = 1, **metadata: str) -> bytes:
    """A sound GeoTIFF, with metadata in the domain of overviews."""
    with MemoryFile() as memory:
        with memory.open(**PROFILE) as file:
            file.write(np.full((1, SIDE, SIDE), value, "uint8"))
            if metadata:
                file.update_tags(ns="OVERVIEWS", **metadata)
        return bytes(memory.read())


@dataclass(frozen=True)
class Victim:
    """What must not be read: a raster of another user, and a text of the operator's."""

    raster: Path
    text: Path


@dataclass(frozen=True)
class Attacker:
    """A signed-in user with the service at hand, and a web server of their own."""

    client: FlaskClient
    config: Config
    site: Site
    workspace: str
    user: Any
    victim: Victim

    def result(self, graph: Graph) -> TestResponse:
        """What a synchronous request answers."""
        return self.client.post(f"{API}/result", json={"process": {"process_graph": graph}})

    def upload(self, name: str, content: bytes) -> None:
        """Put a file into the user's own folder."""
        assert self.client.put(f"{API}/files/{name}", data=io.BytesIO(content)).status_code == 200

    def export(self, name: str, content: bytes) -> None:
        """Put a file into the user's workspace, as an export does."""
        workspace = workspaces.get_workspace(self.config, self.user, self.workspace)
        get_storage(self.config, workspace).write(f"{workspace.folder}/{name}", io.BytesIO(content))

    @property
    def workspace_url(self) -> str:
        """Where the files of the workspace are."""
        return f"{self.config.root_url}{API}/workspaces/{self.workspace}/files"


@pytest.fixture(scope="module")
def attacker(
    copy_database: CopyDatabase, _templates: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacker]:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "site").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SiteHandler, directory=folder / "site")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = Site(f"http://127.0.0.1:{server.server_port}", folder / "site")
        with copy_database(_templates["odc"]) as url:
            # The public address is not allowed: the service's own documents are behind the guard.
            config = Config(database_url=url, data_dir=folder / "data", outgoing_allow="127.0.0.1")
            with pytest.MonkeyPatch.context() as patch:
                for name, value in index_environment(url).items():
                    patch.setenv(name, value)
                yield make_attacker(config, site)
            db.dispose_engine(config)
        server.shutdown()


def make_attacker(config: Config, site: Site) -> Attacker:
    mallory = accounts.create_user(config, "mallory", PASSWORD)
    other = accounts.create_user(config, "ada", PASSWORD)
    client = create_app(config).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {accounts.issue_token(config, mallory)}"
    answer = client.post(f"{API}/workspaces", json={"intent": "create", "title": "mine"})
    raster = config.data_dir / "storage" / "files" / str(other.id) / "secret.tif"
    raster.parent.mkdir(parents=True)
    raster.write_bytes(tiff(SECRET))
    text = config.data_dir / "secret_key"
    text.write_bytes(b"k" * SIDE * SIDE)
    victim = Victim(raster, text)
    return Attacker(client, config, site, answer.headers["OpenEO-Identifier"], mallory.id, victim)


# --- Documents -------------------------------------------------------------------------------------


def vrt(victim: Victim) -> bytes:
    source = f"<SimpleSource><SourceFilename>{victim.raster}</SourceFilename></SimpleSource>"
    return _vrt(f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>')


def raw_vrt(victim: Victim) -> bytes:
    raw = f"<SourceFilename>{victim.text}</SourceFilename><PixelOffset>1</PixelOffset>"
    raw += f"<LineOffset>{SIDE}</LineOffset>"
    return _vrt(f'<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">{raw}</VRTRasterBand>')


def _vrt(band: str) -> bytes:
    size = f'rasterXSize="{SIDE}" rasterYSize="{SIDE}"'
    grid = "<SRS>EPSG:32632</SRS><GeoTransform>680000, 10, 0, 5152000, 0, -10</GeoTransform>"
    return f"<VRTDataset {size}>{grid}{band}</VRTDataset>".encode()


def remote_vrt(victim: Victim) -> bytes:
    address = "/vsicurl/http://127.0.0.1:1/openeo/1.3/me"
    return raw_vrt(Victim(victim.raster, Path(address)))


def overviews(make: Callable[[Victim], bytes], victim: Victim) -> bytes:
    return tiff(OVERVIEW_FILE=make(victim).decode())


CONTENTS: dict[str, Callable[[Victim], bytes]] = {
    "VRT": vrt,
    "raw VRT": raw_vrt,
    "VRT of an address": remote_vrt,
    "JPEG 2000 signature, then VRT": lambda v: b"\0\0\0\x0cjP  \r\n\x87\n" + vrt(v),
    "codestream signature, then VRT": lambda v: b"\xff\x4f\xff\x51" + raw_vrt(v),
    "TIFF signature, then VRT": lambda v: b"II*\0" + vrt(v),
    "BigTIFF signature, then VRT": lambda v: b"II+\0" + raw_vrt(v),
    "overviews of a VRT document": partial(overviews, raw_vrt),
    "overviews of another file": lambda v: tiff(OVERVIEW_FILE=str(v.raster)),
    "overviews relative to the file": lambda v: tiff(OVERVIEW_FILE=":::BASE:::.ovr"),
    "overviews of an address": lambda v: tiff(OVERVIEW_FILE="/vsicurl/http://127.0.0.1:1/x.tif"),
    "tile index": lambda v: (
        b"<GDALTileIndexDataset><IndexDataset>/x.gpkg</IndexDataset></GDALTileIndexDataset>"
    ),
    "map service": lambda v: (
        b'<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:1/</ServerUrl></Service></GDAL_WMS>'
    ),
    "MRF": lambda v: f"<MRF_META><Raster><DataFile>{v.raster}</DataFile></Raster></MRF_META>".encode(),
}


def node(process_id: str, **arguments: Any) -> Graph:
    return {"n": {"process_id": process_id, "arguments": arguments, "result": True}}


def item(href: str, id_: str = "i") -> bytes:
    asset = {"href": href, "type": "image/tiff; application=geotiff", "roles": ["data"]}
    properties = {"datetime": "2024-03-05T10:00:00Z"}
    document = {"type": "Feature", "stac_version": "1.0.0", "id": id_, "geometry": None, "links": []}
    return json.dumps({**document, "properties": properties, "assets": {"v": asset}}).encode()


def by_upload(attacker: Attacker, content: bytes) -> Graph:
    attacker.upload("attack.tif", content)
    return node("load_uploaded_files", paths=["attack.tif"], format="GTiff")


def by_url(attacker: Attacker, content: bytes) -> Graph:
    (attacker.site.folder / "attack.tif").write_bytes(content)
    return node("load_url", url=f"{attacker.site.root}/attack.tif", format="GTiff")


def by_remote_item(attacker: Attacker, content: bytes) -> Graph:
    (attacker.site.folder / "attack.tif").write_bytes(content)
    (attacker.site.folder / "item.json").write_bytes(item("./attack.tif"))
    return node("load_stac", url=f"{attacker.site.root}/item.json")


def by_workspace_item(attacker: Attacker, content: bytes) -> Graph:
    attacker.export("attack.tif", content)
    attacker.export("item.json", item("./attack.tif"))
    return node("load_stac", url=f"{attacker.workspace_url}/item.json")


ENTRANCES = {
    "upload": by_upload,
    "load_url": by_url,
    "remote Item": by_remote_item,
    "workspace": by_workspace_item,
}


def check_refused(response: TestResponse, attacker: Attacker) -> None:
    assert 400 <= response.status_code < 500 or response.status_code == 501, response.text[:500]
    body = response.get_json()
    assert body["code"] in CODES, body
    # Nothing of this machine in the message.
    assert str(attacker.config.data_dir) not in body["message"]
    assert "/proc" not in body["message"]


@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES.keys())
def test_a_sound_file_is_read(attacker: Attacker, enter: Callable[..., Graph]) -> None:
    response = attacker.result(enter(attacker, tiff(7)))
    assert response.status_code == 200, response.text
    with MemoryFile(response.data) as memory, memory.open() as file:
        assert (file.read() == 7).all()


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES.keys())
def test_contents_that_refer_to_files(
    attacker: Attacker, enter: Callable[..., Graph], content: Callable[[Victim], bytes]
) -> None:
    graph = enter(attacker, content(attacker.victim))
    check_refused(attacker.result(graph), attacker)


# --- Names -----------------------------------------------------------------------------------------

NAMES: dict[str, Callable[[Victim], str]] = {
    "VRT": lambda v: quote(vrt(v).decode(), safe=""),
    "raw VRT": lambda v: quote(raw_vrt(v).decode(), safe=""),
    "raw VRT, slashes kept": lambda v: quote(raw_vrt(v).decode(), safe="/"),
    "absolute path": lambda v: str(v.raster),
    "file URL": lambda v: v.raster.as_uri(),
    "dots": lambda v: "../" * 12 + str(v.raster).lstrip("/"),
    "encoded dots": lambda v: (
        quote("../" * 12, safe="").replace(".", "%2e") + quote(str(v.raster)[1:], safe="")
    ),
    "encoded absolute path": lambda v: quote(str(v.raster), safe=""),
    "vsicurl": lambda v: quote("/vsicurl/http://127.0.0.1:1/x.tif", safe=""),
    "vsimem": lambda v: "/vsimem/x.tif",
    "vsisubfile": lambda v: quote(f"/vsisubfile/0_100,{v.raster}", safe=""),
    "vsizip": lambda v: quote(f"/vsizip/{v.raster}/x", safe=""),
    "vsistdin": lambda v: quote("/vsistdin/", safe=""),
    "netCDF": lambda v: quote(f'NETCDF:"{v.raster}":v', safe=""),
    "directory of a TIFF": lambda v: quote(f"GTIFF_DIR:1:{v.raster}", safe=""),
    "raw TIFF": lambda v: quote(f"GTIFF_RAW:{v.raster}", safe=""),
    "derived": lambda v: quote(f"DERIVED_SUBDATASET:AMPLITUDE:{v.raster}", safe=""),
    "vrt://": lambda v: f"vrt://{v.raster}?bands=1",
    "proc": lambda v: "/proc/self/environ",
    "descriptor": lambda v: "/proc/self/fd/3",
    "NUL": lambda v: "a%00.tif",
    "empty": lambda v: "",
    "a folder": lambda v: ".",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("where", ["site", "workspace"])
def test_names_that_traverse_paths(attacker: Attacker, where: str, name: Callable[[Victim], str]) -> None:
    href = name(attacker.victim)
    if where == "site":
        (attacker.site.folder / "item.json").write_bytes(item(href))
        url = f"{attacker.site.root}/item.json"
    else:
        attacker.export("item.json", item(href))
        url = f"{attacker.workspace_url}/item.json"
    check_refused(attacker.result(node("load_stac", url=url)), attacker)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("format_", ["GTiff", "netCDF", "GeoJSON", "Parquet", "CSV"])
def test_names_of_uploads(attacker: Attacker, format_: str, name: Callable[[Victim], str]) -> None:
    path = name(attacker.victim).replace("%00", "\0")
    response = attacker.result(node("load_uploaded_files", paths=[path], format=format_))
    assert 400 <= response.status_code < 500, response.text


# --- Links -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "link in the path", "pipe", "folder", "device"])
@pytest.mark.parametrize("where", ["workspace", "files"])
def test_special_files_are_refused(attacker: Attacker, where: str, kind: str) -> None:
    """Nobody but an operator could put such things there; they are not followed even so."""
    storage = attacker.config.data_dir / "storage"
    workspace = workspaces.get_workspace(attacker.config, attacker.user, attacker.workspace)
    folder = storage / (workspace.folder if where == "workspace" else f"files/{attacker.user}")
    top = folder / f"odd-{kind.replace(' ', '-')}"
    top.mkdir(parents=True)
    place, name = top / "x.tif", f"{top.name}/x.tif"
    if kind == "link":
        place.symlink_to(attacker.victim.raster)
    elif kind == "link in the path":
        top.rmdir()
        top.symlink_to(attacker.victim.raster.parent)
        name = f"{top.name}/secret.tif"
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero")
    if where == "files":
        graph = node("load_uploaded_files", paths=[name], format="GTiff")
    else:
        attacker.export("item.json", item(f"./{name}"))
        graph = node("load_stac", url=f"{attacker.workspace_url}/item.json")
    check_refused(attacker.result(graph), attacker)


def test_a_file_that_is_replaced_while_it_is_open(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.tif").write_bytes(tiff(1))
    (tmp_path / "secret.tif").write_bytes(tiff(SECRET))
    place = LocalFolder(tmp_path / "own")
    with place.expose(str(tmp_path / "own" / "a.tif")) as name:
        (tmp_path / "own" / "a.tif").unlink()
        (tmp_path / "own" / "a.tif").symlink_to(tmp_path / "secret.tif")
        with rasterio.open(name) as file:
            assert (file.read() == 1).all()
    with pytest.raises(RasterRefusedError), open_foreign_raster(str(tmp_path / "own" / "a.tif"), place):
        pass


@pytest.mark.parametrize("sidecar", ["a.tif.ovr", "a.tif.msk", "a.tif.aux.xml", "a.tfw", "a.tif.vrt"])
def test_files_beside_a_raster_are_not_looked_at(attacker: Attacker, sidecar: str) -> None:
    attacker.upload(sidecar, vrt(attacker.victim))
    attacker.upload("a.tif", tiff(7))
    response = attacker.result(node("load_uploaded_files", paths=["a.tif"], format="GTiff"))
    assert response.status_code == 200
    with MemoryFile(response.data) as memory, memory.open() as file:
        assert (file.read() == 7).all()
        assert (file.dataset_mask() == 255).all()


# --- netCDF ----------------------------------------------------------------------------------------


def netcdf(path: Path, victim: Path, kind: str) -> bytes:
    with h5py.File(victim, "w") as file:
        file["v"] = np.full((2, 2), SECRET, "u1")
    with h5py.File(path, "w") as file:
        for name, standard in (("x", "projection_x_coordinate"), ("y", "projection_y_coordinate")):
            axis = file.create_dataset(name, data=np.array([1.0, 0.0] if name == "y" else [0.0, 1.0]))
            axis.make_scale(name)
            axis.attrs["standard_name"] = standard
        match kind:
            case "external link":
                file["v"] = h5py.ExternalLink(str(victim), "/v")
            case "external link in a group":
                file.create_group("g")["v"] = h5py.ExternalLink(str(victim), "/v")
                file["v"] = h5py.SoftLink("/g/v")
            case "external link as coordinate":
                del file["x"]
                file["x"] = h5py.ExternalLink(str(victim), "/v")
                file["v"] = np.ones((2, 2), "u1")
            case "external storage":
                file.create_dataset("v", (2, 2), "u1", external=[(str(victim), 0, h5py.h5f.UNLIMITED)])
            case "virtual dataset":
                layout = h5py.VirtualLayout((2, 2), "u1")
                layout[:] = h5py.VirtualSource(str(victim), "v", (2, 2))
                file.create_virtual_dataset("v", layout)
            case "loop of links":
                file["v"] = h5py.SoftLink("/w")
                file["w"] = h5py.SoftLink("/v")
            case "group in itself":
                group = file.create_group("g")
                group["again"] = group
                file["v"] = h5py.ExternalLink(str(victim), "/v")
        if "v" in file and isinstance(file.get("v", getlink=True), h5py.HardLink):
            file["v"].dims[0].attach_scale(file["y"])
    return path.read_bytes()


KINDS = [
    "external link",
    "external link in a group",
    "external link as coordinate",
    "external storage",
    "virtual dataset",
    "loop of links",
    "group in itself",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("enter", ["upload", "load_url"])
def test_netcdf_that_refers_to_files(attacker: Attacker, tmp_path: Path, enter: str, kind: str) -> None:
    content = netcdf(tmp_path / "a.nc", tmp_path / "secret.h5", kind)
    if enter == "upload":
        attacker.upload("a.nc", content)
        graph = node("load_uploaded_files", paths=["a.nc"], format="netCDF")
    else:
        (attacker.site.folder / "a.nc").write_bytes(content)
        graph = node("load_url", url=f"{attacker.site.root}/a.nc", format="netCDF")
    check_refused(attacker.result(graph), attacker)


@pytest.mark.parametrize("kind", ["external storage", "external link", "virtual dataset"])
def test_netcdf_that_is_replaced_before_it_is_computed(tmp_path: Path, kind: str) -> None:
    """Also where another process computes it, as dask workers do."""
    y, x = np.arange(2.0)[::-1], np.arange(2.0)
    sound = xr.Dataset({"v": (("y", "x"), np.ones((2, 2), "u1"))}, coords={"y": y, "x": x})
    sound["crs"] = xr.DataArray(0, attrs={"crs_wkt": "EPSG:32632"})
    sound["v"].attrs["grid_mapping"] = "crs"
    sound.to_netcdf(tmp_path / "a.nc")
    lazy = pickle.dumps(get_input_format("netCDF").read([tmp_path / "a.nc"]))
    netcdf(tmp_path / "b.nc", tmp_path / "secret.h5", kind)
    (tmp_path / "b.nc").replace(tmp_path / "a.nc")
    cube = pickle.loads(lazy)
    with pytest.raises(FileContentInvalid, match=r"a\.nc"):
        dask.compute(cube, scheduler="synchronous")


class _ChangingSite(SiteHandler):
    """Serves a sound file first, and one that refers to an address with the second opening."""

    requested: ClassVar[list[str]] = []
    contents: ClassVar[list[bytes]] = []

    def do_GET(self) -> None:  # noqa: N802
        self.requested.append(self.path)
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is None or "attack" not in self.path:
            self.send_error(404)
            return
        start = int(match[1])
        content = (
            self.contents[min(self.requested.count(self.path) - 1, 1)] if start == 0 else self.contents[1]
        )
        part = content[start : int(match[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def do_HEAD(self) -> None:  # noqa: N802
        self.requested.append(f"HEAD {self.path}")
        self.send_error(404)


def test_remote_files_that_change_lead_to_no_address(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_ChangingSite, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        # Another name of this machine stands for one that the guard forbids.
        target = f"/vsicurl/http://localhost:{server.server_port}/admin.tif"
        _ChangingSite.contents[:] = [tiff(1), tiff(1, OVERVIEW_FILE=target)]
        place = RemoteFiles(Policy(allow=("127.0.0.1",)))
        for _ in range(3):
            with (
                contextlib.suppress(RasterRefusedError, OpenEOError),
                open_overview(f"{root}/attack.tif", place, lambda raster: 0) as (_, overview),
            ):
                overview.read()
        server.shutdown()
    assert _ChangingSite.requested
    assert not [path for path in _ChangingSite.requested if "admin" in path]


def test_blocks_that_take_all_memory(tmp_path: Path) -> None:
    """A few hundred bytes that declare one block of a billion pixels."""
    path = tmp_path / "bomb.tif"
    huge = {**PROFILE, "width": 40_000, "height": 40_000}
    tiles = {"tiled": True, "blockxsize": 40_000, "blockysize": 40_000, "compress": "deflate"}
    with rasterio.open(path, "w", **huge, **tiles, SPARSE_OK=True):
        pass
    assert path.stat().st_size < 10_000
    place = LocalFolder(tmp_path)
    with pytest.raises(RasterRefusedError, match="40000"), open_foreign_raster(str(path), place):
        pass


# --- Tiles, batch jobs, thumbnails -----------------------------------------------------------------

SOME = ["VRT", "overviews of a VRT document", "overviews of another file", "JPEG 2000 signature, then VRT"]


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES.keys())
def test_map_tiles(attacker: Attacker, enter: Callable[..., Graph], kind: str) -> None:
    graph = enter(attacker, CONTENTS[kind](attacker.victim))
    body = {"type": "XYZ", "process": {"process_graph": graph}, "configuration": {"range": [0, 255]}}
    id_ = attacker.client.post(f"{API}/services", json=body).headers["OpenEO-Identifier"]
    url = attacker.client.get(f"{API}/services/{id_}").get_json()["url"]
    path = url.removeprefix(attacker.config.root_url).removeprefix("http://localhost").partition("/{z}")[0]
    for level, column, row in ((8, 136, 90), (3, 4, 2)):
        check_refused(attacker.client.get(f"{path}/{level}/{column}/{row}.png"), attacker)


@pytest.mark.parametrize("kind", ["raw VRT", "overviews of a VRT document"])
def test_batch_jobs(attacker: Attacker, kind: str) -> None:
    graph = by_upload(attacker, CONTENTS[kind](attacker.victim))
    id_ = str(jobs.create_job(attacker.config, attacker.user, JobDraft({"process_graph": graph})))
    jobs.start_job(attacker.config, attacker.user, id_)
    stop = threading.Event()
    worker = threading.Thread(target=run_worker, args=(attacker.config, stop))
    worker.start()
    deadline = time.monotonic() + 120
    while (job := jobs.get_job(attacker.config, attacker.user, id_)).status not in ("error", "finished"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()
    worker.join()
    (error,) = jobs.list_logs(attacker.config, job, "error").items
    assert (job.status, error.more["code"]) == ("error", "FileContentInvalid")
    assert str(attacker.config.data_dir) not in error.message


@pytest.mark.parametrize("kind", CONTENTS)
def test_thumbnails(attacker: Attacker, tmp_path: Path, kind: str) -> None:
    (tmp_path / "result.tif").write_bytes(CONTENTS[kind](attacker.victim))
    media_type = "image/tiff; application=geotiff; profile=cloud-optimized"
    with pytest.raises(RasterRefusedError):
        write_thumbnail([Asset(tmp_path / "result.tif", media_type, "result")], tmp_path)


def test_gdal_is_as_this_run_wants_it(attacker: Attacker) -> None:
    """Open in runners in the run of the first wall alone, closed in the other."""
    backend = attacker.client.application.extensions["odc_openeo"]
    drivers = backend.result_runners.run(tasks.list_gdal_drivers, user="ada", seconds=120)
    assert ("WMS" in drivers) is ("WMS" in os.environ.get(ALL_DRIVERS, ""))
