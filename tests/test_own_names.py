"""The processes and collections that a graph may use by name are those of its user, in one query."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import event

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.user_data.own_names import OwnNames
from odc_openeo.user_data.run_environment import make_environment
from odc_openeo.user_data.user_defined_processes import save_process
from odc_openeo.users import accounts

PROCESS: dict[str, Any] = {"process_graph": {"one": {"process_id": "e", "arguments": {}, "result": True}}}


def add_user(config: Config, name: str) -> UUID:
    return accounts.create_user(config, name, f"{name} has a long password").id


def add_collection(config: Config, user: UUID, id_: str) -> None:
    with db.session(config) as session:
        session.add(db.UserCollection(user_id=user, id=id_, stac="{}", details="{}"))


def test_names_are_those_of_the_user(config: Config) -> None:
    ada, bob = add_user(config, "ada"), add_user(config, "bob")
    assert OwnNames(config, ada).list_processes() == frozenset()
    save_process(config, ada, "mine", PROCESS, public=True)
    save_process(config, bob, "his", PROCESS, public=True)
    add_collection(config, ada, "same")
    add_collection(config, bob, "same")
    add_collection(config, bob, "other")
    statements: list[str] = []
    event.listen(db.get_engine(config), "before_cursor_execute", lambda *args: statements.append(args[2]))
    names = OwnNames(config, ada)
    assert names.list_collections() == {"same"}
    assert names.list_processes() == {"mine"}
    assert len(statements) == 1


def test_each_run_sees_what_its_user_has_now(config: Config) -> None:
    ada = add_user(config, "ada")
    before = make_environment(config, ada)
    assert before.lookup is not None
    assert before.list_own_collections is not None
    assert (before.lookup("mine", None), before.list_own_collections()) == (None, frozenset())
    save_process(config, ada, "mine", PROCESS, public=False)
    add_collection(config, ada, "fields")
    after = make_environment(config, str(ada))
    assert after.lookup is not None
    assert after.list_own_collections is not None
    assert after.lookup("mine", None) == PROCESS
    assert after.list_own_collections() == {"fields"}
    anybody = make_environment(config, None)
    assert (anybody.lookup, anybody.list_own_collections) == (None, None)
