"""`/process_graphs`: stored, listed, called in graphs with their parameters, shared; others' do not exist."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event
from werkzeug.test import TestResponse

from odc_openeo import db
from odc_openeo.app import create_app
from odc_openeo.config import Config
from odc_openeo.evaluation.synchronous import compute_result
from odc_openeo.users import accounts
from tests.api.conftest import API, PASSWORD, code
from tests.conftest import Site

Ask = Callable[..., TestResponse]
ANYTHING: dict[str, Any] = {}


@pytest.fixture
def odc_config(odc_config: Config) -> Config:
    """A service whose users may fetch what the tests' own web server has."""
    return odc_config.model_copy(update={"outgoing_allow": "127.0.0.1", "public_url": "http://localhost"})


class Asking:
    """Requests of a user."""

    def __init__(self, config: Config, name: str) -> None:
        token = accounts.issue_token(config, accounts.create_user(config, name, PASSWORD))
        self.headers = {"Authorization": f"Bearer basic//{token}"}
        self.client = create_app(config).test_client()

    def __call__(self, method: str, path: str, **more: Any) -> TestResponse:
        return self.client.open(f"{API}{path}", method=method, headers=self.headers, **more)


@pytest.fixture
def ada(odc_config: Config) -> Ask:
    return Asking(odc_config, "ada")


@pytest.fixture
def bob(odc_config: Config) -> Ask:
    return Asking(odc_config, "bob")


