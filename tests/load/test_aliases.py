"""Collections and bands by the operator's aliases, as graphs made for other back-ends name them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import odc_openeo.processes  # noqa: F401  (registers the processes)
from odc_openeo import cube
from odc_openeo.catalog import Catalog, ItemQuery, OverridesError, read_overrides
from odc_openeo.catalog.bands import Band, map_aliases, resolve_bands
from odc_openeo.config import Config
from odc_openeo.errors import CollectionNotFound, LabelNotAvailable, ProcessParameterInvalid
from odc_openeo.formats import Output, write_outputs
from odc_openeo.graph import evaluate
from odc_openeo.load import driver
from odc_openeo.registry.environment import Environment
from odc_openeo.stack import doctor
from tests.catalog.scenes import Index, product, scene
from tests.load.test_load_collection import BOX
from tests.support.graphs import child

BASE = "https://example.org/openeo/1.2"
OVERRIDES = """
tiny_s2:
  aliases: [SENTINEL2_L2A, sentinel-2-l2a]
  bands:
    B04: {aliases: [B04_10m, TOC-B04_10M, "reflectance|b04"]}
    B08: {aliases: [B08_10m]}
"""


@pytest.fixture
def overrides(tmp_path: Path) -> Path:
    """The operator's file, written anew by tests."""
    file = tmp_path / "overrides.yaml"
    file.write_text(OVERRIDES)
    return file


@pytest.fixture
def catalog(odc_config: Config, index: Index, overrides: Path, tmp_path: Path) -> Iterator[Catalog]:
    """A catalogue with the aliases and one scene."""
    index.add(scene(tmp_path / "a", 1, "2022-06-01T10:00:00Z"))
    aliased = Catalog(odc_config.model_copy(update={"collection_overrides": overrides}))
    yield aliased
    aliased.close()


def rewrite(file: Path, text: str, time: int) -> None:
    file.write_text(text)
    os.utime(file, ns=(time, time))


def node(process_id: str, origin: str = "load", **arguments: Any) -> dict[str, Any]:
    return {"process_id": process_id, "arguments": {"data": {"from_node": origin}, **arguments}}


def load_node(**arguments: Any) -> dict[str, Any]:
    extents = {"spatial_extent": BOX, "temporal_extent": None}
    return {"process_id": "load_collection", "arguments": {"id": "SENTINEL2_L2A", **extents, **arguments}}


def run(catalog: Catalog, load: dict[str, Any] | None = None, **nodes: dict[str, Any]) -> xr.DataArray:
    """Evaluate a graph whose last node is the result."""
    graph = {"load": load or load_node(), **nodes}
    last = list(graph)[-1]
    graph[last] = {**graph[last], "result": True}
    result: xr.DataArray = evaluate({"process_graph": graph}, Environment(catalog))
    return result


def pixels(tmp_path: Path, band: str) -> np.ndarray:
    """The pixels of a band in the box, straight from the file."""
    with rasterio.open(tmp_path / "a" / f"{band}.tif") as file:
        edges = (BOX["west"], BOX["south"], BOX["east"], BOX["north"])
        return file.read(1, window=rasterio.windows.from_bounds(*edges, file.transform))


BAND = "reduce_dimension"
DATA = {"from_parameter": "data"}


def element(label: str) -> dict[str, Any]:
    return child("array_element", data=DATA, label=label)


def test_bands_have_the_labels_that_they_are_asked_for(catalog: Catalog, tmp_path: Path) -> None:
    names = ["B08_10m", "reflectance|b04", "B04", "TOC-B04_10M", "SCL"]
    data = run(catalog, load_node(bands=names))
    assert data.bands.values.tolist() == names
    for i, band in enumerate(["B08", "B04", "B04", "B04"]):
        np.testing.assert_array_equal(data[0, i].values, pixels(tmp_path, band))
    assert data.coords["common_name"].values.tolist() == ["nir", "red", "red", "red", ""]


