"""The pages of the running stack: programs on them run as they are, browsers show them without a fault."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openeo
import pytest
import requests
import xarray as xr
from PIL import Image

from odc_openeo.indexing.samples import PRODUCTS, S2_PRODUCT
from tests.browser import Page, browser, find_program
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "build" / "screenshots"
"""Pictures of the pages as of the last run, to be looked at."""

BANDS = ["B04", "B03", "B02"]
LOOKS = {"light": (1280, "light"), "dark": (1280, "dark"), "narrow": (390, "light")}
PAGES = {
    "start": "/",
    "collection": f"/collections/{S2_PRODUCT}",
    "processes": "/processes?category=cubes",
    "process": "/processes/aggregate_temporal_period",
    "sign-in": "/sign-in",
}


def program(stack: str, language: str, collection: str) -> str:
    """A program as it is copied from the page of a collection."""
    answer = requests.get(f"{stack}/collections/{collection}", timeout=60)
    assert answer.status_code == 200
    code = re.search(rf'<code id="code-{language}">(.*?)</code>', answer.text, re.DOTALL)
    assert code is not None
    return html.unescape(code[1])


def run(command: list[str], folder: Path) -> xr.Dataset:
    """Run a program in a folder; what it has loaded."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    with xr.open_dataset(folder / "piece.nc") as opened:
        return opened.load()


def bands_of(piece: xr.Dataset) -> list[str]:
    """The bands of a loaded piece, all of which have data."""
    names = [str(n) for n, v in piece.data_vars.items() if {"x", "y"} <= set(v.dims)]
    for name in names:
        assert np.isfinite(piece[name].values.astype(float)).any()
    return names


@pytest.mark.parametrize("collection", PRODUCTS)
def test_the_python_program_runs(stack: str, collection: str, tmp_path: Path) -> None:
    code = program(stack, "python", collection)
    compile(code, "program", "exec")
    (tmp_path / "program.py").write_text(code)
    piece = run([sys.executable, "program.py"], tmp_path)
    assert set(bands_of(piece)) == set(
        re.findall(r'"([^"]+)"', code.partition("bands=")[2].partition("]")[0])
    )
    assert 100 <= piece.sizes["x"] <= 400 or collection == "climate_daily_sample"


@pytest.mark.parametrize("collection", PRODUCTS)
def test_the_javascript_program_runs(stack: str, node_modules: Path, collection: str, tmp_path: Path) -> None:
    code = program(stack, "javascript", collection)
    (tmp_path / "program.mjs").write_text(code)
    (tmp_path / "node_modules").symlink_to(node_modules)
    bands = re.search(r"^  \[(.*)\]$", code, re.MULTILINE)
    assert bands is not None
    assert set(bands_of(run(["node", "program.mjs"], tmp_path))) == set(re.findall(r'"([^"]+)"', bands[1]))


# --- In a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    program_ = find_program()
    if program_ is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with browser(program_) as page:
        yield page


def check(page: Page, stack: str, name: str) -> None:
    """Take a picture of the page, which must be more than empty, and be there without a fault."""
    pixels = np.asarray(Image.open(page.picture(PICTURES / f"{name}.png")).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, name
    assert page.problems == [], name
    assert [url for url in page.requested if not url.startswith((f"{stack}/", "data:"))] == [], name
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
    # Images that load when they are seen may still be on their way.
    loaded = "Array.from(document.images).every(i => { i.loading = 'eager'; return i.complete })"
    wait_for(lambda: page.evaluate(loaded))
    broken = "Array.from(document.images).filter(i => !i.naturalWidth).map(i => i.src)"
    assert page.evaluate(broken) == [], name


@pytest.mark.parametrize(
    ("name", "look"),
    [(name, look) for name in ("start", "collection") for look in LOOKS]
    + [("processes", "narrow"), ("process", "dark"), ("sign-in", "light")],
)
def test_pages_look_right(chromium: Page, stack: str, name: str, look: str) -> None:
    width, scheme = LOOKS[look]
    chromium.looks(width, scheme)
    chromium.open(f"{stack}{PAGES[name]}")
    check(chromium, stack, f"{name}-{look}")
    background = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(v) for v in re.findall(r"\d+", background)[:3])
    assert (brightness < 200) == (scheme == "dark")