def node(process: str, arguments: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
    result = {"process_id": process, "arguments": arguments, "result": True}
    return result if namespace is None else {**result, "namespace": namespace}


def graph(process: str, arguments: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
    return {"process_graph": {"n": node(process, arguments, namespace)}}


def parameter(name: str, schema: Any = ANYTHING, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": "", "schema": schema, **more}


def given(name: str) -> dict[str, str]:
    return {"from_parameter": name}


def plus(y: Any = None) -> dict[str, Any]:
    """A process that adds ``y`` to its parameter ``x``."""
    return {**graph("add", {"x": given("x"), "y": y}), "parameters": [parameter("x", {"type": "number"})]}


def store(ask: Ask, id_: str, process: dict[str, Any], **more: Any) -> None:
    answer = ask("PUT", f"/process_graphs/{id_}", json={**process, **more})
    assert answer.status_code == 200, answer.get_json()


def result(ask: Ask, process: dict[str, Any]) -> Any:
    answer = ask("POST", "/result", json={"process": process})
    assert answer.status_code == 200, answer.get_json()
    return json.loads(answer.data)


def refusal(ask: Ask, process: dict[str, Any]) -> tuple[str, str]:
    answer = ask("POST", "/result", json={"process": process})
    assert answer.status_code == 400
    return code(answer), answer.get_json()["message"]


def canonical(ask: Ask, id_: str) -> str:
    links = ask("GET", f"/process_graphs/{id_}").get_json()["links"]
    return next(link["href"] for link in links if link["rel"] == "canonical")


# --- Storing -------------------------------------------------------------------------------------


def test_a_process_comes_back_as_it_was(ada: Ask) -> None:
    document = {
        **plus(1),
        "id": "another",
        "summary": "One more",
        "description": "*One* more",
        "returns": {"schema": {"type": "number"}},
        "categories": ["math"],
        "exceptions": {"TooMuch": {"message": "no"}},
        "examples": [{"arguments": {"x": 1}, "returns": 2}],
        "links": [{"rel": "license", "href": "https://example.org/licence"}],
        "own": {"kept": True},
    }
    store(ada, "increment", document)
    document = ada("GET", "/process_graphs/increment").get_json()
    assert document == {**document, "id": "increment", "public": False}
    (listed,) = ada("GET", "/process_graphs").get_json()["processes"]
    assert listed["id"] == "increment"
    assert listed["parameters"] == document["parameters"]
    assert not {"process_graph", "examples", "exceptions", "links"} & set(listed)


def test_replaced_and_deleted(ada: Ask) -> None:
    store(ada, "p", plus(1), summary="old", description=None)
    assert "description" not in ada("GET", "/process_graphs/p").get_json()
    store(ada, "p", plus(2))
    document = ada("GET", "/process_graphs/p").get_json()
    assert "summary" not in document
    assert document["process_graph"] == plus(2)["process_graph"]
    assert ada("DELETE", "/process_graphs/p").status_code == 204
    for method in ("GET", "DELETE"):
        answer = ada(method, "/process_graphs/p")
        assert (answer.status_code, code(answer)) == (404, "ProcessGraphNotFound")
    assert ada("GET", "/process_graphs").get_json() == {"processes": [], "links": []}


def test_stored_processes_are_listed_in_pages(ada: Ask) -> None:
    for name in ("c", "a", "b", "Z", "d"):
        store(ada, name, plus(1))
    items, query = [], "limit=2"
    while query:
        page = ada("GET", f"/process_graphs?{query}").get_json()
        assert len(page["processes"]) <= 2
        items += [p["id"] for p in page["processes"]]
        query = "".join(urlsplit(link["href"]).query for link in page["links"] if link["rel"] == "next")
    assert items == [p["id"] for p in ada("GET", "/process_graphs").get_json()["processes"]]
    assert sorted(items) == ["Z", "a", "b", "c", "d"]
    assert code(ada("GET", "/process_graphs?limit=0")) == "RequestInvalid"


@pytest.mark.parametrize(
    ("id_", "body", "expected"),
    [
        ("p", {}, "ProcessGraphMissing"),
        ("p", {"process_graph": None}, "ProcessGraphMissing"),
        ("p", {"process_graph": {}}, "ProcessGraphInvalid"),
        ("p", {"process_graph": {"n": {"process_id": "add"}}}, "ProcessGraphInvalid"),
        ("p", {"process_graph": {"n": {"process_id": "a-b", "arguments": {}}}}, "ProcessGraphInvalid"),
        ("p", {"process_graph": {"n": 3}}, "ProcessGraphInvalid"),
        ("p", graph("add", {"x": {"from_node": "m"}, "y": 1}), "ProcessGraphInvalid"),
        ("p", {**plus(1), "parameters": {}}, "RequestInvalid"),
        ("p", {**plus(1), "parameters": ["x"]}, "RequestInvalid"),
        ("p", {**plus(1), "parameters": [parameter("x"), parameter("x")]}, "RequestInvalid"),
        ("p", {**plus(1), "summary": 3}, "RequestInvalid"),
        ("p", {**plus(1), "links": {}}, "RequestInvalid"),
        ("p", {**plus(1), "public": "yes"}, "RequestInvalid"),
        ("p", plus(float("nan")), "RequestInvalid"),
        ("a-b", plus(1), "RequestInvalid"),
        ("x" * 201, plus(1), "RequestInvalid"),
    ],
)
def test_invalid_stored_processes_are_refused(
    ada: Ask, id_: str, body: dict[str, Any], expected: str
) -> None:
    answer = ada("PUT", f"/process_graphs/{id_}", data=json.dumps(body), content_type="application/json")
    assert (answer.status_code, code(answer)) == (400, expected)
    assert ada("GET", "/process_graphs").get_json()["processes"] == []


def test_incomplete_process_can_be_stored(ada: Ask) -> None:
    store(ada, "without_argument", graph("add", {"x": 1}))
    store(ada, "calls_a_later_one", graph("later", {"x": 1}))
    store(
        ada, "without_result", {"process_graph": {"absolute2": {"process_id": "absolute", "arguments": {}}}}
    )
    assert refusal(ada, graph("without_result", {}))[0] == "ProcessGraphInvalid"
    assert refusal(ada, graph("without_argument", {}))[0] == "ProcessParameterRequired"
    assert refusal(ada, graph("calls_a_later_one", {}))[0] == "ProcessUnsupported"
    store(ada, "later", plus(1))
    assert result(ada, graph("calls_a_later_one", {})) == 2


def test_null_of_optional_members_is_absent_wherever_it_stands(ada: Ask) -> None:
    schema = {
        "type": "number",
        "subtype": None,
        "minimum": None,
        "enum": None,
        "items": None,
        "default": None,
    }
    n = {**node("add", {"x": given("x"), "y": None}), "description": None, "namespace": None}
    document = {
        "summary": None,
        "categories": None,
        "process_graph": {"n": n},
        "parameters": [
            {"name": "x", "description": "", "schema": schema, "optional": None, "deprecated": None}
        ],
        "returns": {"description": None, "schema": {"type": "number", "pattern": None}},
        "links": [{"rel": "about", "href": "https://example.org", "type": None, "title": None}],
        "exceptions": {"TooMuch": {"message": "no", "http": None}},
        "public": None,
    }
    store(ada, "p", document)
    described = ada("GET", "/process_graphs/p").get_json()
    assert described["parameters"] == [
        {"name": "x", "description": "", "schema": {"type": "number", "default": None}}
    ]
    assert described["returns"] == {"schema": {"type": "number"}}
    assert described["links"] == [{"rel": "about", "href": "https://example.org"}]
    assert described["exceptions"] == {"TooMuch": {"message": "no"}}
    assert described["process_graph"] == {"n": node("add", {"x": given("x"), "y": None})}
    assert not {"summary", "categories"} & described.keys()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"parameters": [{"name": None, "description": "", "schema": {}}]},
            ["'parameters.0.name'", "a string", "null"],
        ),
        ({"parameters": [{"name": "x", "schema": {}}]}, ["'parameters.0.description' is missing"]),
        (
            {"parameters": [parameter("x", {"type": "raster"})]},
            ["'parameters.0.schema.type'", "'integer'", "'raster'"],
        ),
        ({"parameters": [parameter("x", 5)]}, ["'parameters.0.schema' must be an object or an array, not 5"]),
        ({"parameters": [parameter("x y")]}, ["'parameters.0.name' must be letters, digits", "'x y'"]),
        (
            {"parameters": [parameter("x", {"items": {"minItems": -1}})]},
            ["'parameters.0.schema.items.minItems'", "-1"],
        ),
        ({"returns": {"schema": [{"pattern": "("}]}}, ["'returns.schema.0.pattern'", "regular expression"]),
        ({"links": [{"rel": "a", "href": "no url"}]}, ["'links.0.href' must be a URL", "'no url'"]),
        ({"deprecated": "yes"}, ["'deprecated' must be true or false, not 'yes'"]),
    ],
)
def test_refusals_say_where_and_what_in_plain_words(ada: Ask, body: dict[str, Any], words: list[str]) -> None:
    answer = ada("PUT", "/process_graphs/p", json={**plus(1), **body})
    assert answer.status_code == 400
    message = answer.get_json()["message"]
    assert all(word in message for word in words), message
    assert not any(mark in message for mark in ("function-", "Model", "Input should", "list[", "_not_null"))


