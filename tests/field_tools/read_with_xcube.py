"""Read a Zarr store with xcube, by address and from a folder; prints JSON. Arguments: URL FOLDER NAME."""

import json
import sys

from xcube.core.gridmapping import GridMapping
from xcube.core.store import new_data_opener, new_data_store

url, folder, name = sys.argv[1:]
remote = new_data_opener("dataset:zarr:https").open_data(url, consolidated=True)
store = new_data_store("file", root=folder)
local = store.open_data(name)
grid = GridMapping.from_dataset(local)
print(
    json.dumps(
        {
            "sizes": dict(remote.sizes),
            "B04": remote["B04"].transpose("time", "y", "x").values.tolist(),
            "equal": bool(remote.load().equals(local.load())),
            "names": list(store.get_data_ids()),
            "crs": grid.crs.to_epsg(),
            "resolution": [float(value) for value in grid.xy_res],
        }
    )
)
