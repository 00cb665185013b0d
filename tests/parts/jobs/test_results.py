"""Jobs in parts end to end: the results of every format are those of the same job as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio

from tests.parts.jobs.site import PartsSite, Worker, compute_expected, reduce_graph


def test_geotiffs_of_parts_and_their_mosaic_are_the_whole(parts_site: PartsSite, parts_worker: Worker, tmp_path: Path) -> None:
    id_ = parts_site.submit(reduce_graph("GTiff"))
    job = parts_site.wait(id_, "finished", "error")
    assert job.status == "finished", (parts_site.list_messages(id_), parts_worker.output.read_text())
    files = parts_site.fetch_files(id_, tmp_path / "parts")
    print(files.keys(), parts_site.list_messages(id_))
    assert len(files) >= 7
    mosaic = next(path for name, path in files.items() if name.endswith(".vrt"))
    with rasterio.open(mosaic) as file:
        np.testing.assert_array_equal(file.read(), compute_expected())
