"""Filters in CQL2: what the index can answer becomes SQL, what needs the outline of an item is tested here.

A filter is a tree. Parts without geometry are one SQL expression each; an item is accepted if the whole is
true in the three-valued logic of SQL, in which a property that an item lacks is null.
"""

from __future__ import annotations

import json
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

# What holds between the outline of an item and a geometry, in this order.
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
    """Where the properties of one product are in the index."""

    def kind(self, name: str) -> str:
        """``time`` or ``value``; RequestInvalid for a property that there is not."""

    def time(self, name: str) -> ColumnElement[Any]:
        """A time, as timestamp."""

    def value(self, name: str, type_: type) -> ColumnElement[Any]:
        """A property as bool, float or str; null where it has another type."""

    def is_null(self, name: str) -> ColumnElement[bool]:
        """Whether an item lacks the property."""

    def near(self, area: BaseGeometry) -> ColumnElement[bool]:
        """Whether the box around an item and that around the area share a point."""

    def interval(self) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """First and last moment of an item."""


@dataclass(frozen=True)
class Compiled:
    """A filter for one product.

    ``where`` lets through every item that is accepted, and others if there are ``leaves``: SQL expressions
    whose values `accepts` needs.
    """

    where: ColumnElement[bool]
    leaves: tuple[ColumnElement[Any], ...] = ()
    accepts: Callable[[Sequence[Truth], BaseGeometry | None], Truth] | None = None


def parse(given: Any, language: str) -> Expression:
    """A filter as the tree of CQL2's JSON; ``language`` is ``cql2-text`` or ``cql2-json``.

    Raises:
        RequestInvalid: it is no CQL2.
    """
    if language not in ("cql2-text", "cql2-json"):
        raise _invalid(f"'filter-lang' is '{language}'; it can be cql2-text or cql2-json")
    if (language == "cql2-text") != isinstance(given, str):
        raise _invalid(f"a filter in {language} must be {'a string' if language == 'cql2-text' else 'JSON'}")
    expression = _parse_text(given) if isinstance(given, str) else given
    check_filter_tree(expression)
    _check_expression(expression)
    return expression


def _parse_text(text: str) -> Expression:
    check_filter_text(text)
    try:
        return cql2.parse_text(text).to_json()
    except Exception as error:  # the library raises just that for geometries, say
        raise _invalid(f"it is no CQL2. {' '.join(str(error).split())[:300]}") from error


# Arguments of operators that have not two. The library's own validation takes exponential time.
ARGUMENTS: Final[Mapping[str, int]] = {"not": 1, "isNull": 1, "between": 3}


def _check_expression(expression: Expression) -> None:
    """Refuse what is not built as CQL2 is: operators, and the numbers of their arguments."""
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
        raise _invalid("it is no CQL2. A condition has a string 'op' and an array 'args'")
    if op in ("and", "or"):
        if len(args) < 2:
            raise _invalid(f"it is no CQL2. '{op}' has at least 2 arguments")
        return
    count = ARGUMENTS.get(op, 2)
    if op in (*COMPARISONS, *ARGUMENTS, "in", "like", *RELATIONS, *TEMPORAL) and len(args) != count:
        raise _invalid(f"it is no CQL2. '{op}' has {count} argument{'s' if count > 1 else ''}")
    if op == "in" and not isinstance(args[1], list):
        raise _invalid("it is no CQL2. 'in' has an array of values as second argument")


def compile_filter(expression: Expression, columns: Columns) -> Compiled:
    """The filter for the product of these columns.

    Raises:
        RequestInvalid: an operator or a property that is not supported here.
    """
    if not _has_geometry(expression):
        return Compiled(_sql(expression, columns))
    leaves: list[ColumnElement[Any]] = []
    where, accepts = _mixed(expression, columns, leaves)
    return Compiled(where, tuple(leaves), accepts)


def _invalid(reason: str) -> RequestInvalid:
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