@pytest.mark.parametrize("loaded", [["B04_10m"], ["B04"], ["red"], ["B08", "TOC-B04_10M"], None])
@pytest.mark.parametrize("label", ["B04_10m", "B04", "red"])
def test_elements_by_any_name(catalog: Catalog, tmp_path: Path, loaded: list[str] | None, label: str) -> None:
    reduce = node("reduce_dimension", dimension="bands", reducer=element(label))
    data = run(catalog, load_node(bands=loaded), end=reduce)
    np.testing.assert_array_equal(data[0].values, pixels(tmp_path, "B04"))


@pytest.mark.parametrize("names", [["B04_10m"], ["TOC-B04_10M", "B04_10m"], ["SCL", "B04", "B08_10m"]])
@pytest.mark.parametrize("loaded", [["B08", "B04_10m", "SCL"], ["B08_10m", "B04", "SCL"], None])
def test_filtered_bands_have_the_labels_that_they_are_asked_for(
    catalog: Catalog, tmp_path: Path, names: list[str], loaded: list[str] | None
) -> None:
    filtered = run(catalog, load_node(bands=loaded), end=node("filter_bands", bands=names))
    assert filtered.bands.values.tolist() == names
    for i, name in enumerate(names):
        if name != "SCL":
            band = "B04" if "B04" in name else "B08"
            np.testing.assert_array_equal(filtered[0, i].values, pixels(tmp_path, band))
    twice = node("filter_bands", "first", bands=["B04"])
    again = run(catalog, load_node(bands=loaded), first=node("filter_bands", bands=names), end=twice)
    assert again.bands.values.tolist() == ["B04"]


def test_labels_of_aliases_can_be_renamed(catalog: Catalog, tmp_path: Path) -> None:
    rename = node("rename_labels", dimension="bands", source=["B04_10m", "B08"], target=["r", "n"])
    data = run(catalog, load_node(bands=["B04", "B08_10m"]), end=rename)
    assert data.bands.values.tolist() == ["r", "n"]
    again = node("rename_labels", "a", dimension="bands", source=["B04_10m"], target=["x"])
    with pytest.raises(LabelNotAvailable):
        run(catalog, load_node(bands=["B04", "B08_10m"]), a=rename, end=again)
    both = node("rename_labels", dimension="bands", source=["B04_10m", "B04"], target=["r", "n"])
    with pytest.raises(ProcessParameterInvalid, match="names of the same band"):
        run(catalog, load_node(bands=["B04", "B08_10m"]), end=both)


def test_labels_of_aliases_can_be_filtered(catalog: Catalog) -> None:
    condition = child("text_begins", data={"from_parameter": "value"}, pattern="B04_")
    keep = node("filter_labels", dimension="bands", condition=condition)
    data = run(catalog, load_node(bands=["B08", "B04_10m", "TOC-B04_10M"]), end=keep)
    assert data.bands.values.tolist() == ["B04_10m"]


def test_an_index_of_aliases(catalog: Catalog, tmp_path: Path) -> None:
    index_node = node("ndvi", nir="B08_10m", red="TOC-B04_10M")
    nir, red = (pixels(tmp_path, band).astype(float) for band in ("B08", "B04"))
    for loaded in (["B04_10m", "B08_10m"], None):
        data = run(catalog, load_node(bands=loaded), end=index_node)
        np.testing.assert_allclose(data[0].values, (nir - red) / (nir + red), rtol=1e-6)


def test_aliases_survive_other_processes(catalog: Catalog, tmp_path: Path) -> None:
    x = {"from_parameter": "x"}
    nodes = {
        "scaled": node("apply", process=child("multiply", x=x, y=2)),
        "mean": node("reduce_dimension", "scaled", dimension="t", reducer=child("mean", data=DATA)),
        "end": node("reduce_dimension", "mean", dimension="bands", reducer=element("B04_10m")),
    }
    data = run(catalog, load_node(bands=["B08", "B04"]), **nodes)
    np.testing.assert_array_equal(data.values, 2 * pixels(tmp_path, "B04"))


