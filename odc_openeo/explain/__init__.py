"""Explain a process graph: its plan in words, as a diagram, and as a program that gives the same values.

The graph is evaluated lazily as for an estimate: no pixel is read. The program uses datacube, odc-stac,
xarray and other libraries of the field; nothing of this package.
"""

from odc_openeo.explain.diagram import Drawing, draw_plan
from odc_openeo.explain.explain import Explanation, explain_process, write_program

__all__ = ["Drawing", "Explanation", "draw_plan", "explain_process", "write_program"]
