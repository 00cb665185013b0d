"""Users of HTTP Basic login, and the tokens they get for it."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from odc_openeo import db
from odc_openeo.config import DEMO_USER, Config
from odc_openeo.errors import (
    AuthenticationRequired,
    AuthenticationSchemeInvalid,
    CredentialsInvalid,
    TokenInvalid,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1024

_hasher = PasswordHasher()


@dataclass(frozen=True)
class Account:
    """A user as the rest of the service sees it."""

    id: UUID
    name: str
    roles: tuple[str, ...] = ()
    disabled: bool = False


def create_user(config: Config, name: str, password: str, roles: Sequence[str] = ()) -> Account:
    """Make a user who may log in with ``password``; ValueError when that cannot be, saying why."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no user name: 1 to 64 letters, digits, '.', '_', '@' or '-'")
    if name == DEMO_USER:
        raise ValueError(f"the name {DEMO_USER} is kept for the demonstration user; choose another")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ValueError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    return _insert(config, name, password, roles)


def _insert(config: Config, name: str, password: str, roles: Sequence[str]) -> Account:
    row = insert(db.User).values(name=name, password_hash=_hasher.hash(password), roles=list(roles))
    with db.session(config) as session:
        made = session.scalar(row.on_conflict_do_nothing().returning(db.User))
        if made is None:
            raise ValueError(f"there is a user {name!r} already")
        return _account(made)


def list_users(config: Config) -> list[Account]:
    """All users, by name."""
    with db.session(config) as session:
        return [_account(user) for user in session.scalars(select(db.User).order_by(db.User.name))]


def disable_user(config: Config, name: str, *, disabled: bool = True) -> Account:
    """Lock a user out, existing tokens included, or let them in again; ValueError when there is none."""
    with db.session(config) as session:
        user = session.scalar(select(db.User).where(db.User.name == name))
        if user is None:
            raise ValueError(f"there is no user {name!r}; `odc-openeo user list` shows all")
        user.disabled = disabled
        if disabled:
            session.execute(delete(db.Token).where(db.Token.user_id == user.id))
        return _account(user)


def verify_password(config: Config, name: str, password: str) -> Account:
    """The user with this name and password; CredentialsInvalid when there is none or they are locked out."""
    with db.session(config) as session:
        user = session.scalar(select(db.User).where(db.User.name == name))
    # An unknown name takes as long as a wrong password, so that names cannot be guessed.
    known = user is not None and user.password_hash is not None
    if len(password) > LONGEST_PASSWORD or not _matches(
        user.password_hash if known and user else None, password
    ):
        raise CredentialsInvalid
    assert user is not None
    if _locked_out(config, user):
        raise CredentialsInvalid
    return _account(user)


@cache
def _hash_of_nothing() -> str:
    return _hasher.hash(secrets.token_urlsafe())


def _matches(password_hash: str | None, password: str) -> bool:
    try:
        return _hasher.verify(password_hash or _hash_of_nothing(), password) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


def issue_token(config: Config, user: Account) -> str:
    """A new token of ``user``, good for ``token_lifetime_hours``; only its hash is kept."""
    token = secrets.token_urlsafe(32)
    now = db.now()
    expires = now + timedelta(hours=config.token_lifetime_hours)
    with db.session(config) as session:
        session.execute(delete(db.Token).where(db.Token.user_id == user.id, db.Token.expires < now))
        session.add(db.Token(hash=_hash(token), user_id=user.id, expires=expires))
    return token


def user_of_token(config: Config, token: str) -> Account:
    """The user whom ``token`` was given to; TokenInvalid when it is unknown, expired or revoked."""
    with db.session(config) as session:
        found = session.get(db.Token, _hash(token))
    if found is None or found.expires <= db.now() or _locked_out(config, found.user):
        raise TokenInvalid
    return _account(found.user)


def revoke_token(config: Config, token: str) -> None:
    """Let ``token`` be good for nothing any more."""
    with db.session(config) as session:
        session.execute(delete(db.Token).where(db.Token.hash == _hash(token)))


def bearer_token(authorization: str | None) -> str:
    """The token in an ``Authorization`` header: ``Bearer basic//TOKEN`` or ``Bearer TOKEN``.

    Raises AuthenticationRequired without a header, AuthenticationSchemeInvalid for another scheme.
    """
    if not authorization:
        raise AuthenticationRequired
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        raise AuthenticationSchemeInvalid
    kind, slash, rest = value.strip().partition("/")
    if not slash:
        return kind
    if kind != "basic":
        raise AuthenticationSchemeInvalid
    return rest.partition("/")[2]


def ensure_demo_user(config: Config) -> None:
    """Make the user demo with password demo if it is missing; ValueError unless on loopback."""
    if not config.on_loopback:
        raise ValueError(f"the user {DEMO_USER} exists only on a loopback address, not on {config.host}")
    if all(user.name != DEMO_USER for user in list_users(config)):
        _insert(config, DEMO_USER, DEMO_USER, ())


def _locked_out(config: Config, user: db.User) -> bool:
    # The name of the demo user is nobody else's: its password is known to all.
    return user.disabled or (user.name == DEMO_USER and not config.on_loopback)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _account(user: db.User) -> Account:
    return Account(user.id, user.name, tuple(user.roles), user.disabled)
