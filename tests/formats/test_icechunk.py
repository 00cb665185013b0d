"""Icechunk repositories: the format, parts as commits, dates appended to a cube."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import xarray as xr
import zarr

icechunk = pytest.importorskip("icechunk", reason="needs the extra icechunk")

from odc_openeo.errors import FormatUnsuitable, ProcessParameterInvalid, StorageFailure  # noqa: E402
from odc_openeo.formats import Output, describe_formats, write_outputs  # noqa: E402
from odc_openeo.formats.icechunk_appending import CubeAppend  # noqa: E402
from odc_openeo.formats.icechunk_documents import CubesDiffer  # noqa: E402
from odc_openeo.formats.icechunk_parts import (  # noqa: E402
    PartSession,
    complete_repository,
    create_shared_repository,
    is_part_there,
)
from odc_openeo.formats.repositories import CommitConflict, open_repository  # noqa: E402
from tests.formats.cubes import raster, vector  # noqa: E402

SHAPE = (40, 50)
OPTIONS = {"layout": "variables", "chunk_size": 16}


def make_cube(first=0, dates=2, dtype="uint16", factor=1) -> xr.DataArray:
    """Dates of 2022 from one of them on, every five days."""
    cube = raster(dtype, dates, 2, SHAPE)
    cube = cube.assign_coords(t=cube.t.values[:1] + np.arange(first, first + dates) * np.timedelta64(5, "D"))
    return (cube * factor + abs(first)).astype(dtype).assign_attrs(cube.attrs, nodata=7)


def save(cube, folder, **options):
    """The place of a repository of the cube."""
    folder.mkdir(exist_ok=True, parents=True)
    output = Output.from_data(cube.chunk({"y": 16}), "Icechunk", {"chunk_size": 16, **options})
    (asset,) = write_outputs(None, [output], folder)
    return icechunk.local_filesystem_storage(str(asset.path))


def read(place, snapshot=None) -> xr.Dataset:
    """What a user reads, with the package alone."""
    repository = icechunk.Repository.open(place)
    where = {"branch": "main"} if snapshot is None else {"snapshot_id": snapshot}
    store = repository.readonly_session(**where).store
    return xr.open_zarr(store, consolidated=False, mask_and_scale=False, decode_coords="all").load()


def read_pixels(place) -> np.ndarray:
    # Groups list their arrays in any order.
    return read(place).to_dataarray("bands").sortby("bands").transpose("t", "bands", "y", "x").values


def compute_here(*values):
    return tuple(value.compute() for value in values)


def test_a_result_is_one_commit_that_xarray_reads(tmp_path):
    cube = make_cube()
    place = save(cube, tmp_path)
    stored = read(place)
    np.testing.assert_array_equal(read_pixels(place), cube.values)
    for name in ("t", "y", "x"):
        np.testing.assert_array_equal(stored[name], cube[name])
    assert stored.odc.geobox == cube.odc.geobox
    assert list(stored.data_vars.values())[0].encoding["chunks"] == (1, 16, 16)
    commits = list(open_repository(place).ancestry(branch="main"))
    assert len(commits) == 2


def test_formats_list_icechunk_and_refuse_what_it_cannot_hold():
    assert "existing_dates" in describe_formats()["output"]["Icechunk"]["parameters"]
    with pytest.raises(FormatUnsuitable, match="vector cube"):
        Output.from_data(vector(), "Icechunk")
    with pytest.raises(ProcessParameterInvalid, match="no option"):
        Output.from_data(make_cube(), "Icechunk", {"shard_size": 64})


# --- Parts ---------------------------------------------------------------------------------------


def share_repository(folder, cube):
    place = icechunk.local_filesystem_storage(str(folder))
    create_shared_repository(place, cube, OPTIONS, {"y": [0, 16, 32], "x": [0]}, 3)
    return place


def write_part(place, cube, number, factor=1) -> PartSession:
    session = PartSession(place, number)
    pixels = (cube.isel(y=slice(16 * number, 16 * number + 16)) * factor).astype(cube.dtype)
    session.write_pixels(pixels.assign_attrs(cube.attrs).chunk(), OPTIONS, {"y": 16 * number}, compute_here)
    return session


def test_parts_commit_beside_each_other_and_none_twice(tmp_path):
    cube = make_cube()
    place = share_repository(tmp_path / "cube", cube)
    assert (read_pixels(place) == 7).all()
    sessions = [write_part(place, cube, number) for number in (2, 0)]
    lost = write_part(place, cube, 2, factor=3)
    before = read_pixels(place)
    assert (before == 7).all()
    for session in sessions:
        session.commit()
    with pytest.raises(CommitConflict):
        lost.commit()
    assert [is_part_there(place, number) for number in range(3)] == [True, False, True]
    expected = cube.values.copy()
    expected[..., 16:32, :] = 7
    np.testing.assert_array_equal(read_pixels(place), expected)
    late = write_part(place, cube, 1)
    complete_repository(place)
    complete_repository(place)
    with pytest.raises(CommitConflict):
        late.commit()
    np.testing.assert_array_equal(read_pixels(place), expected)
    messages = [commit.message for commit in open_repository(place).ancestry(branch="main")]
    assert messages[:4] == ["The cube is complete", "Part 1", "Part 3", "The cube before its first part"]
    assert (
        list(zarr.open_group(open_repository(place).readonly_session("main").store, mode="r").groups()) == []
    )


# --- Appending -----------------------------------------------------------------------------------


def append(source, target, run="job-1", *, replaces=False) -> str:
    step = CubeAppend(open_repository(source), open_repository(target, may_create=True), run, replaces)
    return step.commit_dates(step.prepare_commit())


@pytest.fixture
def target(tmp_path):
    """A cube with dates 0 and 1, to which the first append has made it."""
    place = icechunk.local_filesystem_storage(str(tmp_path / "target"))
    append(save(make_cube(), tmp_path / "first"), place)
    return place


def test_dates_are_appended_and_replaced(tmp_path, target):
    np.testing.assert_array_equal(read_pixels(target), make_cube().values)
    first = next(iter(open_repository(target).ancestry(branch="main"))).id
    append(save(make_cube(2, 3), tmp_path / "second"), target, "job-2")
    expected = np.concatenate([make_cube().values, make_cube(2, 3).values])
    np.testing.assert_array_equal(read_pixels(target), expected)
    times = read(target).t.values
    assert (np.diff(times) == np.timedelta64(5, "D")).all()
    assert read(target, first).sizes["t"] == 2
    changed = save(make_cube(4, 2, factor=2), tmp_path / "third")
    with pytest.raises(CubesDiffer, match=r"it has 2022-\d\d-\d\dT10:00:00Z already.*REPLACE"):
        append(changed, target, "job-3")
    append(changed, target, "job-3", replaces=True)
    expected = np.concatenate([expected[:4], make_cube(4, 2, factor=2).values])
    np.testing.assert_array_equal(read_pixels(target), expected)
    # The run whose worker was lost after the commit writes the same again.
    append(changed, target, "job-3")
    np.testing.assert_array_equal(read_pixels(target), expected)


def shift(cube, **offsets):
    labels = {name: cube[name].values + offset for name, offset in offsets.items()}
    return cube.assign_coords(labels)


def test_cubes_that_differ_are_refused_with_what_differs(tmp_path, target):
    later = make_cube(2)
    cases = {
        "half a pixel": (shift(later, x=5), r"'x' differs: 600005.0 there is 600010.0|GeoTransform"),
        "other size": (later.isel(x=slice(0, 49)), "50 labels along x there, 49"),
        "type": (make_cube(2, dtype="int16"), '"uint16" there, and "int16"'),
        "no-data": (later.assign_attrs(nodata=0), "no-data|_FillValue"),
        "bands": (later.isel(bands=[0]), "variables and coordinates"),
        "no dates": (later.isel(t=0, drop=True), "no dates"),
        "earlier": (make_cube(-2), "dates before that"),
        "between": (
            later.assign_coords(t=make_cube(0).t.values + np.timedelta64(1, "D")),
            "dates before that",
        ),
        "twice": (later.assign_coords(t=later.t.values[[0, 0]]), "twice"),
    }
    before = read(target)
    for number, (name, (cube, message)) in enumerate(cases.items()):
        with pytest.raises(CubesDiffer, match=message):
            append(save(cube, tmp_path / str(number)), target, name)
    xr.testing.assert_identical(read(target), before)


def test_fractions_of_seconds_keep_their_unit(tmp_path, target):
    half = make_cube(2)
    half = half.assign_coords(t=half.t.values + np.timedelta64(500, "ms"))
    with pytest.raises(CubesDiffer, match="fractions"):
        append(save(half, tmp_path / "half"), target)
    fine = icechunk.local_filesystem_storage(str(tmp_path / "fine"))
    append(save(half, tmp_path / "again"), fine)
    append(save(make_cube(4), tmp_path / "whole"), fine)
    np.testing.assert_array_equal(read(fine).t, [*half.t.values, *make_cube(4).t.values])


def test_a_crash_in_the_middle_and_commits_of_others_change_nothing(tmp_path, target):
    before = read(target)
    source = save(make_cube(2), tmp_path / "second")
    lost = CubeAppend(open_repository(source), open_repository(target), "job-2")
    session = lost.prepare_commit()
    xr.testing.assert_identical(read(target), before)
    append(save(make_cube(2, 1, factor=2), tmp_path / "other"), target, "job-3")
    with pytest.raises(CommitConflict):
        lost.commit_dates(session)
    np.testing.assert_array_equal(read_pixels(target)[2:], make_cube(2, 1, factor=2).values)


LIES = {
    "more dates": ("t", {"shape": [10**12]}, "dates; the limit"),
    "other dates": ("t", {"shape": [3]}, "same dates"),
    "pixels": ("B01", {"shape": [2, 10**9, 50]}, "labels along y"),
    "negative": ("B01", {"shape": [2, -40, 50]}, "labels along y"),
    "rank": ("B01", {"shape": [2, 40]}, "no valid shape"),
    "text": ("B01", {"shape": "2"}, "no valid shape"),
    "chunks": (
        "B01",
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**6, 10**6, 10**6]}}},
        "too large",
    ),
    "no chunks": (
        "x",
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0]}}},
        "no valid",
    ),
    "codec": ("y", {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]}, "encoded"),
    "unit": ("t", {"attributes": {"units": "seconds since 1970-01-01", "calendar": "noleap"}}, "attribute"),
    "group": ("B02", {"node_type": "group"}, "not an array|repository"),
}


def test_metadata_that_lie_are_refused_before_anything_is_read(tmp_path, target):
    source = open_repository(save(make_cube(2), tmp_path / "source"))
    existing = open_repository(target)
    for array, changes, message in LIES.values():
        with pytest.raises(CubesDiffer, match=message):
            CubeAppend(source, _Lying(existing, array, changes), "job-2").prepare_commit()


class _Lying:
    """A repository whose documents were changed: Icechunk itself would not store all of these."""

    def __init__(self, repository, array, changes) -> None:
        self.repository, self.array, self.changes = repository, array, changes

    def writable_session(self, branch):
        return _LyingSession(_LyingStore(self.repository.writable_session(branch).store, self))


class _LyingSession:
    def __init__(self, store) -> None:
        self.store = store


class _LyingStore(zarr.storage.WrapperStore):
    def __init__(self, store, lies) -> None:
        super().__init__(store)
        self.lies = lies

    async def get(self, key, prototype, byte_range=None):
        content = await super().get(key, prototype, byte_range)
        if key == f"{self.lies.array}/zarr.json":
            document = {**json.loads(content.to_bytes()), **self.lies.changes}
            return prototype.buffer.from_bytes(json.dumps(document).encode())
        assert not re.search("/c(/|$)", key), "values were read"
        return content


def test_chunks_elsewhere_are_never_read(tmp_path, target):
    """A repository may say that a chunk is in any file of this machine."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(8 * SHAPE[1]))
    repository = icechunk.Repository.open(target)
    config = repository.config
    container = icechunk.VirtualChunkContainer(
        f"file://{tmp_path}/", icechunk.local_filesystem_store(str(tmp_path))
    )
    config.set_virtual_chunk_container(container)
    changed = icechunk.Repository.open(
        target, config, authorize_virtual_chunk_access={f"file://{tmp_path}/": None}
    )
    changed.save_config()
    session = changed.writable_session("main")
    session.store.set_virtual_ref("x/c/0", f"file://{secret}", offset=0, length=8 * SHAPE[1])
    session.commit("a reference")
    before = repository.lookup_branch("main")
    with pytest.raises(StorageFailure):
        append(save(make_cube(2), tmp_path / "source"), target, "job-2")
    assert repository.lookup_branch("main") == before