CONTRAST = """(() => {
  const channel = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0.99) return c;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const e of document.querySelectorAll("main *, nav *, footer *")) {
    const own = Array.from(e.childNodes).some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest("svg") || !e.getClientRects().length) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([e.tagName, e.textContent.trim().slice(0, 40), ratio]);
  }
  return low;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(chromium: Page, stack: str, scheme: str) -> None:
    chromium.looks(1280, scheme)
    for name in ("start", "collection", "process"):
        chromium.open(f"{stack}{PAGES[name]}")
        assert chromium.evaluate(CONTRAST) == [], name


FOCUSED = """(e => e.textContent.trim() + getComputedStyle(e).outlineStyle)(document.activeElement)"""


def test_the_keyboard_is_enough(chromium: Page, stack: str) -> None:
    chromium.looks()
    chromium.open(f"{stack}/")
    focused = []
    for _ in range(8):
        for kind in ("keyDown", "keyUp"):
            chromium.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        focused.append(chromium.evaluate(FOCUSED))
    assert focused[0].startswith("Skip to the content")
    assert any(text.startswith("Processes") for text in focused)
    assert all(text.endswith(("solid", "auto")) for text in focused)


def sign_in(chromium: Page, stack: str, path: str) -> None:
    """Go to a page of the user demo by way of the form."""
    chromium.open(f"{stack}{path}")
    if "/sign-in?to=" in chromium.evaluate("location.href"):
        fill = "".join(
            f'document.getElementById("{field}").value = "demo";' for field in ("name", "password")
        )
        chromium.submit(f'{fill}document.querySelector("form.fields button").click()')
    assert chromium.evaluate("location.href") == f"{stack}{path}"


def test_pages_of_users_look_right(chromium: Page, stack: str, connection: openeo.Connection) -> None:
    box = {"west": 11.33, "south": 46.48, "east": 11.36, "north": 46.5}
    cube = connection.load_collection(
        S2_PRODUCT, spatial_extent=box, temporal_extent=["2022-06-01", "2022-06-03"], bands=BANDS
    )
    service = connection.create_service(cube.max_time().flat_graph(), "XYZ", title="June in colours")
    graph = {
        "add": {"process_id": "add", "arguments": {"x": {"from_parameter": "x"}, "y": 1}, "result": True}
    }
    number = {"name": "x", "description": "A number.", "schema": {"type": "number"}}
    connection.save_user_defined_process("pages_sum", graph, [number], summary="A sum", public=True)
    title = {"intent": "create", "title": "Shelf of the pages"}
    shelf = connection.post("/workspaces", json=title, expected_status=201).headers["OpenEO-Identifier"]
    pages = {
        "services": "/my/services",
        "service": f"/my/services/{service.service_id}",
        "my-processes": "/my/processes",
        "my-process": "/my/processes/pages_sum",
        "workspaces": "/my/workspaces",
        "workspace": f"/my/workspaces/{shelf}",
    }
    for look, names in (("dark", pages), ("narrow", ["service", "my-process", "workspace"])):
        chromium.looks(*LOOKS[look])
        for name in names:
            sign_in(chromium, stack, pages[name])
            check(chromium, stack, f"{name}-{look}")
            assert chromium.evaluate(CONTRAST) == [], name
    for name, last in (("my-process", "/my/processes"), ("workspace", "/my/workspaces")):
        chromium.open(f"{stack}{pages[name]}")
        chromium.submit('document.querySelector(".confirm form button").click()')
        assert chromium.evaluate("location.pathname") == last
    service.delete_service()


def test_a_file_is_uploaded_in_the_browser(chromium: Page, stack: str, tmp_path: Path) -> None:
    name = "parcels <b onclick=x>of June.geojson"
    (tmp_path / name).write_text("{}")
    chromium.looks()
    sign_in(chromium, stack, "/my/files")
    root = chromium.call("DOM.getDocument")["root"]["nodeId"]
    field = chromium.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    chromium.call("DOM.setFileInputFiles", nodeId=field, files=[str(tmp_path / name)])
    fill = 'document.getElementById("folder").value = "of the pages";'
    chromium.submit(f'{fill}document.querySelector("form.upload button").click()')
    names = 'Array.from(document.querySelectorAll("tbody a")).map(a => a.textContent)'
    assert f"of the pages/{name}" in chromium.evaluate(names)
    check(chromium, stack, "files-light")
    chromium.submit(
        'Array.from(document.querySelectorAll("tbody tr"))'
        '.find(row => row.textContent.includes("of the pages")).querySelector("form button").click()'
    )
    assert f"of the pages/{name}" not in chromium.evaluate(names)


def test_code_is_copied(chromium: Page, stack: str) -> None:
    chromium.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    chromium.call("Page.bringToFront")
    chromium.open(f"{stack}{PAGES['collection']}")
    code = chromium.evaluate('document.querySelector("#code-python").textContent.trim()')
    button = 'document.querySelector("#code-python").closest(".copy-frame").querySelector("button")'
    chromium.evaluate(f"{button}.click()")
    deadline = time.monotonic() + 20
    while chromium.evaluate(f"{button}.textContent") != "Copied" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert chromium.evaluate("navigator.clipboard.readText()") == code
    # No other script runs, wherever it comes from.
    image = '<img src=x: onerror="window.ran = 1">'
    chromium.evaluate(f"document.body.insertAdjacentHTML('beforeend', '{image}')")
    script = "const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
    chromium.evaluate(f"{script} document.body.append(s)")
    assert chromium.evaluate("window.ran === undefined")


def test_jobs_in_the_browser(chromium: Page, stack: str, connection: openeo.Connection) -> None:
    box = {"west": 11.33, "south": 46.48, "east": 11.36, "north": 46.5}
    cube = connection.load_collection(
        S2_PRODUCT, spatial_extent=box, temporal_extent=["2022-06-01", "2022-06-03"], bands=BANDS
    )
    picture = cube.max_time().linear_scale_range(0, 3000, 0, 255).save_result("PNG")
    job = picture.create_job(title="A picture of June", description="Made for the *pages*.")
    chromium.looks()
    chromium.call("Network.clearBrowserCookies")
    chromium.open(f"{stack}/my/jobs/{job.job_id}")
    assert "/sign-in?to=" in chromium.evaluate("location.href")
    fill = "".join(f'document.getElementById("{field}").value = "demo";' for field in ("name", "password"))
    chromium.submit(f'{fill}document.querySelector("form.fields button").click()')
    assert chromium.evaluate("location.href") == f"{stack}/my/jobs/{job.job_id}"
    chromium.submit('document.querySelector(".actions form button").click()')
    _wait(job)
    for look in ("dark", "narrow"):
        width, scheme = LOOKS[look]
        chromium.looks(width, scheme)
        chromium.open(f"{stack}/my/jobs/{job.job_id}")
        assert "finished" in chromium.evaluate('document.querySelector(".state").textContent')
        assert chromium.evaluate('document.querySelectorAll(".pictures img").length') == 1
        check(chromium, stack, f"job-{look}")
    chromium.open(f"{stack}/my/jobs")
    check(chromium, stack, "jobs-narrow")
    chromium.open(f"{stack}/my/files")
    check(chromium, stack, "files-narrow")
    chromium.submit('document.querySelector("nav form button").click()')
    assert chromium.evaluate("location.pathname") == "/"
    job.delete()


def _wait(job: openeo.BatchJob) -> None:
    deadline = time.monotonic() + 90
    while job.status() in ("queued", "running") and time.monotonic() < deadline:
        time.sleep(0.3)
    assert job.status() == "finished"