def _mixed(
    expression: Expression, columns: Columns, leaves: list[ColumnElement[Any]]
) -> tuple[ColumnElement[bool], Test]:
    if not _has_geometry(expression):
        sql, place = _sql(expression, columns), len(leaves)
        leaves.append(sql)
        return sql, lambda values, _: values[place]
    op, args = expression["op"], expression["args"]
    if op in ("and", "or"):
        parts = [_mixed(arg, columns, leaves) for arg in args]
        tests = [test for _, test in parts]
        combine, decisive = (and_, False) if op == "and" else (or_, True)
        return combine(*[sql for sql, _ in parts]), _all_of(tests, decisive)
    if op == "not":
        _, inner = _mixed(args[0], columns, leaves)
        return true(), lambda values, outline: _not(inner(values, outline))
    return _spatial(op, args, columns)


def _all_of(tests: Sequence[Test], decisive: bool) -> Test:
    def test(values: Sequence[Truth], outline: BaseGeometry | None) -> Truth:
        found = [each(values, outline) for each in tests]
        return decisive if decisive in found else (None if None in found else not decisive)

    return test


def _not(value: Truth) -> Truth:
    return None if value is None else not value


def _spatial(op: str, args: Sequence[Any], columns: Columns) -> tuple[ColumnElement[bool], Test]:
    if op not in RELATIONS:
        raise _unsupported(op)
    if len(args) != 2 or [_property(arg) for arg in args].count("geometry") != 1:
        raise _invalid(f"'{op}' needs the property 'geometry' and a geometry")
    first = _property(args[0]) == "geometry"
    relation = RELATIONS[op if first else INVERSE.get(op, op)]
    area = geometry(args[1] if first else args[0])
    shapely.prepare(area)

    def test(_: Sequence[Truth], outline: BaseGeometry | None) -> Truth:
        return None if outline is None else bool(relation(outline, area))

    return true() if op == "s_disjoint" else columns.near(area), test


def geometry(given: Any) -> BaseGeometry:
    """A GeoJSON geometry, or CQL2's ``bbox``, in degrees.

    Raises:
        RequestInvalid: it is none.
    """
    if isinstance(given, Mapping) and "bbox" in given:
        return box(given["bbox"])
    check_vertices(given)
    try:
        found = shapely.from_geojson(json.dumps(given))
    except (shapely.errors.GEOSException, TypeError, ValueError) as error:
        raise RequestInvalid("The geometry is no GeoJSON geometry.") from error
    if found is None or found.is_empty or not isinstance(given, Mapping) or "coordinates" not in str(given):
        raise RequestInvalid("The geometry is no GeoJSON geometry, or it is empty.")
    if not found.is_valid:
        raise RequestInvalid(f"The geometry is invalid: {shapely.is_valid_reason(found)}.")
    return shapely.force_2d(found)


