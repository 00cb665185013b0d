"""Users: those of HTTP Basic login with the tokens they get for it, and those of identity providers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from joserfc import jwt
from joserfc.jwk import OctKey
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from odc_openeo import attempts, db, oidc
from odc_openeo.config import DEMO_USER, ROLES, Config
from odc_openeo.errors import (
    AuthenticationRequired,
    AuthenticationSchemeInvalid,
    CredentialsInvalid,
    InfrastructureBusy,
    TokenInvalid,
)
from odc_openeo.oidc import Identity, Provider

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1024
MOST_UNKNOWN_TOKENS = 300
"""Tokens, of one address, about which a provider is asked in vain before the address must wait."""

_hasher = PasswordHasher()


@dataclass(frozen=True)
class Account:
    """A user as the rest of the service sees it."""

    id: UUID
    name: str
    roles: tuple[str, ...] = ()
    disabled: bool = False
    issuer: str | None = None


def create_user(config: Config, name: str, password: str, roles: Sequence[str] = ()) -> Account:
    """Make a user who may log in with ``password``; ValueError when that cannot be, saying why."""
    _check_roles(roles)
    _check_password(password)
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no user name: 1 to 64 letters, digits, '.', '_', '@' or '-'")
    if name == DEMO_USER:
        raise ValueError(f"the name {DEMO_USER} is kept for the demonstration user; choose another")
    return _insert(config, name, password, roles)


def _check_password(password: str) -> None:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ValueError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")


def _check_roles(roles: Iterable[str]) -> None:
    unknown = sorted(set(roles) - set(ROLES))
    if unknown:
        raise ValueError(f"there is no role {', '.join(unknown)}; choose of: {', '.join(ROLES)}")


def _insert(config: Config, name: str, password: str, roles: Sequence[str]) -> Account:
    row = insert(db.User).values(name=name, password_hash=_hasher.hash(password), roles=list(roles))
    with db.session(config) as session:
        made = session.scalar(row.on_conflict_do_nothing().returning(db.User))
        if made is None:
            raise ValueError(f"there is a user {name!r} already")
        return account_of(made)


def list_users(config: Config) -> list[Account]:
    """All users, by name."""
    order = (db.User.name, db.User.issuer, db.User.subject)
    with db.session(config) as session:
        return [account_of(user) for user in session.scalars(select(db.User).order_by(*order))]


def disable_user(config: Config, who: str, *, disabled: bool = True) -> Account:
    """Lock a user out, existing tokens included, or let them in again.

    ``who`` is the name of a user with a password, or any user's id; ValueError when there is none.
    """
    with db.session(config) as session:
        user = _find(session, who)
        user.disabled = disabled
        if disabled:
            session.execute(delete(db.Token).where(db.Token.user_id == user.id))
        return account_of(user)


def set_roles(config: Config, who: str, roles: Iterable[str]) -> Account:
    """Give a user exactly these roles, beside those that a provider's claims give; ValueError as above."""
    wanted = sorted(set(roles))
    _check_roles(wanted)
    with db.session(config) as session:
        user = _find(session, who)
        user.roles = wanted
        return account_of(user)


def set_password(config: Config, who: str, password: str) -> Account:
    """Change a password and end all sessions of its user; ValueError when that cannot be, saying why."""
    _check_password(password)
    with db.session(config) as session:
        user = _find(session, who)
        if user.issuer is not None or user.name == DEMO_USER:
            raise ValueError(f"the password of {user.name} is not kept here, or not to be changed")
        user.password_hash = _hasher.hash(password)
        session.execute(delete(db.Token).where(db.Token.user_id == user.id))
        return account_of(user)


def end_sessions(config: Config, who: str) -> tuple[Account, int]:
    """Revoke all tokens of a user that were given out here; who it is, and how many they were."""
    with db.session(config) as session:
        user = _find(session, who)
        gone = session.scalars(delete(db.Token).where(db.Token.user_id == user.id).returning(db.Token.hash))
        return account_of(user), len(gone.all())


def _find(session: Session, who: str) -> db.User:
    try:
        condition = db.User.id == UUID(who)
    except ValueError:
        # Users of a provider can choose any name, that of somebody else too.
        condition = (db.User.name == who) & db.User.issuer.is_(None)
    user = session.scalar(select(db.User).where(condition))
    if user is None:
        raise ValueError(
            f"there is no user {who!r}; `odc-openeo user list` shows all. Users of a provider go by their id"
        )
    return user


