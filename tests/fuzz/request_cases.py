"""Odd requests, made of the routes of the application and of values that something may stumble over."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

API = "/openeo/1.3"
UUID = "00000000-0000-4000-8000-000000000000"

STRINGS: Sequence[str] = (
    *(
        "",
        " ",
        "a",
        "0",
        "1",
        "-1",
        "+1",
        "1.5",
        "1e999",
        "NaN",
        "null",
        "true",
        "None",
        "[]",
        "{}",
        "..",
        ".",
    ),
    *(
        "../../etc/passwd",
        "a/b",
        "/",
        "//",
        "///evil.example",
        "\\\\evil.example",
        "http://evil.example/",
        "%",
    ),
    *("%00", "%s%n", "{0}", "{{7*7}}", "'", '"', "' OR 1=1 --", "<script>", "\\", "\\u0000", "a\0b", "\0"),
    *(
        "\ud800",
        "a\udfffb",
        "\ufffd",
        "é",
        "ｆ",
        "😀",
        "\u202e",
        "\ufeff",
        "٣",
        "１",
        "\r\n",
        "\t",
        "\x7f",
        "\x1b",
    ),
    *("x" * 300, "x" * 5000, "1" * 30, "1" * 400, "1" * 4400, "9223372036854775807", "9223372036854775808"),
    *("2147483648", UUID, UUID.upper(), "{" + UUID + "}", "0" * 32, "2022-06-01", "2022-06-01T00:00:00Z/.."),
    *(
        "0000-00-00T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "../..",
        "2022-06-31",
    ),
    *("99999-01-01T00:00:00Z", "2022-06-01T00:00:60Z", "2022-06-01T24:00:00Z", "P1Y", "P999999999999Y"),
    *(
        "EPSG:4326",
        "EPSG:99999999",
        "+proj=pipeline +step +init=/etc/passwd",
        "PROJCS[",
        "(" * 50,
        "[" * 2000,
    ),
)
NUMBERS: Sequence[Any] = (
    *(0, 1, -1, 2, 1.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf"), 2**31, 2**32),
    *(2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**307, 10**308, 10**309, 10**4000),
)
PLAIN: Sequence[Any] = (None, True, False, [], {}, [[]], [None], {"": None}, [{}], "x", 1)

GRAPH = {"add1": {"process_id": "add", "arguments": {"x": 1, "y": 2}, "result": True}}
POLYGON = {"type": "Polygon", "coordinates": [[[11, 46], [12, 46], [12, 47], [11, 46]]]}
CONDITION = {
    "op": "and",
    "args": [
        {"op": "<", "args": [{"property": "eo:cloud_cover"}, 50]},
        {"op": "isNull", "args": [{"property": "gsd"}]},
    ],
}
PLACE = {"op": "s_intersects", "args": [{"property": "geometry"}, POLYGON]}
TIME = {"op": "t_after", "args": [{"property": "datetime"}, {"timestamp": "2022-06-01T00:00:00Z"}]}
LOAD = {
    "load": {
        "process_id": "load_collection",
        "arguments": {
            "id": "tiny_s2",
            "spatial_extent": {"west": 11, "south": 46, "east": 12, "north": 47, "crs": 4326},
            "temporal_extent": ["2022-06-01", "2022-07-01"],
            "bands": ["B02"],
        },
    },
    "save": {
        "process_id": "save_result",
        "arguments": {"data": {"from_node": "load"}, "format": "GTiff", "options": {}},
        "result": True,
    },
}
BODIES: Sequence[tuple[str, Any]] = (
    (
        f"{API}/result",
        {
            "process": {"process_graph": GRAPH, "parameters": []},
            "budget": 1,
            "plan": None,
            "log_level": "info",
        },
    ),
    (
        f"{API}/validation",
        {
            "process_graph": LOAD,
            "parameters": [{"name": "a", "description": "b", "schema": {"type": "number"}}],
        },
    ),
    (
        f"{API}/jobs",
        {
            "process": {"process_graph": LOAD},
            "title": "t",
            "description": "d",
            "plan": None,
            "budget": 5,
            "log_level": "info",
            "extra": 1,
        },
    ),
    (
        f"{API}/services",
        {
            "process": {"process_graph": LOAD},
            "type": "xyz",
            "title": "t",
            "enabled": True,
            "configuration": {"tile_size": 256, "colormap": "viridis"},
            "budget": None,
        },
    ),
    (
        f"{API}/process_graphs/<process_graph_id>",
        {
            "process_graph": GRAPH,
            "id": "p1",
            "summary": "s",
            "description": "d",
            "parameters": [],
            "returns": {"schema": {"type": "number"}},
            "categories": ["a"],
            "deprecated": False,
            "public": True,
            "examples": [],
            "links": [],
            "exceptions": {},
        },
    ),
    (
        f"{API}/workspaces",
        {
            "id": "w2",
            "provider": "storage",
            "title": "t",
            "description": "d",
            "quota": 1000,
            "parameters": {},
        },
    ),
    (
        f"{API}/search",
        {
            "collections": ["tiny_s2"],
            "bbox": [11, 46, 12, 47],
            "datetime": "2022-06-01T00:00:00Z/..",
            "limit": 2,
            "ids": [UUID],
            "filter": CONDITION,
            "filter-lang": "cql2-json",
            "sortby": [{"field": "datetime", "direction": "desc"}],
            "fields": {"include": ["id"], "exclude": ["assets"]},
            "token": "abc",
        },
    ),
    (
        f"{API}/search",
        {
            "intersects": POLYGON,
            "filter": {"op": "or", "args": [PLACE, TIME, {"op": "not", "args": [CONDITION]}]},
        },
    ),
    (
        f"{API}/search",
        {
            "filter": {
                "op": "and",
                "args": [
                    {"op": "in", "args": [{"property": "id"}, ["a", 1]]},
                    {"op": "like", "args": [{"property": "platform"}, "s%_\\\\"]},
                    {"op": "between", "args": [{"property": "eo:cloud_cover"}, 1, 20]},
                ],
            }
        },
    ),
    (
        f"{API}/jobs/<job_id>",
        {
            "title": "t",
            "description": None,
            "process": {"process_graph": GRAPH},
            "budget": None,
            "log_level": "error",
        },
    ),
    (f"{API}/services/<service_id>", {"title": "t", "enabled": False, "configuration": {"tile_size": 512}}),
    (f"{API}/workspaces/<workspace_id>", {"title": "t", "description": "d", "quota": None}),
)
QUERY_NAMES: Sequence[str] = (
    *("limit", "after", "token", "offset", "level", "partial", "bbox", "intersects", "datetime", "ids"),
    *(
        "collections",
        "fields",
        "sortby",
        "filter",
        "filter-lang",
        "filter-crs",
        "page",
        "q",
        "to",
        "code",
        "state",
    ),
    *("error", "f", "unknown", "action", "time", "level"),
)
FRAGMENTS: Sequence[str] = (
    *(
        "(",
        "(",
        ")",
        "NOT ",
        " AND ",
        " OR ",
        "eo:cloud_cover",
        "datetime",
        "geometry",
        "id",
        "'a'",
        "1",
        "-1",
    ),
    *(
        " = ",
        " < ",
        " <> ",
        " + ",
        " - ",
        "*",
        "/",
        "^",
        " IN ",
        " LIKE ",
        " BETWEEN ",
        " IS NULL",
        " DIV ",
        ",",
    ),
    *(
        "S_INTERSECTS(geometry,",
        "POINT(1 2)",
        "POLYGON((0 0,1 0,1 1,0 0))",
        "BBOX(0,0,1,1)",
        "CASEI(",
        "ACCENTI(",
    ),
    *(
        "TIMESTAMP('2022-06-01T00:00:00Z')",
        "INTERVAL('..','..')",
        "T_AFTER(datetime,",
        "DATE('2022-06-01')",
        "f(",
    ),
    *("A_CONTAINS(", "'", '"', "\\", "TRUE", "GEOMETRYCOLLECTION(", "''", ";", "é", "1e999", "a.b", "[", "]"),
)
FILTERS: Sequence[str] = (
    *("eo:cloud_cover < 20", "eo:cloud_cover BETWEEN 1 AND 20 AND platform LIKE 's%'", "id IN ('a', 'b')"),
    *("S_INTERSECTS(geometry, POLYGON((11 46, 12 46, 12 47, 11 46)))", "NOT (eo:cloud_cover IS NULL)"),
    *(
        "T_DURING(datetime, INTERVAL('2022-06-01T00:00:00Z', '2022-07-01T00:00:00Z'))",
        "datetime > DATE('2022-06-01')",
    ),
)
HEADERS: Mapping[str, Sequence[str]] = {
    "Range": (
        "bytes=0-1",
        "items=0-1",
        "bytes=",
        "bytes=99999999-",
        "bytes=-0",
        "bytes=5-2",
        "bytes=0-1,3-4",
        "bytes=" + "9" * 4400 + "-",
        "bytes=--1",
        "=",
        "\xe9",
    ),
    "If-None-Match": ("*", '"a"', 'W/"', "a" * 3000, ",,,", '"\xe9"'),
    "If-Modified-Since": (
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Thu, 99 Xyz 99999 00:00:00 GMT",
        "x",
        "Mon, 01 Jan 0001 00:00:00 +2359",
    ),
    "If-Range": ('"a"', "W/", "Fri, 31 Dec 9999 23:59:59 -2359"),
    "Accept": (
        "text/html",
        "*/*;q=x",
        "a/b;q=1e999",
        ",;=",
        "application/json;q=\xe9",
        "/" * 2000,
        "text/html;q=" + "9" * 500,
    ),
    "Accept-Language": ("\xe9", "de;q=x"),
    "Accept-Encoding": ("gzip", "gzip;q=nan", "br;q=1e400,gzip;q=0", "*;q=0", "zstd", "identity;q=0"),
    "Host": (
        "evil.example",
        "evil.example:99999",
        "[::1",
        "a b",
        "\xe9",
        "",
        "x:y:z",
        "127.0.0.1:80@evil",
        "xn--\xff",
    ),
    "X-Forwarded-For": ("1.2.3.4", "evil, 1", "\xe9", "," * 500, "[::1]:80"),
    "X-Forwarded-Host": ("evil.example",),
    "X-Forwarded-Proto": ("https", "javascript"),
    "X-Request-Id": ("a" * 20, "\xe9" * 20, "x" * 500),
    "Origin": ("null", "https://evil.example", "http://[", "\xe9"),
    "Sec-Fetch-Site": ("cross-site", "same-origin"),
    "Cookie": (
        "openeo-session=abc",
        "openeo-visitor=",
        "a=%00",
        'openeo-session="\\000"',
        "=;=",
        "openeo-traveller=eyJhIjoxfQ.x.y",
        "\xe9=\xe9",
    ),
    "Content-Type": (
        "application/json",
        "text/plain",
        "application/json; charset=utf-16",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "a" * 500,
        "application/octet-stream",
    ),
    "Content-Encoding": ("gzip", "x"),
    "Access-Control-Request-Method": ("PUT", "\xe9"),
    "Expect": ("100-continue",),
    "Transfer-Encoding": ("chunked",),
}


@dataclass(frozen=True, repr=False)
class Site:
    """A service with something in it: where its tables are, who may come in, what there is."""

    database_url: str
    data_dir: str
    token: str
    session: str
    visitor: str
    form_key: str
    session_key: str
    values: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Case:
    """One request, as its bytes are on the wire."""

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = field(default=None, repr=True)


def generate_cases(
    site: Site, routes: Sequence[tuple[str, tuple[str, ...]]], count: int, seed: int
) -> Iterator[Case]:
    """Requests for these routes: patterns of paths with the methods that they know."""
    random = Random(seed)
    makers: Sequence[Callable[[], Case]] = (
        lambda: _plain_request(random, site, routes),
        lambda: _plain_request(random, site, routes),
        lambda: _json_request(random, site),
        lambda: _json_request(random, site),
        lambda: _search_request(random, site),
        lambda: _search_request(random, site),
        lambda: (
            _plain_request(random, site, routes) if random.random() < 0.7 else _form_request(random, site)
        ),
    )
    for _ in range(count):
        yield random.choice(makers)()


def _plain_request(random: Random, site: Site, routes: Sequence[tuple[str, tuple[str, ...]]]) -> Case:
    rule, methods = random.choice(routes)
    methods = (
        (*methods, "GET", "HEAD")
        if random.random() < 0.9
        else ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X")
    )
    method = random.choice(methods)
    path = _fill_path(random, site, rule, is_sound=random.random() < 0.4 and method != "DELETE")
    if random.random() < 0.05:
        path = random.choice(
            (
                "/" + path,
                path + "/",
                path.replace("/", "//"),
                path + "/..",
                path + "%2e%2e",
                path + "\xff",
                "*",
            )
        )
    query = _query(random, random.sample(QUERY_NAMES, random.randint(1, 3))) if random.random() < 0.5 else ""
    body = (
        _garble(random, random.choice((b"", b"{}", b"[]", b"x" * 2000, b"\0", b"a=b")))
        if method in ("POST", "PUT", "PATCH")
        else None
    )
    return Case(method, path, query, _headers(random, site), body)


def _fill_path(random: Random, site: Site, rule: str, *, is_sound: bool = False) -> str:
    def fill(match: re.Match[str]) -> str:
        values = site.values.get(match[2])
        if values and (is_sound or random.random() < 0.6):
            return quote(random.choice(values), safe="/")
        if match[1] == "int" and random.random() < 0.8:
            return random.choice(
                ("0", "1", "5", "30", "31", "1000000", "1" * 30, "1" * 400, "1" * 4400, "%D9%A3", "-1", "1.0")
            )
        return _quote(random.choice(STRINGS))

    return re.sub(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>", fill, rule)


def _quote(value: str) -> str:
    return quote(value.encode("utf-8", "surrogatepass"), safe="")


def _query(random: Random, names: Sequence[str]) -> str:
    parts = [f"{name}={_quote(_query_value(random, name))}" for name in names]
    if random.random() < 0.1:
        parts += random.choice(
            (["&&&"], ["%ff=%ff"], ["a"] * 500, parts, ["=x"], ["limit=%"], ["%00=1"], ["a[]=1"])
        )
    return "&".join(parts)


def _query_value(random: Random, name: str) -> str:
    if random.random() < 0.4:
        return random.choice(STRINGS)
    if name == "filter":
        return _filter_text(random) if random.random() < 0.7 else _write_json(_mutate(random, CONDITION))
    if name == "filter-lang":
        return random.choice(("cql2-text", "cql2-json", "x"))
    if name in ("bbox", "ids", "collections", "fields", "sortby"):
        return ",".join(
            random.choice(
                (
                    *map(str, NUMBERS[:16]),
                    "id",
                    "-datetime",
                    "+a",
                    "tiny_s2",
                    "x",
                    "",
                    "nan",
                    "11",
                    "46",
                    "12",
                    "47",
                )
            )
            for _ in range(random.choice((1, 2, 4, 4, 4, 6, 30)))
        )
    if name == "intersects":
        return _write_json(_mutate(random, POLYGON))
    if name == "datetime":
        return "/".join(
            random.choice(
                (
                    "2022-06-01",
                    "2022-06-01T00:00:00Z",
                    "..",
                    "",
                    "0000-01-01",
                    "9999-12-31T23:59:59.999999999Z",
                )
            )
            for _ in range(random.randint(1, 3))
        )
    if name == "token":
        cursor = random.choice(
            ([["datetime", "id"], "tiny_s2", ["2022-06-01T00:00:00+00:00", UUID]], [["id"], "x", [1]])
        )
        text = _write_json(_mutate(random, cursor))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return str(random.choice(NUMBERS[:20]))


def _filter_text(random: Random) -> str:
    kind = random.randrange(4)
    if kind == 0:
        return random.choice(FILTERS)
    if kind == 1:
        pieces = list(random.choice(FILTERS))
        for _ in range(random.randint(1, 3)):
            pieces.insert(random.randrange(len(pieces) + 1), random.choice(FRAGMENTS))
        return "".join(pieces)
    if kind == 2:
        piece, count = random.choice(FRAGMENTS), random.choice((5, 12, 20, 100, 2000))
        return piece * count + random.choice(FILTERS) + random.choice(("", ")" * count))
    return "".join(random.choice(FRAGMENTS) for _ in range(random.randint(1, 40)))


def _headers(random: Random, site: Site) -> tuple[tuple[str, str], ...]:
    headers = [
        (name, random.choice(HEADERS[name]))
        for name in random.sample(sorted(HEADERS), random.choice((0, 0, 1, 2, 4)))
    ]
    who = random.random()
    if who < 0.6:
        headers.append(("Authorization", f"Bearer basic//{site.token}"))
    elif who < 0.8:
        headers.append(("Authorization", _credentials(random)))
    if random.random() < 0.3:
        headers.append(("Cookie", f"openeo-session={site.session}"))
    return tuple(headers)


def _credentials(random: Random) -> str:
    name, password = random.choice(STRINGS), random.choice(STRINGS)
    basic = base64.b64encode(f"{name}:{password}".encode("utf-8", "surrogatepass")).decode()
    header = b'{"alg":"none"}', json.dumps({"iss": name, "sub": random.choice(NUMBERS[:5])}).encode()
    jwt = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*header, b"x"))
    return random.choice(
        (
            f"Basic {basic}",
            "Basic",
            "Basic \xe9",
            f"Basic {basic[:-3]}",
            "Bearer",
            "Bearer x",
            f"Bearer {jwt}",
            f"Bearer basic//{jwt}",
            f"Bearer oidc/x/{jwt}",
            "Bearer oidc//x",
            'Digest username="\xe9',
            "\xe9",
            "Bearer " + "x" * 5000,
        )
    )


# --- JSON --------------------------------------------------------------------------------------------------


def _json_request(random: Random, site: Site) -> Case:
    rule, body = random.choice(BODIES)
    method = "PUT" if "process_graphs/" in rule else "PATCH" if rule.endswith(">") else "POST"
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        body = _mutate(random, body)
    path = _fill_path(random, site, rule, is_sound=random.random() < 0.8)
    return Case(
        method,
        path,
        "",
        (("Content-Type", "application/json"), *_headers(random, site)),
        _garble(random, _encode(random, body)),
    )


def _search_request(random: Random, site: Site) -> Case:
    path = random.choice((f"{API}/search", f"{API}/collections/{site.values['collection_id'][0]}/items"))
    names = random.sample(
        (
            "filter",
            "filter-lang",
            "bbox",
            "intersects",
            "datetime",
            "ids",
            "collections",
            "sortby",
            "fields",
            "limit",
            "token",
        ),
        random.choice((1, 1, 2, 3)),
    )
    if random.random() < 0.5:
        return Case("GET", path, _query(random, names))
    body = {"filter": _filter_text(random), "filter-lang": "cql2-text"}
    return Case("POST", f"{API}/search", "", (("Content-Type", "application/json"),), _encode(random, body))


def _mutate(random: Random, value: Any) -> Any:
    """A copy in which something is replaced, removed, renamed, repeated or nested."""
    try:
        value = copy.deepcopy(value)
    except RecursionError:
        return value
    places = list(_places(value))
    if not places:
        return _odd_value(random)
    parent, key = random.choice(places)
    kind = random.randrange(7)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[random.choice(STRINGS)] = parent.pop(key)
    elif kind == 2:
        parent[key] = [parent[key]] * random.choice((1, 2, 300))
    elif kind == 3:
        for _ in range(random.choice((1, 5, 40, 700))):
            parent[key] = [parent[key]] if random.random() < 0.5 else {"op": "not", "args": [parent[key]]}
    elif kind == 4 and len(places) > 1:
        other, name = random.choice(places)
        parent[key] = copy.deepcopy(other[name])
    else:
        parent[key] = _odd_value(random)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    waiting = [value]
    while waiting:
        outer = waiting.pop()
        members = (
            outer.items() if isinstance(outer, dict) else enumerate(outer) if isinstance(outer, list) else ()
        )
        for key, member in members:
            yield outer, key
            waiting.append(member)


def _odd_value(random: Random) -> Any:
    return random.choice(random.choice((STRINGS, NUMBERS, PLAIN)))


def _encode(random: Random, body: Any) -> bytes:
    return _write_json(body, ensure_ascii=random.random() < 0.7).encode("utf-8", "surrogatepass")


def _write_json(value: Any, *, ensure_ascii: bool = True) -> str:
    try:
        return json.dumps(value, ensure_ascii=ensure_ascii)
    except (ValueError, RecursionError):
        return "[" * 5000


def _garble(random: Random, content: bytes) -> bytes:
    if random.random() < 0.85 or not content:
        return content
    place = random.randrange(len(content))
    return random.choice(
        (
            content[:place],
            content[:place] + bytes([random.randrange(256)]) + content[place + 1 :],
            b"\xef\xbb\xbf" + content,
            content.decode("latin-1").encode("utf-16"),
            content + content,
        )
    )


def _form_request(random: Random, site: Site) -> Case:
    key, cookie = random.choice(
        (
            (site.form_key, f"openeo-visitor={site.visitor}"),
            (site.session_key, f"openeo-session={site.session}"),
            ("x", ""),
        )
    )
    rule = random.choice(
        ("/sign-in", "/sign-in", "/sign-out", "/my/jobs/<job_id>/<action>", "/my/jobs/<job_id>/start")
    )
    fields = {
        "form_key": key,
        "name": random.choice(STRINGS),
        "password": random.choice(STRINGS),
        "to": random.choice(STRINGS),
    }
    if random.random() < 0.3:
        fields[random.choice(STRINGS)] = random.choice(STRINGS)
    encoded = urlencode({_quote(name): "" for name in ()}) + "&".join(
        f"{_quote(n)}={_quote(v)}" for n, v in fields.items()
    )
    type_ = (
        "application/x-www-form-urlencoded" if random.random() < 0.95 else "multipart/form-data; boundary=x"
    )
    headers = (("Content-Type", type_), ("Cookie", cookie))
    return Case("POST", _fill_path(random, site, rule, is_sound=True), "", headers, encoded.encode())
