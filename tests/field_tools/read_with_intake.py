"""Read scenes and results with intake; prints what came of it as JSON: read_with_intake.py CATALOGUE."""

import json
import sys

import intake

catalogue = intake.open_catalog(sys.argv[1])
scenes = catalogue["scenes"].read()
first = scenes[next(iter(scenes.entries))].read()
image = first["B04"].read()[0].sel(band=1)
results = catalogue["results"].read()
name = next(name for name in results.entries if name.endswith(".tif"))
cube = catalogue["cube"].read()
print(
    json.dumps(
        {
            "entries": sorted(catalogue),
            "scenes": sorted(scenes.entries),
            "asset": [*image.shape, int(image.sum())],
            "item": next(iter(scenes.entries)),
            "results": sorted(results.entries),
            "file": [name, results[name].read()[0].sel(band=1).astype(float).values.tolist()],
            "cube": [list(cube.sizes.values()), float(cube["B04"].sum())],
        }
    )
)
