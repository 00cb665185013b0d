"""Filters in CQL2: conditions on properties become SQL, conditions on the outline are tested in Python.

A filter is a tree. Parts without geometry are one SQL expression each; an item is accepted if the whole is
true in the three-valued logic of SQL, in which a property that an item lacks is null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import cql2
import shapely
from shapely.geometry.base import BaseGeometry
from sqlalchemy import ColumnElement, and_, false, not_, or_, true

from odc_openeo.catalog.filter_limits import check_filter_text, check_filter_tree, check_vertices
from odc_openeo.catalog.times import Bounds, parse_instant, parse_interval
from odc_openeo.errors import RequestInvalid

Truth = bool | None
Expression = Any

COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}

# Relations of the outline of an item (first) to a geometry (second).
RELATIONS: Mapping[str, Callable[[BaseGeometry, BaseGeometry], Any]] = {
    "s_intersects": shapely.intersects,
    "s_disjoint": shapely.disjoint,
    "s_equals": shapely.equals,
    "s_touches": shapely.touches,
    "s_within": shapely.within,
    "s_overlaps": shapely.overlaps,
    "s_crosses": shapely.crosses,
    "s_contains": shapely.contains,
}
INVERSE = {"s_within": "s_contains", "s_contains": "s_within"}


class Columns(Protocol):
    """The columns of the index that hold the properties of one product."""

    def get_kind(self, name: str) -> str:
        """Return ``time`` or ``value``; RequestInvalid for an unknown property."""

    def time_column(self, name: str) -> ColumnElement[Any]:
        """Return a time as timestamp."""

    def value_column(self, name: str, type_: type) -> ColumnElement[Any]:
        """Return a property as bool, float or str; null where it has another type."""

    def is_null(self, name: str) -> ColumnElement[bool]:
        """Return the condition that an item lacks the property."""

    def bbox_intersects(self, area: BaseGeometry) -> ColumnElement[bool]:
        """Return the condition that the bounding boxes of an item and of the area share a point."""

    def interval_columns(self) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """Return first and last moment of an item."""


@dataclass(frozen=True)
class Compiled:
    """A filter for one product.

    ``where`` matches every accepted item. If there are ``leaves``, it matches more: then `accepts` decides
    from the values of these SQL expressions and the outline.
    """

    where: ColumnElement[bool]
    leaves: tuple[ColumnElement[Any], ...] = ()
    accepts: Callable[[Sequence[Truth], BaseGeometry | None], Truth] | None = None


def parse_filter(value: Any, language: str) -> Expression:
    """Parse a filter into the tree of CQL2 JSON; ``language`` is ``cql2-text`` or ``cql2-json``.

    Raises:
        RequestInvalid: it is not valid CQL2.
    """
    if language not in ("cql2-text", "cql2-json"):
        raise _invalid_filter(f"'filter-lang' is '{language}'; it can be cql2-text or cql2-json")
    if (language == "cql2-text") != isinstance(value, str):
        raise _invalid_filter(
            f"a filter in {language} must be {'a string' if language == 'cql2-text' else 'JSON'}"
        )
    expression = _parse_text(value) if isinstance(value, str) else value
    check_filter_tree(expression)
    _check_expression(expression)
    return expression


def _parse_text(text: str) -> Expression:
    check_filter_text(text)
    try:
        return cql2.parse_text(text).to_json()
    except Exception as error:  # the library raises plain Exception, for example for geometries
        raise _invalid_filter(_locate_syntax_error(text, str(error))) from error


def _locate_syntax_error(text: str, message: str) -> str:
    """Say where a filter stops being CQL2; the message of the library names rules of its grammar."""
    position = re.search(r"(\d+):(\d+)", message)
    if position is None:
        return "it is not valid CQL2"
    lines = text.splitlines() or [""]
    number, column = min(int(position[1]), len(lines)), int(position[2])
    line = lines[number - 1]
    rest = line[column - 1 : column + SHOWN_CHARACTERS].strip()
    where = f"before {rest!r}" if rest else f"at its end, after {line[-SHOWN_CHARACTERS:]!r}"
    return f"it is not valid CQL2: something is missing or wrong {where} (line {number}, column {column})"


# Argument counts of operators that do not take two. The library's own validation takes exponential time.
SHOWN_CHARACTERS: Final = 30
ARGUMENTS: Final[Mapping[str, int]] = {"not": 1, "isNull": 1, "between": 3}


def _check_expression(expression: Expression) -> None:
    """Check the structure of a CQL2 tree: operators and their numbers of arguments."""
    waiting = [expression]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, Mapping) and ("op" in value or "args" in value):
            _check_operation(value)
            waiting.extend(value["args"])


def _check_operation(operation: Mapping[str, Any]) -> None:
    op, args = operation.get("op"), operation.get("args")
    if not isinstance(op, str) or not isinstance(args, list):
        raise _invalid_filter("it is not valid CQL2. A condition needs a string 'op' and an array 'args'")
    if op in ("and", "or"):
        if len(args) < 2:
            raise _invalid_filter(f"it is not valid CQL2. '{op}' needs at least 2 arguments")
        return
    count = ARGUMENTS.get(op, 2)
    if op in (*COMPARISONS, *ARGUMENTS, "in", "like", *RELATIONS, *TEMPORAL) and len(args) != count:
        plural = "s" if count > 1 else ""
        raise _invalid_filter(f"it is not valid CQL2. '{op}' needs {count} argument{plural}")
    if op == "in" and not isinstance(args[1], list):
        raise _invalid_filter("it is not valid CQL2. 'in' needs an array of values as its second argument")


def compile_filter(expression: Expression, columns: Columns) -> Compiled:
    """Compile the filter for the product of these columns.

    Raises:
        RequestInvalid: an operator or a property that is not supported here.
    """
    if not _has_geometry(expression):
        return Compiled(_compile_sql(expression, columns))
    leaves: list[ColumnElement[Any]] = []
    where, accepts = _compile_mixed(expression, columns, leaves)
    return Compiled(where, tuple(leaves), accepts)


def _invalid_filter(reason: str) -> RequestInvalid:
    return RequestInvalid(f"The filter is invalid: {reason.rstrip('.')}.")


# --- Parts with geometry: a wider condition for the index, and the exact test --------------------

Test = Callable[[Sequence[Truth], BaseGeometry | None], Truth]


def _has_geometry(expression: Expression) -> bool:
    if not isinstance(expression, Mapping):
        return False
    op = expression.get("op")
    if op is None:
        return False
    return op.startswith("s_") or any(_has_geometry(arg) for arg in expression.get("args", ()))


def _compile_mixed(
    expression: Expression, columns: Columns, leaves: list[ColumnElement[Any]]
) -> tuple[ColumnElement[bool], Test]:
    if not _has_geometry(expression):
        sql, place = _compile_sql(expression, columns), len(leaves)
        leaves.append(sql)
        return sql, lambda values, _: values[place]
    op, args = expression["op"], expression["args"]
    if op in ("and", "or"):
        parts = [_compile_mixed(arg, columns, leaves) for arg in args]
        tests = [test for _, test in parts]
        combine, decisive = (and_, False) if op == "and" else (or_, True)
        return combine(*[sql for sql, _ in parts]), _combine_tests(tests, decisive)
    if op == "not":
        _, inner = _compile_mixed(args[0], columns, leaves)
        return true(), lambda values, outline: _negate_truth(inner(values, outline))
    return _compile_spatial(op, args, columns)


def _combine_tests(tests: Sequence[Test], decisive: bool) -> Test:
    def combined_test(values: Sequence[Truth], outline: BaseGeometry | None) -> Truth:
        results = [child_test(values, outline) for child_test in tests]
        return decisive if decisive in results else (None if None in results else not decisive)

    return combined_test


def _negate_truth(value: Truth) -> Truth:
    return None if value is None else not value


def _compile_spatial(op: str, args: Sequence[Any], columns: Columns) -> tuple[ColumnElement[bool], Test]:
    if op not in RELATIONS:
        raise _unsupported_operator(op)
    if len(args) != 2 or [_find_property_name(arg) for arg in args].count("geometry") != 1:
        raise _invalid_filter(f"'{op}' needs the property 'geometry' and a geometry")
    first = _find_property_name(args[0]) == "geometry"
    relation = RELATIONS[op if first else INVERSE.get(op, op)]
    area = parse_geometry(args[1] if first else args[0])
    shapely.prepare(area)

    def outline_test(_: Sequence[Truth], outline: BaseGeometry | None) -> Truth:
        return None if outline is None else bool(relation(outline, area))

    return true() if op == "s_disjoint" else columns.bbox_intersects(area), outline_test


def parse_geometry(value: Any) -> BaseGeometry:
    """Parse a GeoJSON geometry, or CQL2's ``bbox``, in degrees.

    Raises:
        RequestInvalid: the geometry is not valid.
    """
    if isinstance(value, Mapping) and "bbox" in value:
        return parse_bbox(value["bbox"])
    check_vertices(value)
    try:
        shape = shapely.from_geojson(json.dumps(value))
    except (shapely.errors.GEOSException, TypeError, ValueError) as error:
        raise RequestInvalid("The geometry is not a valid GeoJSON geometry.") from error
    if shape is None or shape.is_empty or not isinstance(value, Mapping) or "coordinates" not in str(value):
        raise RequestInvalid("The geometry is not a valid GeoJSON geometry, or it is empty.")
    if not shape.is_valid:
        raise RequestInvalid(f"The geometry is invalid: {shapely.is_valid_reason(shape)}.")
    return shapely.force_2d(shape)


def parse_bbox(bounds: Any) -> BaseGeometry:
    """Parse a box of 4 or 6 numbers in degrees; west > east crosses the antimeridian. Heights are ignored.

    Raises:
        RequestInvalid: the box is not valid.
    """
    numbers = isinstance(bounds, Sequence) and not isinstance(bounds, str)
    if not numbers or len(bounds) not in (4, 6) or not all(_is_number(v) for v in bounds):
        raise RequestInvalid("'bbox' must have 4 or 6 numbers: west, south, east, north, in degrees.")
    west, south, *_ = bounds
    east, north = bounds[len(bounds) // 2 : len(bounds) // 2 + 2]
    if not (-90 <= south <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
        raise RequestInvalid(
            "'bbox' must be in degrees, longitudes from -180 to 180, latitudes from -90 to 90, south first."
        )
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.union(shapely.box(west, south, 180, north), shapely.box(-180, south, east, north))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


# --- Parts without geometry: SQL -----------------------------------------------------------------


def _compile_sql(expression: Expression, columns: Columns) -> ColumnElement[Any]:
    if isinstance(expression, bool):
        return true() if expression else false()
    if not isinstance(expression, Mapping) or "op" not in expression:
        name = _find_property_name(expression)
        if name is None:
            raise _invalid_filter("it must be a condition")
        return columns.value_column(name, bool)
    op, args = expression["op"], expression["args"]
    if op in ("and", "or"):
        return (and_ if op == "and" else or_)(*[_compile_sql(arg, columns) for arg in args])
    if op == "not":
        return not_(_compile_sql(args[0], columns))
    if op in COMPARISONS:
        return _compile_comparison(op, args, columns)
    if op.startswith("t_"):
        return _compile_temporal(op, args, columns)
    conditions = {
        "between": _compile_between,
        "in": _compile_in,
        "like": _compile_like,
        "isNull": _compile_is_null,
    }
    if op not in conditions:
        raise _unsupported_operator(op)
    return conditions[op](args, columns)


def _unsupported_operator(op: str) -> RequestInvalid:
    operators = [*COMPARISONS, "and", "or", "not", "between", "in", "like", "isNull", *RELATIONS, *TEMPORAL]
    return _invalid_filter(f"'{op}' is not supported. Supported operators: {', '.join(operators)}")


def _find_property_name(value: Any) -> str | None:
    name = value.get("property") if isinstance(value, Mapping) else None
    return name if isinstance(name, str) else None


def _get_property_name(value: Any, op: str) -> str:
    name = _find_property_name(value)
    if isinstance(value, Mapping) and "op" in value:
        raise _unsupported_operator(value["op"])
    if name is None:
        raise _invalid_filter(f"'{op}' compares a property with values, the property first")
    return name


def _compile_comparison(op: str, args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    if _find_property_name(args[0]) is None and _find_property_name(args[1]) is not None:
        return _compile_comparison(MIRRORED.get(op, op), [args[1], args[0]], columns)
    column, value = _compile_operands(_get_property_name(args[0], op), args[1], columns)
    if isinstance(value, bool) and op not in ("=", "<>"):
        raise _invalid_filter(f"'{op}' cannot compare booleans; use '=' or '<>'")
    return COMPARISONS[op](column, value)


def _compile_operands(name: str, value: Any, columns: Columns) -> tuple[ColumnElement[Any], Any]:
    """Compile a property and the value it is compared with, both of one type."""
    if columns.get_kind(name) == "time":
        text = value if isinstance(value, str) else _find_timestamp(value)
        if text is None:
            raise _invalid_filter(
                f"'{name}' must be compared with a time, such as TIMESTAMP('2022-06-01T00:00:00Z')"
            )
        return columns.time_column(name), parse_instant(text)
    if isinstance(value, bool):
        return columns.value_column(name, bool), value
    if _is_number(value):
        try:
            return columns.value_column(name, float), float(value)
        except OverflowError as error:
            raise _invalid_filter(f"the number that '{name}' is compared with is too large") from error
    if isinstance(value, str):
        return columns.value_column(name, str), value
    raise _invalid_filter(f"'{name}' must be compared with a number, string or boolean")


def _find_timestamp(value: Any) -> str | None:
    if isinstance(value, Mapping):
        time_string = value.get("timestamp", value.get("date"))
        return time_string if isinstance(time_string, str) else None
    return None


def _compile_between(args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    name = _get_property_name(args[0], "between")
    column, low = _compile_operands(name, args[1], columns)
    _, high = _compile_operands(name, args[2], columns)
    if type(low) is not type(high) or isinstance(low, bool):
        raise _invalid_filter("the ends of 'between' must both be numbers, strings or times")
    return column.between(low, high)


def _compile_in(args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    name = _get_property_name(args[0], "in")
    pairs = [_compile_operands(name, value, columns) for value in args[1]]
    return or_(false(), *[column == value for column, value in pairs])


def _compile_like(args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    if not isinstance(args[1], str):
        raise _invalid_filter("'like' needs a pattern, a string with % and _")
    if (len(args[1]) - len(args[1].rstrip("\\"))) % 2:
        raise _invalid_filter(
            "the pattern of 'like' ends with a backslash, but a backslash must precede another character"
        )
    return columns.value_column(_get_property_name(args[0], "like"), str).like(args[1])


def _compile_is_null(args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    return columns.is_null(_get_property_name(args[0], "isNull"))


# --- Times ---------------------------------------------------------------------------------------

TEMPORAL = ("t_after", "t_before", "t_during", "t_disjoint", "t_equals", "t_intersects")


def _compile_temporal(op: str, args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    if op not in TEMPORAL:
        raise _unsupported_operator(op)
    start, end = _get_time_columns(args[0], columns)
    low, high = _parse_bounds(args[1])
    before = end < low if low is not None else false()
    after = start > high if high is not None else false()
    if op in ("t_before", "t_after"):
        return before if op == "t_before" else after
    if op in ("t_disjoint", "t_intersects"):
        return or_(before, after) if op == "t_disjoint" else not_(or_(before, after))
    if op == "t_equals":
        return and_(start == low, end == high)
    inside = [start > low] if low is not None else []
    return and_(true(), *inside, *([end < high] if high is not None else []))


def _get_time_columns(value: Any, columns: Columns) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Return the columns of the property ``datetime``, or of an interval of two properties."""
    name = _find_property_name(value)
    if name is not None and columns.get_kind(name) == "time":
        return columns.time_column(name), columns.time_column(name)
    ends = (
        [_find_property_name(end) for end in value.get("interval", ())] if isinstance(value, Mapping) else []
    )
    if ends == ["start_datetime", "end_datetime"]:
        return columns.interval_columns()
    raise _invalid_filter(
        "the first argument of a temporal operator must be the property 'datetime' or "
        "INTERVAL(start_datetime, end_datetime)"
    )


def _parse_bounds(value: Any) -> Bounds:
    text = _find_timestamp(value)
    if text is not None:
        moment = parse_instant(text)
        return moment, moment
    ends = value.get("interval") if isinstance(value, Mapping) else None
    if not isinstance(ends, list) or len(ends) != 2:
        raise _invalid_filter("times must be compared with TIMESTAMP('…') or INTERVAL('…', '…')")
    texts = [end if isinstance(end, str) else _find_timestamp(end) for end in ends]
    if None in texts:
        raise _invalid_filter("the ends of an interval must be times or '..'")
    return parse_interval("/".join(str(text) for text in texts))