def box(bounds: Any) -> BaseGeometry:
    """A box by its 4 or 6 numbers in degrees; west > east crosses the antimeridian. Heights do not count.

    Raises:
        RequestInvalid: it is none.
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


def _sql(expression: Expression, columns: Columns) -> ColumnElement[Any]:
    if isinstance(expression, bool):
        return true() if expression else false()
    if not isinstance(expression, Mapping) or "op" not in expression:
        name = _property(expression)
        if name is None:
            raise _invalid("it must be a condition")
        return columns.value(name, bool)
    op, args = expression["op"], expression["args"]
    if op in ("and", "or"):
        return (and_ if op == "and" else or_)(*[_sql(arg, columns) for arg in args])
    if op == "not":
        return not_(_sql(args[0], columns))
    if op in COMPARISONS:
        return _comparison(op, args, columns)
    if op.startswith("t_"):
        return _temporal(op, args, columns)
    conditions = {"between": _between, "in": _in, "like": _like, "isNull": _is_null}
    if op not in conditions:
        raise _unsupported(op)
    return conditions[op](args, columns)


def _unsupported(op: str) -> RequestInvalid:
    known = [*COMPARISONS, "and", "or", "not", "between", "in", "like", "isNull", *RELATIONS, *TEMPORAL]
    return _invalid(f"'{op}' is not supported here. There are: {', '.join(known)}")


def _property(value: Any) -> str | None:
    name = value.get("property") if isinstance(value, Mapping) else None
    return name if isinstance(name, str) else None


def _named(value: Any, op: str) -> str:
    name = _property(value)
    if isinstance(value, Mapping) and "op" in value:
        raise _unsupported(value["op"])
    if name is None:
        raise _invalid(f"'{op}' compares a property with values, the property first")
    return name


def _comparison(op: str, args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    if _property(args[0]) is None and _property(args[1]) is not None:
        return _comparison(MIRRORED.get(op, op), [args[1], args[0]], columns)
    column, value = _pair(_named(args[0], op), args[1], columns)
    if isinstance(value, bool) and op not in ("=", "<>"):
        raise _invalid(f"'{op}' can't compare booleans; use '=' or '<>'")
    return COMPARISONS[op](column, value)


def _pair(name: str, value: Any, columns: Columns) -> tuple[ColumnElement[Any], Any]:
    """A property and a value that it can be compared with, both of one type."""
    if columns.kind(name) == "time":
        text = value if isinstance(value, str) else _moment(value)
        if text is None:
            raise _invalid(f"'{name}' is compared with a time, such as TIMESTAMP('2022-06-01T00:00:00Z')")
        return columns.time(name), parse_instant(text)
    if isinstance(value, bool):
        return columns.value(name, bool), value
    if _is_number(value):
        try:
            return columns.value(name, float), float(value)
        except OverflowError as error:
            raise _invalid(f"the number that '{name}' is compared with is too large") from error
    if isinstance(value, str):
        return columns.value(name, str), value
    raise _invalid(f"'{name}' is compared with something that is no number, string or boolean")


def _moment(value: Any) -> str | None:
    if isinstance(value, Mapping):
        found = value.get("timestamp", value.get("date"))
        return found if isinstance(found, str) else None
    return None


def _between(args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    name = _named(args[0], "between")
    column, low = _pair(name, args[1], columns)
    _, high = _pair(name, args[2], columns)
    if type(low) is not type(high) or isinstance(low, bool):
        raise _invalid("the ends of 'between' must both be numbers, strings or times")
    return column.between(low, high)


def _in(args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    name = _named(args[0], "in")
    pairs = [_pair(name, value, columns) for value in args[1]]
    return or_(false(), *[column == value for column, value in pairs])


def _like(args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    if not isinstance(args[1], str):
        raise _invalid("'like' needs a pattern, a string with % and _")
    if (len(args[1]) - len(args[1].rstrip("\\"))) % 2:
        raise _invalid("the pattern of 'like' ends with a backslash, which stands before another character")
    return columns.value(_named(args[0], "like"), str).like(args[1])


def _is_null(args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    return columns.is_null(_named(args[0], "isNull"))


# --- Times ---------------------------------------------------------------------------------------

TEMPORAL = ("t_after", "t_before", "t_during", "t_disjoint", "t_equals", "t_intersects")


def _temporal(op: str, args: Sequence[Any], columns: Columns) -> ColumnElement[bool]:
    if op not in TEMPORAL:
        raise _unsupported(op)
    start, end = _span(args[0], columns)
    low, high = _bounds(args[1])
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


def _span(value: Any, columns: Columns) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """The property ``datetime``, or an interval of two properties."""
    name = _property(value)
    if name is not None and columns.kind(name) == "time":
        return columns.time(name), columns.time(name)
    ends = [_property(end) for end in value.get("interval", ())] if isinstance(value, Mapping) else []
    if ends == ["start_datetime", "end_datetime"]:
        return columns.interval()
    raise _invalid(
        "what a time is compared with must be the property 'datetime' or "
        "INTERVAL(start_datetime, end_datetime), and come first"
    )


def _bounds(value: Any) -> Bounds:
    text = _moment(value)
    if text is not None:
        moment = parse_instant(text)
        return moment, moment
    ends = value.get("interval") if isinstance(value, Mapping) else None
    if not isinstance(ends, list) or len(ends) != 2:
        raise _invalid("times are compared with TIMESTAMP('…') or INTERVAL('…', '…')")
    texts = [end if isinstance(end, str) else _moment(end) for end in ends]
    if None in texts:
        raise _invalid("the ends of an interval must be times or '..'")
    return parse_interval("/".join(str(text) for text in texts))
