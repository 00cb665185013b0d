"""Jobs in parts: how a process graph splits, and the evaluation of each part.

`plan_parts` decides whether and how a graph splits (`JobSplit`), `evaluate_part` makes the lazy value of one
`Part`, `combine_parts` joins the values of parts in memory.
"""

from odc_openeo.parts.combine import combine_parts
from odc_openeo.parts.evaluate import evaluate_part
from odc_openeo.parts.limits import read_part_limits
from odc_openeo.parts.model import JobSplit, OutputTemplate, Part, PartLimits, PixelWindow
from odc_openeo.parts.plan import is_larger_than_part, plan_parts

__all__ = [
    "JobSplit",
    "OutputTemplate",
    "Part",
    "PartLimits",
    "PixelWindow",
    "combine_parts",
    "evaluate_part",
    "is_larger_than_part",
    "plan_parts",
    "read_part_limits",
]
