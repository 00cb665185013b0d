"""Both index drivers of Open Data Cube, by a user with no more than the right to read; and what is said when
an index cannot be read."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_plus
from uuid import uuid4

import numpy as np
import pytest
import rasterio
import requests
from PIL import Image
from pydantic import SecretStr
from sqlalchemy import text

import odc_openeo.processes  # noqa: F401  (registers the processes that graphs use)
from odc_openeo import cli, cube, db
from odc_openeo.app import create_app
from odc_openeo.catalog import Catalog, ItemQuery, parse_bbox, parse_filter
from odc_openeo.catalog.index_check import check_index
from odc_openeo.catalog.odc_index import IndexConnection
from odc_openeo.config import Config
from odc_openeo.db import migrate
from odc_openeo.graph import evaluate
from odc_openeo.registry.environment import Environment, RunLimits
from odc_openeo.stack.postgres import Postgres
from odc_openeo.users import accounts
from tests.catalog.conftest import SERVERS, Site
from tests.catalog.scenes import PRODUCT, Index, scene
from tests.conftest import start_stack
from tests.services.conftest import load
from tests.support.waiting import wait_for

DATES = ("2022-06-01T10:00:00Z", "2022-06-04T10:00:00Z", "2022-08-04T10:00:00Z")
PASSWORD = "s3cret:of/the@reader"


@pytest.fixture
def documents(site: Site, tmp_path: Path) -> list[dict[str, Any]]:
    """The documents of three indexed scenes, two of them in June."""
    index = Index()
    index.add_product(PRODUCT)
    root = [
        scene(tmp_path / f"s{seed}", seed, time, eo__cloud_cover=10.0 * seed)
        for seed, time in enumerate(DATES, start=1)
    ]
    index.add(*root)
    index.datacube.close()
    return root


@pytest.fixture
def reader(site: Site, documents: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The index is read by a user with the least rights; their name."""
    name = f"reader_{uuid4().hex[:8]}"
    site.run(
        f"CREATE ROLE {name} LOGIN",
        f"GRANT USAGE ON SCHEMA {site.schema} TO {name}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {site.schema} TO {name}",
    )
    monkeypatch.setenv("ODC_DEFAULT_DB_URL", name_user(site.url, name))
    yield name
    site.run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def name_user(url: str, user: str, password: str = "") -> str:
    """The address with another user."""
    rest = url.split("@", 1)[1]
    return f"postgresql://{user}{':' + quote_plus(password) if password else ''}@{rest}"


def find_ids(catalog: Catalog, **query: Any) -> list[str]:
    page = catalog.search_items(ItemQuery(limit=10, **query), "", lambda *_: None)
    json.dumps(page.items, allow_nan=False)
    return [item["properties"]["datetime"][:10] for item in page.items]


def test_a_reader_lists_searches_and_loads(
    site: Site, documents: list[dict[str, Any]], reader: str, tmp_path: Path
) -> None:
    catalog = Catalog(site.config)
    (collection,) = catalog.list_collections()
    assert collection["extent"]["temporal"]["interval"] == [["2022-06-01T10:00:00Z", "2022-08-04T10:00:00Z"]]
    assert collection["cube:dimensions"]["x"]["extent"] == [600000, 600800]
    assert catalog.get_summary("tiny_s2").count == 3
    assert catalog.count_by_month("tiny_s2") == {"2022-06": 2, "2022-07": 0, "2022-08": 1}
    assert find_ids(catalog) == ["2022-08-04", "2022-06-04", "2022-06-01"]
    west, south, east, north = collection["extent"]["spatial"]["bbox"][0]
    assert len(find_ids(catalog, area=parse_bbox([west, south, east, north]))) == 3
    assert find_ids(catalog, area=parse_bbox([east + 1, south, east + 2, north])) == []
    cloudy = parse_filter('"eo:cloud_cover" > 15', "cql2-text")
    assert find_ids(catalog, filter=cloudy) == ["2022-08-04", "2022-06-04"]
    assert catalog.get_queryables("tiny_s2")["properties"].keys() >= {"eo:cloud_cover", "datetime"}
    assert catalog.find_preview_scene("tiny_s2") is not None

    condition = {"process_id": "lt", "arguments": {"x": {"from_parameter": "value"}, "y": 15}, "result": True}
    box = {"west": 600100, "south": 5199600, "east": 600200, "north": 5199700, "crs": 32632}
    node = load(
        spatial_extent=box,
        temporal_extent=["2022-06-01", "2022-07-01"],
        bands=["B04"],
        properties={"eo:cloud_cover": {"process_graph": {"c": condition}}},
    )
    data = evaluate(
        {"process_graph": {"load": {**node, "result": True}}}, Environment(catalog, limits=RunLimits())
    )
    with rasterio.open(tmp_path / "s1" / "B04.tif") as file:
        window = file.window(600100, 5199600, 600200, 5199700)
        expected = file.read(1, window=window)
    assert [str(t)[:10] for t in data.t.values] == ["2022-06-01"]
    np.testing.assert_array_equal(data.squeeze(("t", "bands")).values, expected)
    assert cube.nodata(data) == 0
    catalog.close()