def user_of_identity(config: Config, identity: Identity) -> Account:
    """The user of a provider, made at the first sign-in; TokenInvalid when they are disabled."""
    same = (db.User.issuer == identity.issuer) & (db.User.subject == identity.subject)
    with db.session(config) as session:
        user = session.scalar(select(db.User).where(same))
        if user is None:
            values = {"issuer": identity.issuer, "subject": identity.subject, "name": identity.name}
            # Two requests may be the first of a user at the same time.
            session.execute(insert(db.User).values(roles=[], **values).on_conflict_do_nothing())
            user = session.scalars(select(db.User).where(same)).one()
        elif user.name != identity.name:
            user.name = identity.name
    if user.disabled:
        raise TokenInvalid
    account = account_of(user)
    return replace(account, roles=tuple(sorted({*account.roles, *identity.roles})))


def log_in(config: Config, name: str, password: str, address: str) -> Account:
    """The user with this name and password, called from an address.

    Raises CredentialsInvalid when there is none or they are locked out, TooManyRequests after too many wrong
    passwords, be it that the password is right now.
    """
    place = network(address)
    one, user, many = f"login {name[:64]} {place}", f"login {name[:64]}", f"login from {place}"
    limits = {one: config.login_attempts, user: 10 * config.login_attempts, many: 10 * config.login_attempts}
    # Only failures count: clients may well sign in many times at once with the right password.
    attempts.check(config, limits, config.login_wait_s)
    try:
        account = verify_password(config, name, password)
    except CredentialsInvalid:
        attempts.count(config, limits, config.login_wait_s)
        raise
    attempts.forget(config, one, config.login_wait_s)
    return account