def test_others_processes_do_not_exist(ada: Ask, bob: Ask, client: FlaskClient) -> None:
    store(ada, "p", plus(1))
    for method in ("GET", "DELETE"):
        assert code(bob(method, "/process_graphs/p")) == "ProcessGraphNotFound"
    assert bob("GET", "/process_graphs").get_json()["processes"] == []
    assert refusal(bob, graph("p", {"x": 1}))[0] == "ProcessUnsupported"
    store(bob, "p", plus(100))
    assert result(ada, graph("p", {"x": 1})) == 2
    assert result(bob, graph("p", {"x": 1})) == 101
    bob("DELETE", "/process_graphs/p")
    assert result(ada, graph("p", {"x": 1})) == 2
    for method in ("GET", "PUT", "DELETE"):
        assert client.open(f"{API}/process_graphs/p", method=method).status_code == 401
    assert client.get(f"{API}/process_graphs").status_code == 401


# --- Calling -------------------------------------------------------------------------------------


def test_stored_process_parameters_are_validated(ada: Ask) -> None:
    defined = {
        **graph("array_create", {"data": [given("a"), given("b"), given("c"), given("d")]}),
        "parameters": [
            parameter("a"),
            parameter("b", default=7),
            parameter("c", optional=True),
            parameter("d", {"type": ["number", "null"]}, default=9, optional=True),
        ],
    }
    store(ada, "p", defined)
    assert result(ada, graph("p", {"a": 1})) == [1, 7, None, 9]
    assert result(ada, graph("p", {"a": None, "b": 2, "c": 3, "d": None})) == [None, 2, 3, None]
    assert refusal(ada, graph("p", {}))[0] == "ProcessParameterRequired"
    assert refusal(ada, graph("p", {"a": 1, "z": 1}))[0] == "ProcessParameterUnsupported"
    assert refusal(ada, graph("p", {"a": 1, "d": "text"}))[0] == "ProcessParameterInvalid"


