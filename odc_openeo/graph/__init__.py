"""Process graphs: parse, validate and evaluate them lazily.

`prepare` parses a process once; what it returns names every error of it at once and evaluates it into values
and lazy cubes by calling one registered function per node.
"""

from odc_openeo.graph.model import Graph, GraphLimits, Lookup, Node
from odc_openeo.graph.prepare import PreparedProcess, evaluate, prepare, validate

__all__ = [
    "Graph",
    "GraphLimits",
    "Lookup",
    "Node",
    "PreparedProcess",
    "evaluate",
    "prepare",
    "validate",
]
