"""The environment of a run: the parts of the service that processes may use on behalf of a user."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from odc_openeo.catalog import ANYBODY, OPERATOR, Catalog, Reader
from odc_openeo.catalog.shared_catalog import shared_catalog
from odc_openeo.config import Config
from odc_openeo.registry.environment import Environment, RunLimits
from odc_openeo.user_data.own_names import OwnNames
from odc_openeo.user_data.user_defined_processes import Library
from odc_openeo.users import accounts
from odc_openeo.users.accounts import Account


def make_environment(
    config: Config,
    user: UUID | str | None,
    limits: RunLimits | None = None,
    *,
    catalog: Catalog | None = None,
    log: logging.Logger | None = None,
    exports: list[Any] | None = None,
    archives: tuple[str, ...] = (),
    reader: Reader | None = None,
) -> Environment:
    """Make the environment in which a graph of a user is evaluated.

    Args:
        config: The configuration of the service.
        user: The id of the user, None for somebody who is not signed in and has no stored processes.
        limits: How much the loads of the graph may read.
        catalog: The catalogue, by default the one shared by all runs in this process.
        log: Where messages for the user go.
        exports: A list that collects the exports requested by the graph; None where it cannot export.
        archives: Archives of dependencies of user code, as job options name them.
        reader: Who reads the catalogue, by default the user.
    """
    own_names = None if user is None else OwnNames(config, UUID(str(user)))
    env = Environment(
        catalog=(catalog or shared_catalog(config)).for_run(reader or find_reader(config, user)),
        user=None if user is None else str(user),
        limits=limits or RunLimits(),
        lookup=Library(config, own_names.user, list_own_ids=own_names.list_processes) if own_names else None,
        list_own_collections=own_names.list_collections if own_names else None,
        exports=exports,
        archives=archives,
    )
    if log is not None:
        env.log = log
    return env


def find_reader(config: Config, user: UUID | str | None) -> Reader:
    """Find what a user may read: as the provider said when they were last seen, and the operator says now."""
    if not shared_catalog(config).has_restricted_collections():
        return OPERATOR
    return make_reader(None if user is None else accounts.get_user(config, UUID(str(user))))


def make_reader(account: Account | None) -> Reader:
    """Make the reader of the catalogue that a user is; None is somebody who is not signed in."""
    return ANYBODY if account is None else Reader(signed_in=True, grants=account.grants)
