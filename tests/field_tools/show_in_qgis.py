"""Load layers of the service into QGIS, draw them, print what came of it as JSON. Argument: a JSON object.

``xyz`` and ``wmts`` are addresses of map services, ``asset`` that of a GeoTIFF, ``stac`` of the STAC API,
``collection`` one of its collections, ``extent`` a box in EPSG:3857 (west, south, east, north), ``folder``
where to put pictures. Runs with the Python of Debian's QGIS, on a display.
"""

import json
import os
import sys
from pathlib import Path
from urllib.parse import quote

from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsFillSymbol,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsRasterLayer,
    QgsRectangle,
    QgsSingleSymbolRenderer,
    QgsVectorLayer,
)
from qgis.gui import QgsMapCanvas
from qgis.PyQt.QtCore import QEventLoop, QSize, QTimer
from qgis.PyQt.QtGui import QColor

MERCATOR = QgsCoordinateReferenceSystem("EPSG:3857")


def make_layers(links):
    """Make the layers by name."""
    xyz = f"type=xyz&url={quote(links['xyz'], safe='')}&zmin=0&zmax=18"
    wmts = (
        "crs=EPSG:3857&format=image/png&layers=result&styles=default&tileMatrixSet=EPSG:3857"
        f"&url={quote(links['wmts'], safe='')}"
    )
    items = f"url='{links['stac']}' typename='{links['collection']}' version='OGC_API_FEATURES'"
    return {
        "xyz": QgsRasterLayer(xyz, "XYZ", "wms"),
        "wmts": QgsRasterLayer(wmts, "WMTS", "wms"),
        "asset": QgsRasterLayer(f"/vsicurl/{links['asset']}", "STAC asset", "gdal"),
        "items": QgsVectorLayer(items, "STAC items", "OAPIF"),
    }


def draw(layer, extent, path):
    """Draw a layer on 256 x 256 pixels."""
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(MERCATOR)
    settings.setExtent(extent)
    settings.setOutputSize(QSize(256, 256))
    settings.setOutputDpi(96)
    settings.setBackgroundColor(QColor(0, 0, 0, 0))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(str(path))
    return [str(error.message) for error in job.errors()]


def show_together(layers, extent, path):
    """Show all layers in a map window, and take a picture of it."""
    canvas = QgsMapCanvas()
    canvas.resize(800, 600)
    canvas.setDestinationCrs(MERCATOR)
    canvas.setExtent(extent)
    canvas.setLayers(layers)
    canvas.show()
    loop = QEventLoop()
    canvas.mapCanvasRefreshed.connect(loop.quit)
    QTimer.singleShot(60_000, loop.quit)
    canvas.refresh()
    loop.exec_()
    canvas.grab().save(str(path))
    canvas.setLayers([])


def main():
    """Load, draw, report."""
    links = json.loads(sys.argv[1])
    folder = Path(links["folder"])
    application = QgsApplication([], True)
    application.initQgis()
    layers = make_layers(links)
    report = {"valid": {name: layer.isValid() for name, layer in layers.items()}}
    report["reasons"] = {
        name: layer.error().message() for name, layer in layers.items() if not layer.isValid()
    }
    extent = QgsRectangle(*links["extent"])
    report["errors"] = {name: draw(layers[name], extent, folder / f"{name}.png") for name in ("xyz", "wmts")}
    asset = layers["asset"].dataProvider()
    block = asset.block(1, asset.extent(), asset.xSize(), asset.ySize())
    report["asset"] = sum(block.value(row, row) for row in range(min(asset.xSize(), asset.ySize())))
    report["items"] = sorted(feature["id"] for feature in layers["items"].getFeatures())
    report["fields"] = [field.name() for field in layers["items"].fields()]
    outline = {"color": "255,255,255,0", "outline_color": "red", "outline_width": "0.6"}
    layers["items"].setRenderer(QgsSingleSymbolRenderer(QgsFillSymbol.createSimple(outline)))
    wide = QgsRectangle(extent)
    wide.scale(4)
    show_together([layers["items"], layers["xyz"], layers["asset"]], wide, folder / "canvas.png")
    print(json.dumps(report), flush=True)
    # Python takes QGIS's objects apart in another order than QGIS expects, and crashes.
    os._exit(0)


main()