def test_a_reader_sees_what_changes(site: Site, documents: list[dict[str, Any]], reader: str) -> None:
    catalog = Catalog(site.config)
    assert len(find_ids(catalog)) == 3
    owner = Index.of(site.url, site.driver)
    owner.archive(documents[2])
    assert catalog.get_summary("tiny_s2").time[1].month == 6
    assert catalog.count_by_month("tiny_s2") == {"2022-06": 2}
    owner.restore(documents[2])
    assert catalog.get_summary("tiny_s2").count == 3
    changed = json.loads(json.dumps(documents[0]))
    changed["properties"]["datetime"] = "2021-01-01T00:00:00Z"
    owner.update(changed)
    assert catalog.get_summary("tiny_s2").time[0].year == 2021
    owner.datacube.close()
    catalog.close()


def test_a_reader_suffices_for_tiles(site: Site, documents: list[dict[str, Any]], reader: str) -> None:
    client = create_app(site.config).test_client()
    token = accounts.issue_token(site.config, accounts.create_user(site.config, "ada", "correct horse"))
    bearer = {"Authorization": f"Bearer basic//{token}"}
    graph = {"load": {**load(bands=["B04"], temporal_extent=["2022-06-01", "2022-06-02"]), "result": True}}
    body = {"type": "XYZ", "process": {"process_graph": graph}}
    created = client.post("/openeo/1.3/services", json=body, headers=bearer)
    assert created.status_code == 201, created.get_json()
    id_ = created.headers["OpenEO-Identifier"]
    url = client.get(f"/openeo/1.3/services/{id_}", headers=bearer).get_json()["url"]
    path = url.removeprefix("http://localhost").replace("{z}/{x}/{y}", "14/8663/5749")
    answer = client.get(path)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert Image.open(io.BytesIO(answer.data)).size == (256, 256)


# --- What is said when something is wrong --------------------------------------------------------


def describe_failure(config: Config, site: Site) -> str:
    """Return what the check of the index says: one line without the password."""
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the text is compared)
        check_index(config)
    said = str(error.value)
    assert "\n" not in said
    assert PASSWORD not in said
    return said.replace(site.database, "DB")


def test_an_index_that_is_well(site: Site, documents: list[dict[str, Any]], reader: str) -> None:
    said = check_index(site.config)
    assert said == f"Open Data Cube is reachable: driver {site.driver}, 1 products"


def test_an_index_without_tables(site: Site) -> None:
    site.run(f"DROP SCHEMA {site.schema} CASCADE")
    assert describe_failure(site.config, site) == (
        "The database 'DB' has no index of Open Data Cube. Run `datacube system init`, or correct "
        "ODC_DEFAULT_DB_URL."
    )