def test_parameters_that_nobody_declared(ada: Ask) -> None:
    """Null says that parameters are unknown, an empty array that there are none."""
    child = graph("multiply", {"x": given("x"), "y": given("factor")})
    unknown = graph("array_apply", {"data": given("data"), "process": child})
    store(ada, "unknown", unknown, parameters=None)
    store(ada, "none", unknown, parameters=[])
    values = {"data": [1, 2], "factor": 10}
    assert result(ada, graph("unknown", values)) == [10, 20]
    assert refusal(ada, graph("unknown", {"data": [1]}))[0] == "ProcessParameterMissing"
    # What the child process is given is no parameter of the whole.
    assert refusal(ada, graph("unknown", {**values, "x": 1}))[0] == "ProcessParameterUnsupported"
    assert refusal(ada, graph("none", values))[0] == "ProcessParameterUnsupported"


def test_scopes_are_apart(ada: Ask) -> None:
    """A process sees its own parameters only, whatever those of the graph around are called."""
    store(ada, "p", {**graph("add", {"x": given("x"), "y": given("secret")}), "parameters": [parameter("x")]})
    outer = {
        **graph("array_apply", {"data": [1, 2], "process": graph("p", {"x": given("x")})}),
        "parameters": [parameter("secret", default=5)],
    }
    assert refusal(ada, outer)[0] == "ProcessParameterMissing"
    store(ada, "p", plus(5))
    assert result(ada, outer) == [6, 7]


def test_a_process_as_parameter(ada: Ask) -> None:
    schema = {"type": "object", "subtype": "process-graph", "parameters": [parameter("x")]}
    defined = {
        **graph("array_apply", {"data": given("data"), "process": given("do")}),
        "parameters": [parameter("data"), parameter("do", schema)],
    }
    store(ada, "each", defined)
    assert result(ada, graph("each", {"data": [1, 2], "do": graph("add", {"x": given("x"), "y": 1})})) == [
        2,
        3,
    ]


def test_calls_of_calls(ada: Ask) -> None:
    store(ada, "inner", plus(1))
    store(ada, "outer", {**graph("inner", {"x": given("y")}), "parameters": [parameter("y")]})
    twice = {
        "a": {"process_id": "outer", "arguments": {"y": 1}},
        "b": node("outer", {"y": {"from_node": "a"}}),
    }
    assert result(ada, {"process_graph": twice}) == 3
    broken = {**graph("inner", {"x": "text"}), "parameters": [parameter("y")]}
    store(ada, "outer", broken)
    kind, message = refusal(ada, graph("outer", {"y": 1}))
    assert kind == "ProcessParameterInvalid"
    assert "'n.n'" in message


def test_namespaces(ada: Ask) -> None:
    store(ada, "add", {**graph("subtract", {"x": given("x"), "y": given("y")}), "parameters": None})
    values = {"x": 3, "y": 2}
    assert result(ada, graph("add", values)) == 1
    assert result(ada, graph("add", values, "user")) == 1
    assert result(ada, graph("add", values, "backend")) == 5
    for namespace in ("elsewhere", "ftp://example.org/add", ""):
        assert refusal(ada, graph("add", values, namespace))[0] == "ProcessUnsupported"
    assert refusal(ada, graph("multiply", values, "user"))[0] == "ProcessUnsupported"


def test_stored_process_overrides_optimised_process_of_same_name(ada: Ask) -> None:
    """Reducers and conditions that are recognised by their name are what the user has made of them."""
    store(ada, "mean", {**graph("max", {"data": given("data")}), "parameters": [parameter("data")]})
    labeled = graph("array_create_labeled", {"data": [1.0, 2.0, 6.0], "labels": ["a", "b", "c"]})
    created = {**labeled["process_graph"]["n"], "result": False}
    process = {"made": created, "n": node("mean", {"data": {"from_node": "made"}})}
    assert result(ada, {"process_graph": process}) == 6.0


def test_recursion_is_refused(ada: Ask) -> None:
    assert code(ada("PUT", "/process_graphs/a", json=graph("a", {}))) == "ProcessGraphInvalid"
    child = graph("array_apply", {"data": [1], "process": graph("a", {})})
    assert code(ada("PUT", "/process_graphs/a", json=child)) == "ProcessGraphInvalid"
    # The predefined one can be called all the same.
    store(ada, "add", graph("add", {"x": 1, "y": 1}, "backend"))
    assert result(ada, graph("add", {})) == 2
    ada("DELETE", "/process_graphs/add")
    store(ada, "a", graph("b", {}))
    store(ada, "b", graph("c", {}))
    answer = ada("PUT", "/process_graphs/c", json=graph("a", {}))
    assert code(answer) == "ProcessGraphInvalid"
    assert "calls itself" in answer.get_json()["message"]
    store(ada, "c", plus(1))
    assert result(ada, {"process_graph": {"n": node("c", {"x": 1})}}) == 2


