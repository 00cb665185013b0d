"""Groups of times: intervals, calendar periods, climatologies, the nearest times."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from odc_openeo import cube
from odc_openeo.cube.calendar_periods import PERIODS, SEASONS, TROPICAL_SEASONS
from odc_openeo.cube.instants import get_middle_times, get_times
from odc_openeo.explain.calls import Call, NoProgram, Operand, emits
from odc_openeo.explain.code import write_literal, write_string
from odc_openeo.explain.emitters.dimensions import assign_labels, write_dates, write_labels
from odc_openeo.explain.snippets import periods
from odc_openeo.processes.climatology import is_winter_cut

FORMATS: Final = {"hour": "%Y-%m-%d-%H", "day": "%Y-%j", "month": "%Y-%m", "year": "%Y"}
FUNCTIONS: Final = {
    "week": periods.label_weeks,
    "dekad": periods.label_dekads,
    "season": periods.label_seasons,
    "tropical-season": periods.label_tropical_seasons,
    "decade": periods.label_decades,
    "decade-ad": periods.label_decades_ad,
}


WHOLE: Final = ("climatology-period", "single-period")
"""Periods that are not parts of a year."""
WINTERS: Final = {"season": SEASONS[0], "tropical-season": TROPICAL_SEASONS[0]}


def write_times(call: Call, data: Operand, dimension: str, *, middle: bool = False) -> str:
    """The times along a dimension; of labels of calendar periods, when these begin, or their middle."""
    times = f"{data.atom}[{write_string(dimension)}]"
    if data.value.coords[dimension].dtype.kind == "M":
        return times
    instants = get_instants(call, data, dimension, middle=middle)
    name = "middle_times" if middle else "starts"
    return call.assign(name, f"{times}.copy(data={write_dates(instants.astype('datetime64[ns]'))})")


def get_instants(call: Call, data: Operand, dimension: str, *, middle: bool = False) -> np.ndarray:
    """The times that `write_times` writes."""
    get = get_middle_times if middle else get_times
    return get(data.value, dimension, call.node.process_id)


def write_period_labels(
    call: Call, data: Operand, dimension: str, period: str, *, middle: bool = False
) -> str:
    """The label of the calendar period of each time."""
    times = write_times(call, data, dimension, middle=middle)
    if period in FORMATS:
        return f"{times}.dt.strftime({write_string(FORMATS[period])})"
    return f"{call.helper(FUNCTIONS[period])}({times})"


@emits("aggregate_temporal_period")
def write_periods(call: Call) -> str:
    """The reducer on each group of times with the same label."""
    data = call["data"]
    name = cube.get_temporal_dimension(data.value, call.json("dimension"))
    if not data.value.sizes[name]:
        raise NoProgram("there are no times.")
    period = call.json("period")
    labels = call.assign(
        "period", f'{write_period_labels(call, data, name, period, middle=True)}.rename("period")'
    )
    function = call.define("reducer", "data", wish=f"reduce_{period}", dimension=name)
    code = f"{data.atom}.groupby({labels}).map({function}).rename(period={write_string(name)})"
    return _complete(call, data, name, code)


def _complete(call: Call, data: Operand, name: str, code: str) -> str:
    """All periods in order; what a reducer makes of no times is in those without any."""
    present = set(PERIODS[call.json("period")].labels(np.unique(_number(call, data, name))))
    labels = call.value.coords[name].values.tolist()
    gaps = [label for label in labels if label not in present]
    reindexed = f".reindex({{{write_string(name)}: {write_literal(labels)}}}"
    if not gaps:
        return code if sorted(labels) == labels else f"{code}{reindexed})"
    empty = find_empty_value(call)
    return (
        f"{code}{reindexed}, fill_value={write_literal(empty)})"
        if empty is not None
        else f"{code}{reindexed})"
    )


def _number(call: Call, data: Operand, name: str) -> np.ndarray:
    instants = get_instants(call, data, name, middle=True)
    return PERIODS[call.json("period")].number(pd.DatetimeIndex(instants))


def find_empty_value(call: Call) -> Any:
    """The result of the reducer for an empty array; None for no-data."""
    graph = call.operands["reducer"].value
    value = call.writer.trace.json_values.get(f"{call.path}.{graph.result}")
    return None if isinstance(value, float) and np.isnan(value) else value


@emits("aggregate_temporal")
def write_intervals(call: Call) -> str:
    """The reducer on the times of each interval."""
    data = call["data"]
    name = cube.get_temporal_dimension(data.value, call.json("dimension"))
    function = call.define("reducer", "data", wish="reduce_interval", dimension=name)
    intervals = call.assign("intervals", write_literal([list(pair) for pair in call.json("intervals")]))
    times = write_times(call, data, name)
    within = call.helper(periods.is_within)
    empty = find_empty_value(call)
    helper = call.helper(periods.reduce_groups)
    masks = f"[{within}({times}, *pair) for pair in {intervals}]"
    code = f"{helper}({data.code}, {write_string(name)}, {masks}, {function}"
    code += ")" if empty is None else f", {write_literal(empty)})"
    return f"{code}{assign_labels(name, write_labels(call.value, name))}"


@emits("climatological_normal")
def write_normals(call: Call) -> str:
    """Means over the years of the reference period."""
    data, period = call["data"], call.json("period")
    name = cube.get_temporal_dimension(data.value)
    first, last = call.json("climatology_period")
    if period in WHOLE:
        years = f"{write_times(call, data, name, middle=True)}.dt.year"
        selected, _ = _select_years(
            call, data, name, years, f"({{years}} >= {first}) & ({{years}} <= {last})"
        )
        return f'{selected}.mean({write_string(name)}).expand_dims({{{write_string(name)}: ["{period}"]}})'
    labels = call.assign("labels", write_period_labels(call, data, name, period, middle=True))
    keys = call.assign("keys", f'{labels}.str[5:].rename("period")')
    condition = f"({{years}} >= {first}) & ({{years}} <= {last})"
    if is_winter_cut(data.value, name, period, first):
        condition += f' & ~(({{years}} == {first}) & ({keys} == "{WINTERS[period]}"))'
    selected, used = _select_years(call, data, name, f"{labels}.str[:4].astype(int)", condition)
    grouping = f"{keys}.isel({{{write_string(name)}: {used}}})"
    complete = write_literal(call.value.coords[name].values.tolist())
    code = f"{selected}.groupby({grouping}).mean().rename(period={write_string(name)})"
    return f"{code}.reindex({{{write_string(name)}: {complete}}})"


def _select_years(call: Call, data: Operand, name: str, years: str, condition: str) -> tuple[str, str]:
    """Write the selection of the times that count; return it and its mask."""
    years = call.assign("years", years)
    used = call.assign("used", condition.format(years=years))
    return call.assign("reference", f"{data.atom}.isel({{{write_string(name)}: {used}}})"), used


@emits("anomaly")
def write_anomaly(call: Call) -> str:
    """The difference from the normal of the same period."""
    data, normals, period = call["data"], call["normals"], call.json("period")
    name, other = cube.get_temporal_dimension(data.value), cube.get_temporal_dimension(normals.value)
    if period in WHOLE:
        return f"{data.operand} - {normals.atom}.isel({{{write_string(other)}: 0}}, drop=True)"
    cuts = {"hour": 11, "year": 0, "decade": 0, "decade-ad": 0}
    labels = write_period_labels(call, data, name, period)
    keys = call.assign("keys", f"[label[{cuts.get(period, 5)}:] for label in {labels}.values]")
    matched = f"{normals.atom}.sel({{{write_string(other)}: {keys}}})"
    if other != name:
        matched += f".rename({{{write_string(other)}: {write_string(name)}}})"
    return f"{data.operand} - {matched}{assign_labels(name, f'{data.atom}[{write_string(name)}]')}"


@emits("resample_cube_temporal")
def write_nearest_times(call: Call) -> str:
    """The values at the nearest time, or of the nearest within some days that is valid."""
    data, target = call["data"], call["target"]
    names = (
        [call.json("dimension")]
        if call.has("dimension")
        else [n for n in cube.dimensions_of_type(data.value, "temporal") if n in target.value.dims]
    )
    code = data.code
    for name in names:
        if not data.value.sizes[name]:
            raise NoProgram("there are no times.")
        if data.value.coords[name].dtype.kind != "M":
            code = f"{Operand(code, None).atom}{assign_labels(name, write_times(call, data, name))}"
        limit = f", days={call['valid_within'].code}" if call.has("valid_within") else ""
        helper = call.helper(periods.take_nearest_valid if limit else periods.take_nearest)
        code = f"{helper}({code}, {write_times(call, target, name)}, {write_string(name)}{limit})"
        if target.value.coords[name].dtype.kind != "M":
            code = f"{code}{assign_labels(name, write_labels(target.value, name))}"
    return code
