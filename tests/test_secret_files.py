"""``odc-openeo secrets``: what containers share is made once, readable to all of them, and fits together."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from datacube.cfg import ODCConfig
from sqlalchemy import make_url

from odc_openeo.cli import cli
from odc_openeo.config import Config
from odc_openeo.stack.secret_files import make_secrets

ADDRESS = "postgresql+psycopg2://odc@postgres:5432/odc"
NAMES = ["database_password", "database_url", "datacube.conf", "secret_key"]


def read_secrets(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_secrets_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_secrets(tmp_path / "new", ADDRESS) == NAMES
    folder = tmp_path / "new"
    monkeypatch.setenv("ODC_OPENEO_DATABASE_URL_FILE", str(folder / "database_url"))
    monkeypatch.setenv("ODC_OPENEO_SECRET_KEY_FILE", str(folder / "secret_key"))
    config = Config()
    assert config.database_url is not None
    parts = urlsplit(config.database_url.get_secret_value())
    assert (parts.username, parts.hostname, parts.port, parts.path) == ("odc", "postgres", 5432, "/odc")
    assert parts.password == (folder / "database_password").read_text().strip()
    assert len(parts.password) > 40
    assert len(config.signing_key()) > 40
    index = ODCConfig(paths=[str(folder / "datacube.conf")])["default"]
    assert index.db_url == config.database_url.get_secret_value()
    assert index.index_driver == "postgres"


def test_secrets_are_made_once_and_differ(tmp_path: Path) -> None:
    make_secrets(tmp_path / "a", ADDRESS)
    first = read_secrets(tmp_path / "a")
    assert make_secrets(tmp_path / "a", ADDRESS) == []
    assert read_secrets(tmp_path / "a") == first
    make_secrets(tmp_path / "b", ADDRESS)
    assert not {*first.values()} & {*read_secrets(tmp_path / "b").values()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").iterdir()} == {0o444}


def test_only_the_password_is_renewed(tmp_path: Path) -> None:
    make_secrets(tmp_path, ADDRESS)
    first = read_secrets(tmp_path)
    assert make_secrets(tmp_path, ADDRESS, renew_password=True) == NAMES[:3]
    second = read_secrets(tmp_path)
    assert {name for name in NAMES if first[name] != second[name]} == {*NAMES[:3]}
    assert second["database_password"].strip() in second["database_url"]


def test_an_earlier_signing_key_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "earlier").write_text("the-earlier-key\n")
    make_secrets(tmp_path / "a", ADDRESS, signing_key=tmp_path / "earlier")
    assert (tmp_path / "a" / "secret_key").read_text() == "the-earlier-key\n"
    make_secrets(tmp_path / "b", ADDRESS, signing_key=tmp_path / "absent")
    assert len((tmp_path / "b" / "secret_key").read_text()) > 40


@pytest.mark.parametrize("password", ["plain", "p@ss:w/rd", "100%", "a b#c?d&e", "ünï[code]", "%(x)s $HOME"])
def test_passwords_of_operators(tmp_path: Path, password: str) -> None:
    """Whatever an operator's password has, the driver and Open Data Cube read it from the files."""
    (tmp_path / "database_password").write_text(password, encoding="utf-8")
    make_secrets(tmp_path, ADDRESS)
    url = (tmp_path / "database_url").read_text().strip()
    assert make_url(url).password == password
    assert ODCConfig(paths=[str(tmp_path / "datacube.conf")])["default"].db_url == url


def test_several_makers_end_with_one_set(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: make_secrets(tmp_path, ADDRESS), range(16)))
    secrets = read_secrets(tmp_path)
    assert sorted(secrets) == NAMES
    password = secrets["database_password"].strip()
    assert f":{password}@" in secrets["database_url"]
    assert f":{password}@" in secrets["datacube.conf"]


def test_urls_of_operators_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "database_url").write_text("postgresql+psycopg2://me:mine@db.example.org/eo")
    with pytest.raises(ValueError, match="database_password"):
        make_secrets(tmp_path, ADDRESS)
    (tmp_path / "database_password").write_text("mine")
    make_secrets(tmp_path, ADDRESS)
    assert (tmp_path / "database_url").read_text() == "postgresql+psycopg2://me:mine@db.example.org/eo"


@pytest.mark.parametrize(
    "address", ["", "postgres", "postgresql://host/d", "postgresql://u:p@host/d", "postgresql:///d"]
)
def test_addresses_are_checked(tmp_path: Path, address: str) -> None:
    with pytest.raises(ValueError, match="URL of the database"):
        make_secrets(tmp_path / "new", address)
    assert not (tmp_path / "new").exists()


def test_links_in_the_folder_are_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("untouched")
    folder = tmp_path / "secrets"
    make_secrets(folder, ADDRESS)
    (folder / "database_url").unlink()
    (folder / "database_url").symlink_to(tmp_path / "target")
    make_secrets(folder, ADDRESS, renew_password=True)
    assert (tmp_path / "target").read_text() == "untouched"
    assert not (folder / "database_url").is_symlink()


def test_the_command_shows_no_secret(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["secrets", str(tmp_path)])
    assert done.exit_code == 0
    for content in read_secrets(tmp_path).values():
        assert content.strip() not in done.output
    again = CliRunner().invoke(cli, ["secrets", str(tmp_path)])
    assert again.output == f"{tmp_path} has all secrets\n"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"cannot be made in {tmp_path}/file"):
        make_secrets(tmp_path / "file", ADDRESS)