def test_a_few_processes_cannot_make_huge_graphs(ada: Ask) -> None:
    """Ten calls of ten calls of …: what a graph would evaluate is counted before it is."""
    nodes = {f"n{i}": {"process_id": "add", "arguments": {"x": 1, "y": 1}} for i in range(9)}
    store(ada, "p0", {"process_graph": {**nodes, "n": node("add", {"x": 1, "y": 1})}})
    answer = None
    for level in range(1, 8):
        calls = {f"n{i}": {"process_id": f"p{level - 1}", "arguments": {}} for i in range(9)}
        whole = {"process_graph": {**calls, "n": node(f"p{level - 1}", {})}}
        answer = ada("PUT", f"/process_graphs/p{level}", json=whole)
        if answer.status_code != 200:
            break
    assert answer is not None
    assert code(answer) == "ProcessGraphComplexity"


def test_depth_adds_up(ada: Ask, odc_config: Config) -> None:
    """A process that was met where there is room is not let in where there is none."""

    def nested(levels: int, innermost: dict[str, Any]) -> dict[str, Any]:
        for _ in range(levels):
            innermost = graph("array_apply", {"data": [1], "process": innermost})
        return innermost

    half = odc_config.max_graph_depth // 2
    store(ada, "deep", nested(half, graph("add", {"x": 1, "y": 1})), parameters=[])
    calls = nested(half + 2, graph("deep", {}))["process_graph"]["n"]
    shallow = {"process_id": "deep", "arguments": {}}
    answer = ada("POST", "/result", json={"process": {"process_graph": {"a": shallow, "n": calls}}})
    assert code(answer) == "ProcessGraphComplexity"


def test_database_is_queried_once_for_all_nodes(odc_config: Config, tmp_path: Path) -> None:
    nodes = {f"n{i}": {"process_id": "add", "arguments": {"x": 1, "y": i}} for i in range(300)}
    queries: list[str] = []
    engine = db.get_engine(odc_config)

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        queries.extend([statement] if "stored_processes" in statement else [])

    event.listen(engine, "before_cursor_execute", note)
    try:
        process = {"process_graph": {**nodes, "n": node("add", {"x": 1, "y": 1})}}
        # In this process, where the statements can be seen; runners do the same.
        download, _ = compute_result(odc_config, process, str(uuid4()), tmp_path)
        assert json.loads(download.files["result.json"].read_text()) == 2
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert len(queries) == 1


def test_validation_knows_them(ada: Ask, client: FlaskClient) -> None:
    store(ada, "p", plus(1))

    def find_codes(ask: Ask, process: dict[str, Any]) -> list[str]:
        return [e["code"] for e in ask("POST", "/validation", json=process).get_json()["errors"]]

    assert find_codes(ada, graph("p", {"x": 1})) == []
    assert find_codes(ada, graph("p", {"x": "text"})) == ["ProcessParameterInvalid"]
    assert find_codes(ada, graph("p", {"x": 1}, "http://127.0.0.1:1/x")) == ["UrlUnreachable"]
    unsigned = client.post(f"{API}/validation", json=graph("p", {"x": 1})).get_json()["errors"]
    assert [e["code"] for e in unsigned] == ["ProcessUnsupported"]


def test_jobs_and_estimates(ada: Ask) -> None:
    store(ada, "p", plus(1))
    job = ada("POST", "/jobs", json={"process": graph("p", {"x": 1})}).headers["OpenEO-Identifier"]
    assert ada("GET", f"/jobs/{job}/estimate").get_json()["size"] > 0
    ada("DELETE", "/process_graphs/p")
    assert ada("GET", f"/jobs/{job}").status_code == 200
    assert code(ada("GET", f"/jobs/{job}/estimate")) == "ProcessUnsupported"


# --- Sharing -------------------------------------------------------------------------------------