def network(address: str) -> str:
    """What the limits of an address are for.

    An IPv6 address stands for its network of 64 bits, in which one client can have all.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    return str(ipaddress.ip_network((parsed, 64), strict=False) if parsed.version == 6 else parsed)


def verify_password(config: Config, name: str, password: str) -> Account:
    """The user with this name and password; CredentialsInvalid when there is none or they are locked out."""
    with db.session(config) as session:
        user = session.scalar(select(db.User).where(db.User.name == name, db.User.issuer.is_(None)))
    # An unknown name takes as long as a wrong password, so that names cannot be guessed.
    known = user is not None and user.password_hash is not None
    if len(password) > LONGEST_PASSWORD or not _matches(
        user.password_hash if known and user else None, password
    ):
        raise CredentialsInvalid
    assert user is not None
    if locked_out(config, user):
        raise CredentialsInvalid
    return account_of(user)


@cache
def _hash_of_nothing() -> str:
    return _hasher.hash(secrets.token_urlsafe())


def _matches(password_hash: str | None, password: str) -> bool:
    try:
        return _hasher.verify(password_hash or _hash_of_nothing(), password) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


def issue_token(config: Config, user: Account, issuer: str | None = None) -> str:
    """A new token of ``user``, good for ``token_lifetime_hours``; only its hash is kept.

    It is a JWT, as API 1.3.0 has it, with ``issuer`` (default: the root URL). Whether it is good is told
    by its hash, never by its signature: it can be revoked.
    """
    now = db.now()
    expires = now + timedelta(hours=config.token_lifetime_hours)
    claims = {"iss": issuer or config.root_url, "sub": str(user.id), "iat": now, "exp": expires}
    key = OctKey.import_key(hmac.digest(config.signing_key(), b"tokens of Basic login", "sha256"))
    token = jwt.encode({"alg": "HS256"}, {**claims, "jti": secrets.token_urlsafe(32)}, key)
    with db.session(config) as session:
        session.execute(delete(db.Token).where(db.Token.user_id == user.id, db.Token.expires < now))
        session.add(db.Token(hash=_hash(token), user_id=user.id, expires=expires))
    return token


def user_of_token(config: Config, token: str) -> Account:
    """The user whom ``token`` was given to; TokenInvalid when it is unknown, expired or revoked."""
    with db.reading(config) as session:
        found = session.get(db.Token, _hash(token))
    if found is None or found.expires <= db.now() or locked_out(config, found.user):
        raise TokenInvalid
    return account_of(found.user)


def revoke_token(config: Config, token: str) -> None:
    """Let ``token`` be good for nothing any more."""
    with db.session(config) as session:
        session.execute(delete(db.Token).where(db.Token.hash == _hash(token)))


@dataclass(frozen=True)
class Bearer:
    """What an ``Authorization`` header brings: a token of ``provider``, of Basic login if that is empty.

    ``provider`` is None where the token itself must tell.
    """

    token: str = field(repr=False)
    provider: str | None = None


def bearer(authorization: str | None) -> Bearer:
    """Parse ``Bearer basic//TOKEN``, ``Bearer oidc/PROVIDER/TOKEN`` or ``Bearer TOKEN``.

    Raises AuthenticationRequired without a header, AuthenticationSchemeInvalid for another scheme.
    """
    if not authorization:
        raise AuthenticationRequired
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        raise AuthenticationSchemeInvalid
    # Opaque tokens may hold slashes themselves.
    method, slash, rest = value.strip().partition("/")
    provider, second, token = rest.partition("/")
    if not slash:
        return Bearer(method)
    if not second or (method, bool(provider)) not in (("basic", False), ("oidc", True)):
        raise AuthenticationSchemeInvalid
    return Bearer(token, provider)


def user_of_bearer(config: Config, sent: Bearer, address: str = "") -> Account:
    """Who makes a request with this token, from an address.

    Raises:
        TokenInvalid: the token is unknown, expired, revoked, not for this service, or the user disabled.
        AuthenticationSchemeInvalid: there is no such provider, or no Basic login.
        PermissionsInsufficient: the rules of the provider do not let this user in.
        InfrastructureBusy: the provider cannot be reached.
        TooManyRequests: the provider had to be asked for this address too often, in vain.
    """
    provider = oidc.find_provider(config, sent.provider, sent.token)
    if provider is not None:
        return user_of_identity(config, _identify(config, provider, sent.token, address))
    if not config.basic_login:
        raise AuthenticationSchemeInvalid("There is no Basic login here: sign in with OpenID Connect.")
    return user_of_token(config, sent.token)


def _identify(config: Config, provider: Provider, token: str, address: str) -> Identity:
    if not oidc.asks(provider, token):
        return oidc.identify(provider, token)
    # Made-up tokens are passed on to the provider: it shall not take us for an attacker.
    limits = {f"token from {network(address)}": MOST_UNKNOWN_TOKENS}
    attempts.check(config, limits, config.login_wait_s)
    try:
        return oidc.identify(provider, token)
    except (TokenInvalid, InfrastructureBusy):
        attempts.count(config, limits, config.login_wait_s)
        raise


def ensure_demo_user(config: Config) -> None:
    """Make the user demo with password demo if it is missing; ValueError where others may come in."""
    if not config.is_local_only:
        raise ValueError(
            f"the user {DEMO_USER} exists only on a loopback address without proxies, and "
            f"{config.reason_for_access}"
        )
    if all(user.name != DEMO_USER or user.issuer for user in list_users(config)):
        _insert(config, DEMO_USER, DEMO_USER, ())


def has_demo_user(config: Config) -> bool:
    """Whether the user demo with password demo can sign in here; InfrastructureBusy without a database."""
    if not (config.basic_login and config.is_local_only):
        return False
    demo = (db.User.name == DEMO_USER) & db.User.issuer.is_(None)
    with db.reading(config) as session:
        return session.scalar(select(db.User.id).where(demo, ~db.User.disabled)) is not None


def has_users(config: Config) -> bool:
    """Whether anybody but the demo user has an account here."""
    others = (db.User.name != DEMO_USER) | db.User.issuer.is_not(None)
    with db.reading(config) as session:
        return session.scalar(select(db.User.id).where(others).limit(1)) is not None


def locked_out(config: Config, user: db.User) -> bool:
    """Whether a user may not do anything here."""
    # The name of the demo user is nobody else's: its password is known to all.
    demo = user.name == DEMO_USER and user.issuer is None
    return user.disabled or (demo and not config.is_local_only)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def account_of(user: db.User) -> Account:
    """A row of the table as an account."""
    return Account(user.id, user.name, tuple(user.roles), user.disabled, user.issuer)