def test_an_index_of_the_other_driver(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (other,) = SERVERS.keys() - {site.driver}
    monkeypatch.setenv("ODC_DEFAULT_INDEX_DRIVER", other)
    assert describe_failure(site.config, site) == (
        f"The database 'DB' has an index of the driver {site.driver}, not of {other}. Set "
        f"ODC_DEFAULT_INDEX_DRIVER={site.driver}, or run `datacube system init`."
    )


def test_an_index_of_an_older_open_data_cube(site: Site) -> None:
    site.run(f"ALTER TABLE {site.schema}.dataset DROP COLUMN updated CASCADE")
    assert describe_failure(site.config, site) == (
        "The index in database 'DB' has tables of an older Open Data Cube. Run `datacube -v system init`."
    )


@pytest.mark.parametrize("site", ["postgis"], indirect=True)
@pytest.mark.parametrize(
    ("revision", "said"),
    [
        (
            "48fb71ece268",
            "tables of an older Open Data Cube (48fb71ece268). Run `datacube -v system init`.",
        ),
        ("ffffffffffff", "tables of a newer Open Data Cube (ffffffffffff). Upgrade the package datacube."),
    ],
)
def test_an_index_of_another_version(site: Site, revision: str, said: str) -> None:
    site.run(f"UPDATE odc.alembic_version SET version_num = '{revision}'")
    assert describe_failure(site.config, site) == f"The index in database 'DB' has {said}"


def test_an_index_that_is_closed_to_the_user(site: Site, reader: str) -> None:
    table = "metadata_type" if site.driver == "postgres" else "alembic_version"
    site.run(f"REVOKE SELECT ON {site.schema}.{table} FROM {reader}")
    assert describe_failure(site.config, site) == (
        f"The user '{reader}' may not read the index (table {site.schema}.{table}). As its owner, run "
        f'`GRANT USAGE ON SCHEMA {site.schema} TO "{reader}"; '
        f'GRANT SELECT ON ALL TABLES IN SCHEMA {site.schema} TO "{reader}"`.'
    )


@pytest.mark.parametrize("site", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"ODC_DEFAULT_DB_URL": f"postgresql://me:{quote_plus(PASSWORD)}@127.0.0.1:1/d"},
            "The index of Open Data Cube: no PostgreSQL answers at 127.0.0.1:1 (Connection refused). Start "
            "it, or correct ODC_DEFAULT_DB_URL.",
        ),
        (
            {"ODC_DEFAULT_DB_URL": "postgresql://me@no-such-host.invalid/d"},
            "The index of Open Data Cube: no PostgreSQL answers at no-such-host.invalid:5432 (could not "
            'translate host name "no-such-host.invalid" to address: Name or service not known). Start it, '
            "or correct ODC_DEFAULT_DB_URL.",
        ),
        (
            {"ODC_DEFAULT_INDEX_DRIVER": "memory"},
            "The index driver 'memory' of the Open Data Cube environment 'default' is not supported. Set "
            "ODC_DEFAULT_INDEX_DRIVER to postgres or postgis.",
        ),
        (
            {"ODC_DEFAULT_DB_URL": "mysql://me@127.0.0.1/d"},
            "The settings of the Open Data Cube environment are not valid: Database URL is not a postgresql "
            "connection URL.",
        ),
    ],
)
def test_an_index_that_cannot_be_reached(
    site: Site, variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # How a name that nobody has is refused depends on the resolver.
    said_now = describe_failure(site.config, site)
    assert said_now.replace("Temporary failure in name resolution", "Name or service not known") == said


@pytest.fixture
def guarded(site: Site, postgres_server: Postgres) -> Iterator[str]:
    """A user who needs a password; their name."""
    hba = Path(postgres_server.url("x").split("host=")[1]) / "pg_hba.conf"
    before = hba.read_text()
    name = f"guarded_{uuid4().hex[:8]}"
    hba.write_text(f"local all {name} scram-sha-256\n{before}")
    site.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'", "SELECT pg_reload_conf()")
    site.run(
        f"GRANT USAGE ON SCHEMA {site.schema} TO {name}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {site.schema} TO {name}",
    )
    yield name
    hba.write_text(before)
    site.run("SELECT pg_reload_conf()", f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@pytest.mark.parametrize("site", ["postgres"], indirect=True)
@pytest.mark.parametrize("password", ["", f"{PASSWORD}x"])
def test_a_wrong_password(site: Site, guarded: str, password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODC_DEFAULT_DB_URL", name_user(site.url, guarded, password))
    place = site.url.split("host=")[1]
    assert describe_failure(site.config, site) == (
        f"The index of Open Data Cube: PostgreSQL at {place} refuses the password of user '{guarded}'. "
        "Correct name and password in ODC_DEFAULT_DB_URL."
    )
    monkeypatch.setenv("ODC_DEFAULT_DB_URL", name_user(site.url, guarded, PASSWORD))
    assert "reachable" in check_index(site.config)


@pytest.mark.parametrize("site", ["postgres"], indirect=True)
def test_users_and_databases_that_do_not_exist(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    place = site.url.split("host=")[1]
    monkeypatch.setenv("ODC_DEFAULT_DB_URL", name_user(site.url, "stranger"))
    assert describe_failure(site.config, site) == (
        f"The index of Open Data Cube: PostgreSQL at {place} does not know user 'stranger', or not from "
        "here. Create the user, or correct ODC_DEFAULT_DB_URL."
    )
    monkeypatch.setenv("ODC_DEFAULT_DB_URL", site.server.url("nowhere"))
    assert describe_failure(site.config, site) == (
        f"The index of Open Data Cube: PostgreSQL at {place} has no database 'nowhere'. Create it (`createdb "
        "nowhere`), or correct ODC_DEFAULT_DB_URL."
    )


@pytest.mark.parametrize("site", ["postgres"], indirect=True)
def test_tokens_of_aws_are_passwords(site: Site, guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only the service of AWS that signs tokens is replaced.
    signer = SimpleNamespace(obtain_new_iam_auth_token=lambda url: PASSWORD)
    monkeypatch.setitem(sys.modules, "datacube.utils.aws", signer)
    monkeypatch.setenv("ODC_DEFAULT_DB_URL", name_user(site.url, guarded))
    monkeypatch.setenv("ODC_DEFAULT_DB_IAM_AUTHENTICATION", "yes")
    assert "reachable" in check_index(site.config)
    catalog = Catalog(site.config)
    assert catalog.list_collections() == []
    catalog.close()


# --- At the start of commands --------------------------------------------------------------------


def run_command(monkeypatch: pytest.MonkeyPatch, config: Config, *arguments: str) -> int:
    """Run a command in this process, which must end with an error before it starts anything."""
    for name, value in config.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["odc-openeo", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize("site", ["postgres"], indirect=True)
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_commands_say_that_there_is_no_index(
    site: Site, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.run("DROP SCHEMA agdc CASCADE")
    assert run_command(monkeypatch, site.config, command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: The database '")
    assert "Run `datacube system init`" in line


def break_tables(site: Site, state: str) -> Config:
    """Bring our tables into a state; the configuration that meets it."""
    url = site.url
    if state == "missing":
        site.run("DROP SCHEMA openeo CASCADE")
    elif state == "older":
        migrate.downgrade(site.config, migrate.list_revisions(site.config)[1])
    elif state == "newer":
        site.run("UPDATE openeo.alembic_version SET version_num = '9999'")
    elif state == "closed":
        site.run("DROP ROLE IF EXISTS outsider", "CREATE ROLE outsider LOGIN")
        url = name_user(url, "outsider")
    else:
        url = f"postgresql://me:{quote_plus(PASSWORD)}@127.0.0.1:1/d"
    return site.config.model_copy(update={"database_url": SecretStr(url)})


@pytest.mark.parametrize("site", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("state", "commands", "said"),
    [
        (
            "missing",
            [["serve"], ["worker"], ["user", "list"]],
            "Error: The database 'DB' has no tables of this service. Run `odc-openeo migrate`.",
        ),
        (
            "older",
            [["serve"], ["worker"], ["user", "list"]],
            "Error: The tables of this service are of an older version (OLD; this one needs NEW). Run "
            "`odc-openeo migrate`.",
        ),
        (
            "newer",
            [["serve"], ["worker"], ["user", "list"], ["migrate"]],
            "Error: The tables of this service are of a newer version (9999; this one knows up to NEW). "
            "Install that version of odc-openeo, or restore a backup of the database.",
        ),
        (
            "closed",
            [["serve"], ["migrate"]],
            "Error: The user 'outsider' may not read the tables of this service (schema openeo). Use the "
            "user that ran `odc-openeo migrate` in ODC_OPENEO_DATABASE_URL, or grant their rights.",
        ),
        (
            "unreachable",
            [["serve"], ["worker"], ["migrate"], ["user", "list"]],
            "Error: The database of this service: no PostgreSQL answers at 127.0.0.1:1 (Connection refused). "
            "Start it, or correct ODC_OPENEO_DATABASE_URL.",
        ),
    ],
)
def test_commands_say_what_is_wrong_with_the_tables(
    site: Site,
    state: str,
    commands: list[list[str]],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    revisions = migrate.list_revisions(site.config)
    config = break_tables(site, state)
    for command in commands:
        assert run_command(monkeypatch, config, *command) == 1
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        words = {site.database: "DB", revisions[0]: "NEW", revisions[1]: "OLD"}
        for word, name in words.items():
            line = line.replace(word, name)
        assert line == said
        assert PASSWORD not in captured.out + captured.err
    db.dispose_engine(config)


@pytest.mark.parametrize("site", ["postgres"], indirect=True)
def test_no_hash_of_a_password_is_printed(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.run("ALTER TABLE openeo.users ADD CONSTRAINT closed CHECK (false) NOT VALID")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a long password\n"))
    assert run_command(monkeypatch, site.config, "user", "add", "ada", "--password-stdin") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: the database refuses: ")
    assert "scrypt" not in line
    assert "argon2" not in line
    assert "$" not in line


# --- The stack -----------------------------------------------------------------------------------


def test_the_embedded_server_has_no_postgis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["odc-openeo", "up", "--index-driver", "postgis", "--data-dir", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        "Error: the PostgreSQL that `odc-openeo up` brings has no PostGIS, which the index driver postgis "
        "needs. Name a PostgreSQL with PostGIS in ODC_OPENEO_DATABASE_URL (Debian: package "
        "postgresql-15-postgis-3), or use the index driver postgres.\n"
    )
    assert not (tmp_path / "log").exists()


def test_a_stack_on_a_server_with_postgis(postgis_server: Postgres, short_folder: Path) -> None:
    url = postgis_server.create_database("stack_on_postgis")
    options = ("--no-samples", "--index-driver", "postgis")
    stack = start_stack(short_folder / "on_postgis", *options, ODC_OPENEO_DATABASE_URL=url)
    try:
        assert "Ready" in stack.said(), stack.said()
        wait_for(lambda: requests.get(f"{stack.url}/health/ready", timeout=30).json()["status"] == "ok")
        index = Index.of(url, "postgis")
        index.add_product(PRODUCT)
        index.datacube.close()
        collections = requests.get(f"{stack.url}/openeo/1.3/collections", timeout=30).json()["collections"]
        assert [collection["id"] for collection in collections] == ["tiny_s2"]
    finally:
        assert stack.stop() == 0
        postgis_server.drop_database("stack_on_postgis")


def test_the_state_is_read_behind_a_pool_of_connections(site: Site, documents: list[dict[str, Any]]) -> None:
    index = IndexConnection(site.config)
    before, _ = index.read_marker()
    with index.connect() as connection:
        # Another client's connection to the server: what was prepared is not there.
        connection.execute(text("DEALLOCATE ALL"))
        connection.commit()
    assert index.read_marker()[0] == before
    assert index.read_marker()[0] == before
    index.close()