def test_public_processes(ada: Ask, bob: Ask, client: FlaskClient) -> None:
    store(ada, "p", plus(1), public=True)
    address = canonical(ada, "p")
    shown = client.get(urlsplit(address).path)
    assert shown.status_code == 200
    assert shown.get_json()["process_graph"] == plus(1)["process_graph"]
    assert "ada" not in shown.get_data(as_text=True)
    assert result(bob, graph("p", {"x": 1}, address)) == 2
    assert refusal(bob, graph("q", {"x": 1}, address))[0] == "ProcessNamespaceInvalid"
    assert refusal(bob, graph("p", {"x": 1}))[0] == "ProcessUnsupported"
    # Changes are seen, the address stays; what is no longer public is gone.
    store(ada, "p", plus(10), public=True)
    assert canonical(ada, "p") == address
    assert result(bob, graph("p", {"x": 1}, address)) == 11
    store(ada, "p", plus(10))
    assert client.get(urlsplit(address).path).status_code == 404
    assert refusal(bob, graph("p", {"x": 1}, address))[0] == "ProcessNamespaceInvalid"


def test_public_processes_call_only_public_ones(ada: Ask) -> None:
    store(ada, "private", plus(1))
    answer = ada("PUT", "/process_graphs/p", json={**graph("private", {"x": 1}), "public": True})
    assert code(answer) == "ProcessGraphInvalid"
    store(ada, "private", plus(1), public=True)
    store(ada, "p", graph("private", {"x": 1}, canonical(ada, "private")), public=True)


# --- Processes on the web ------------------------------------------------------------------------


def test_processes_by_address(ada: Ask, site: Site) -> None:
    (site.folder / "one.json").write_text(json.dumps({**plus(1), "id": "inc"}))
    listed = {"processes": [{"id": "other"}, {**plus(2), "id": "inc"}], "links": []}
    (site.folder / "list.json").write_text(json.dumps(listed))
    one, several = f"{site.root}/one.json", f"{site.root}/list.json"
    assert result(ada, graph("inc", {"x": 1}, one)) == 2
    assert result(ada, graph("inc", {"x": 1}, several)) == 3
    for name, address in (("dec", one), ("dec", several), ("other", several)):
        kind, message = refusal(ada, graph(name, {"x": 1}, address))
        assert kind == "ProcessNamespaceInvalid"
        assert address in message
    assert refusal(ada, graph("inc", {"x": 1}, f"{site.root}/none.json"))[0] == "UrlUnreachable"
    (site.folder / "text.json").write_text("text")
    assert refusal(ada, graph("inc", {}, f"{site.root}/text.json"))[0] == "UrlUnreachable"


def test_processes_by_address_use_only_predefined_ones(ada: Ask, site: Site) -> None:
    store(ada, "mine", plus(1))
    store(ada, "add", {**graph("subtract", {"x": given("x"), "y": given("y")}), "parameters": None})
    (site.folder / "p.json").write_text(json.dumps({**graph("add", {"x": 1, "y": 1}), "id": "p"}))
    (site.folder / "q.json").write_text(json.dumps({**graph("mine", {"x": 1}), "id": "q"}))
    assert result(ada, graph("p", {}, f"{site.root}/p.json")) == 2
    assert refusal(ada, graph("q", {}, f"{site.root}/q.json"))[0] == "ProcessUnsupported"


def test_recursion_by_address_is_refused(ada: Ask, site: Site) -> None:
    first, second = f"{site.root}/a.json", f"{site.root}/b.json"
    (site.folder / "a.json").write_text(json.dumps({**graph("b", {}, second), "id": "a"}))
    (site.folder / "b.json").write_text(json.dumps({**graph("a", {}, first), "id": "b"}))
    kind, message = refusal(ada, graph("a", {}, first))
    assert kind == "ProcessGraphInvalid"
    assert "calls itself" in message


def test_the_policy_holds_for_addresses(bearer: dict[str, str], odc_config: Config, site: Site) -> None:
    (site.folder / "p.json").write_text(json.dumps({**plus(1), "id": "p"}))
    closed = create_app(odc_config.model_copy(update={"outgoing_allow": ""})).test_client()
    for host in (site.root, "http://169.254.169.254", "http://10.0.0.1"):
        process = graph("p", {"x": 1}, f"{host}/p.json")
        answer = closed.post(f"{API}/result", json={"process": process}, headers=bearer)
        assert code(answer) == "UrlForbidden"