def test_only_the_files_of_the_band_are_read(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    original = driver.RasterReader.read

    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(self._place["name"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(driver.RasterReader, "read", read)
    reduce = node("reduce_dimension", dimension="bands", reducer=element("TOC-B04_10M"))
    for nodes in ({"end": reduce}, {"end": node("filter_bands", bands=["B04_10m"])}):
        opened.clear()
        with dask.config.set(scheduler="synchronous"):
            run(catalog, **nodes).compute()
        assert set(opened) == {"B04"}


def test_files_carry_the_labels(catalog: Catalog, tmp_path: Path) -> None:
    data = run(catalog, load_node(bands=["reflectance|b04", "B08_10m"]))
    (tmp_path / "out").mkdir()
    (asset,) = write_outputs(None, [Output.from_data(data, "GTiff")], tmp_path / "out")
    with rasterio.open(asset.path) as file:
        assert file.descriptions == ("reflectance|b04", "B08_10m")
    for format_ in ("netCDF", "Zarr", "JSON"):
        write_outputs(None, [Output.from_data(data, format_)], tmp_path / "out")


# --- Collections ---------------------------------------------------------------------------------


def test_an_alias_answers_like_the_collection(catalog: Catalog) -> None:
    for alias in ("SENTINEL2_L2A", "sentinel-2-l2a"):
        assert catalog.get_collection(alias, BASE) == catalog.get_collection("tiny_s2", BASE)
        assert catalog.get_queryables(alias, BASE) == catalog.get_queryables("tiny_s2", BASE)
        assert catalog.count_by_month(alias) == {"2022-06": 1}
        items = catalog.search_items(ItemQuery(10, collections=(alias, "tiny_s2")), BASE, lambda *_: None)
        assert [item["collection"] for item in items.items] == ["tiny_s2"]
        item = catalog.get_item(alias, items.items[0]["id"], BASE, lambda *_: None)
        assert item["id"] == items.items[0]["id"]
    assert [c["id"] for c in catalog.list_collections(BASE)] == ["tiny_s2"]
    bands = catalog.get_collection("tiny_s2")["summaries"]["eo:bands"]
    assert bands[0]["aliases"] == ["red", "B04_10m", "TOC-B04_10M", "reflectance|b04"]
    with pytest.raises(CollectionNotFound):
        catalog.get_collection("SENTINEL2")


def test_the_real_id_wins_and_conflicts_are_reported(
    catalog: Catalog, index: Index, overrides: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index.add_product(product("another"))
    text = """
tiny_s2:
  aliases: [another, tiny_s2, mine]
  bands:
    B04: {aliases: [B08, nir, infrared, good]}
    B99: {common_name: red}
nowhere: {title: Nothing}
"""
    rewrite(overrides, text, 1)
    with caplog.at_level(logging.WARNING, "odc_openeo.catalog"):
        assert catalog.get_collection("another")["id"] == "another"
        assert catalog.get_collection("mine")["id"] == "tiny_s2"
    problems = [
        "alias 'another' of collection 'tiny_s2' is the id of another collection, which it stays",
        "there is no product 'nowhere'",
        "tiny_s2: alias 'B08' of band 'B04' is a name of band 'B08', which it stays",
        "tiny_s2: alias 'nir' of band 'B04' is a name of band 'B08', which it stays",
        "tiny_s2: there is no band 'B99'. The bands are: B04, B08, B11, SCL",
    ]
    assert sorted(catalog.list_override_problems()) == problems
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"collection overrides: {problem}" for problem in problems]
    caplog.clear()
    catalog.list_collections()
    assert not caplog.records
    bands = catalog.get_product("tiny_s2").bands
    labels = [resolve_bands(bands, [name])[0].label for name in ("B08", "nir", "infrared", "good")]
    assert labels == ["B08", "B08", "infrared", "good"]


def test_doctor_names_overrides_without_effect(odc_config: Config, index: Index, overrides: Path) -> None:
    overrides.write_text("tiny_s2: {aliases: [mine]}\nnowhere: {title: Nothing}")
    findings = doctor.run_checks(odc_config.model_copy(update={"collection_overrides": overrides}))
    assert [f.text for f in findings if f.is_warning] == [
        "ODC_OPENEO_COLLECTION_OVERRIDES: there is no product 'nowhere'"
    ]


def test_hidden_collections_have_no_aliases(catalog: Catalog, overrides: Path) -> None:
    rewrite(overrides, "tiny_s2: {hidden: true, aliases: [mine]}", 1)
    with pytest.raises(CollectionNotFound):
        catalog.get_collection("mine")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: {aliases: [x]}\nb: {aliases: [x]}", "alias 'x' stands for several collections: a, b"),
        ("a: {bands: {r: {aliases: [x]}, g: {aliases: [x]}}}", "a: alias 'x' stands for several bands: r, g"),
        ("a: {aliases: x}", "a.aliases: Input should be a valid list"),
        ("a: {aliases: [1]}", "a.aliases.0: Input should be a valid string"),
        ("a: {aliases: ['x y']}", "a.aliases.0: 'x y' is not a valid alias: use letters, digits"),
        ("a: {aliases: ['']}", "a.aliases.0: '' is not a valid alias"),
        ("a: {bands: {r: {aliases: ['x\\n']}}}", "a.bands.r.aliases.0: 'x"),
        ('a: {bands: {r: {aliases: ["\\u0000"]}}}', "a.bands.r.aliases.0: '\\x00' is not a valid alias"),
        ("a: {bands: {r: {alias: [x]}}}", "a.bands.r.alias is not a known key"),
        ("a: {access: everybody}", "a.access"),
        ("a: {access: {}}", "name at least one of roles and claims"),
        ("a: {access: {roles: [Planet Labs]}}", "is not a valid role"),
        ("a: {access: {claims: [{claim: groups, values: []}]}}", "a.access"),
        ("a: {thumbnail: 'javascript:alert(1)'}", "is not an http(s) URL of a picture"),
        ("- a", "the file: Input should be a valid dictionary"),
        ("a: [", "are not valid YAML"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "overrides.yaml"
    file.write_text(text)
    if "x\\n" in text:
        assert read_overrides(file)["a"].bands["r"].aliases == ["x\\n"]
        return
    with pytest.raises(OverridesError) as caught:
        read_overrides(file)
    assert reason in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(OverridesError, match="it is not UTF-8"):
        read_overrides(tmp_path / "o.yaml")


# --- Names of bands in general -------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "d", "red", "nir"])
BANDS = st.lists(
    st.builds(
        lambda name, aliases, common_name: Band(
            name, tuple(a for a in aliases if a != name), common_name, given_aliases=tuple(aliases)
        ),
        NAMES,
        st.lists(NAMES, max_size=3, unique=True),
        st.none() | NAMES,
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda band: band.name,
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(BANDS, st.lists(NAMES, min_size=1, max_size=4))
def test_every_name_that_selects_a_band_finds_it_in_the_cube(bands: list[Band], names: list[str]) -> None:
    given_aliases = [alias for band in bands for alias in band.given_aliases]
    assume(len(set(given_aliases)) == len(given_aliases))
    try:
        selected = resolve_bands(bands, names)
    except ProcessParameterInvalid:
        return
    labels = [band.label for band in selected]
    assert len(set(labels)) == len({(band.name, band.label) for band in selected})
    aliases = map_aliases(selected)
    assert set(aliases.values()) <= set(labels)
    assert not set(aliases) & set(labels)
    for alias, label in aliases.items():
        owners = {band.name for band in selected if alias in band.names}
        assert owners == {next(band.name for band in selected if band.label == label)}
    coord = xr.DataArray(labels, dims="bands", coords={"bands": ("bands", labels, {cube.ALIASES: aliases})})
    for name in names:
        assert cube.find_band_label(coord, "bands", name) in labels or sum(name in b.names for b in bands) > 1
