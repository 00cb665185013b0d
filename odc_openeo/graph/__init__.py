"""Process graphs: parse, validate and evaluate them lazily.

`validate` names every error of a process at once; `evaluate` turns a process into values and lazy cubes by
calling one registered function per node.
"""

from odc_openeo.graph.definitions import Lookup
from odc_openeo.graph.evaluate import evaluate
from odc_openeo.graph.identity import identity
from odc_openeo.graph.parse import Graph, Limits, Node, called, parse
from odc_openeo.graph.validate import validate

__all__ = ["Graph", "Limits", "Lookup", "Node", "called", "evaluate", "identity", "parse", "validate"]
