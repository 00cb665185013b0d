"""Users: of HTTP Basic login, with the tokens they get, and of identity providers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from joserfc import jwt
from joserfc.jwk import OctKey
from sqlalchemy import Select, delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from odc_openeo import db
from odc_openeo.config import DEMO_USER, Config
from odc_openeo.errors import (
    AuthenticationRequired,
    AuthenticationSchemeInvalid,
    CredentialsInvalid,
    InfrastructureBusy,
    TokenInvalid,
    TooManyRequests,
)
from odc_openeo.telemetry.log_records import record_event
from odc_openeo.users import failed_attempts, oidc
from odc_openeo.users.claim_rules import ClaimRule
from odc_openeo.users.oidc import Identity, OidcProvider
from odc_openeo.users.roles import ROLE, check_role

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 1024
MAX_UNKNOWN_TOKENS = 300
"""Rejected tokens after which an address must wait before a provider is asked again."""

_hasher = PasswordHasher()


@dataclass(frozen=True)
class Account:
    """A user as the rest of the service sees it.

    ``grants`` open collections: roles, and the rules about claims that applied when the user was last seen.
    """

    id: UUID
    name: str
    roles: tuple[str, ...] = ()
    disabled: bool = False
    issuer: str | None = None
    grants: frozenset[str] = frozenset()


def create_user(config: Config, name: str, password: str, roles: Sequence[str] = ()) -> Account:
    """Create a user who can log in with ``password``; ValueError that says why if that is not possible."""
    _check_new_user(name, password, roles)
    return _insert_user(config, name, password, roles)


def create_first_user(config: Config, name: str, password: str) -> Account:
    """Create the first user besides the demo user; ValueError if there is one, or as `create_user`."""
    _check_new_user(name, password, ())
    with db.session(config) as session:
        # Two requests may come at once.
        session.execute(text(f"LOCK TABLE {db.SCHEMA}.users IN SHARE ROW EXCLUSIVE MODE"))
        if session.scalar(_select_users()) is not None:
            raise ValueError("there is an account already: ask its owner, or use `odc-openeo user add`")
        user = db.User(name=name, password_hash=_hasher.hash(password), roles=[], grants=[])
        session.add(user)
        session.flush()
    record_event("user_created", target=user.id, name=name, roles=[])
    return make_account(user)


def _check_new_user(name: str, password: str, roles: Sequence[str]) -> None:
    _check_roles(roles)
    _check_password(password)
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid user name: use 1 to 64 letters, digits and . _ @ -")
    if name == DEMO_USER:
        raise ValueError(f"the name {DEMO_USER} is reserved for the demonstration user; choose another")


def _check_password(password: str) -> None:
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise ValueError(f"a password must have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters")


def _check_roles(roles: Iterable[str]) -> None:
    for role in roles:
        check_role(role)


def _insert_user(config: Config, name: str, password: str, roles: Sequence[str]) -> Account:
    row = insert(db.User).values(name=name, password_hash=_hasher.hash(password), roles=list(roles))
    with db.session(config) as session:
        user = session.scalar(row.on_conflict_do_nothing().returning(db.User))
        if user is None:
            raise ValueError(f"there is already a user {name!r}")
    record_event("user_created", target=user.id, name=name, roles=sorted(roles))
    return make_account(user)


def list_users(config: Config) -> list[Account]:
    """List all users, by name."""
    order = (db.User.name, db.User.issuer, db.User.subject)
    with db.session(config) as session:
        return [make_account(user) for user in session.scalars(select(db.User).order_by(*order))]


def disable_user(config: Config, who: str, *, disabled: bool = True) -> Account:
    """Disable a user and revoke their tokens, or enable them again.

    ``who`` is the name of a user with a password, or the id of any user; ValueError if there is none.
    """
    with db.session(config) as session:
        user = _get_user(session, who)
        user.disabled = disabled
        if disabled:
            session.execute(delete(db.Token).where(db.Token.user_id == user.id))
    record_event("user_disabled" if disabled else "user_enabled", target=user.id)
    return make_account(user)


def set_roles(config: Config, who: str, roles: Iterable[str]) -> Account:
    """Set the roles of a user, in addition to those of a provider's claims."""
    role_names = sorted(set(roles))
    _check_roles(role_names)
    with db.session(config) as session:
        user = _get_user(session, who)
        before, user.roles = user.roles, role_names
    record_event("roles_changed", target=user.id, roles=role_names, before=sorted(before))
    return make_account(user)


def set_password(config: Config, who: str, password: str) -> Account:
    """Change a password and end all sessions of its user; ValueError that says why if not possible."""
    _check_password(password)
    with db.session(config) as session:
        user = _get_user(session, who)
        if user.issuer is not None or user.name == DEMO_USER:
            raise ValueError(f"the password of {user.name} is not stored here, or must not be changed")
        user.password_hash = _hasher.hash(password)
        session.execute(delete(db.Token).where(db.Token.user_id == user.id))
    record_event("password_changed", target=user.id)
    return make_account(user)


def end_sessions(config: Config, who: str) -> tuple[Account, int]:
    """Revoke all tokens that this service issued to a user; returns the user and the number of tokens."""
    with db.session(config) as session:
        user = _get_user(session, who)
        gone = session.scalars(delete(db.Token).where(db.Token.user_id == user.id).returning(db.Token.hash))
        count = len(gone.all())
    record_event("sessions_ended", target=user.id, count=count)
    return make_account(user), count


def _get_user(session: Session, who: str) -> db.User:
    try:
        condition = db.User.id == UUID(who)
    except ValueError:
        # Users of a provider can choose any name, even that of somebody else.
        condition = (db.User.name == who) & db.User.issuer.is_(None)
    user = session.scalar(select(db.User).where(condition))
    if user is None:
        raise ValueError(
            f"there is no user {who!r}; see `odc-openeo user list`. Name users of a provider by their id"
        )
    return user


def get_or_create_user(config: Config, identity: Identity, rules: Collection[ClaimRule] = ()) -> Account:
    """Get the user of a provider, created at the first sign-in; TokenInvalid if they are disabled.

    Which of the ``rules`` apply is kept, with the roles from the provider, for jobs that run without a token.
    """
    grants = sorted({*identity.roles, *(rule.grant for rule in rules if rule.matches(identity.claims))})
    same = (db.User.issuer == identity.issuer) & (db.User.subject == identity.subject)
    with db.session(config) as session:
        user = session.scalar(select(db.User).where(same))
        if user is None:
            values = {"issuer": identity.issuer, "subject": identity.subject, "name": identity.name}
            # Two first requests of a user may arrive at the same time.
            session.execute(insert(db.User).values(roles=[], **values).on_conflict_do_nothing())
            user = session.scalars(select(db.User).where(same)).one()
            record_event("user_created", target=user.id, issuer=identity.issuer)
        elif user.name != identity.name:
            user.name = identity.name
        if user.grants != grants:
            record_event("grants_changed", target=user.id, grants=grants, before=sorted(user.grants))
            user.grants = grants
    if user.disabled:
        raise TokenInvalid
    return make_account(user)


def log_in(config: Config, name: str, password: str, address: str) -> Account:
    """Log in by name and password, from an IP address.

    Raises CredentialsInvalid if there is no such user or they are locked out, TooManyRequests after too many
    wrong passwords, even if the current password is correct.
    """
    origin = get_network(address)
    name_and_network, name_anywhere, network_only = (
        f"login {name[:64]} {origin}",
        f"login {name[:64]}",
        f"login from {origin}",
    )
    limits = {
        name_and_network: config.login_attempts,
        name_anywhere: 10 * config.login_attempts,
        network_only: 10 * config.login_attempts,
    }
    # Only failures count: clients may well sign in many times at once with the right password.
    try:
        failed_attempts.check(config, limits, config.login_wait_s)
        account = verify_password(config, name, password)
    except TooManyRequests:
        record_event("sign_in_refused", target=_find_user_id(config, name), address=address)
        raise
    except CredentialsInvalid:
        record_event("sign_in_failed", target=_find_user_id(config, name), address=address)
        failed_attempts.count(config, limits, config.login_wait_s)
        raise
    record_event("sign_in", target=account.id, address=address)
    failed_attempts.forget(config, name_and_network, config.login_wait_s)
    return account


def _find_user_id(config: Config, name: str) -> UUID | None:
    """Find who a name belongs to; a name that nobody has is not logged: it may be a mistyped password."""
    with db.autocommit_session(config) as session:
        return session.scalar(select(db.User.id).where(db.User.name == name, db.User.issuer.is_(None)))


def get_network(address: str) -> str:
    """Get the network that the limits of an address apply to.

    An IPv6 address stands for its /64 network, which may all belong to one client.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    return str(ipaddress.ip_network((parsed, 64), strict=False) if parsed.version == 6 else parsed)


def verify_password(config: Config, name: str, password: str) -> Account:
    """Get the user by name and password; CredentialsInvalid if there is none or they are locked out."""
    with db.session(config) as session:
        user = session.scalar(select(db.User).where(db.User.name == name, db.User.issuer.is_(None)))
    # An unknown name takes as long as a wrong password, so that timing does not reveal names.
    has_password = user is not None and user.password_hash is not None
    if len(password) > MAX_PASSWORD_LENGTH or not _is_password_of(
        user.password_hash if has_password and user else None, password
    ):
        raise CredentialsInvalid
    assert user is not None
    if is_locked_out(config, user):
        raise CredentialsInvalid
    return make_account(user)


@cache
def _hash_dummy_password() -> str:
    return _hasher.hash(secrets.token_urlsafe())


def _is_password_of(password_hash: str | None, password: str) -> bool:
    try:
        return _hasher.verify(password_hash or _hash_dummy_password(), password) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


def issue_token(config: Config, user: Account, issuer: str | None = None) -> str:
    """Issue a token to ``user``, valid for ``token_lifetime_hours``; only its hash is stored.

    It is a JWT, as in API 1.3.0, with ``issuer`` (default: the root URL). It is validated by its hash, never
    by its signature, so that it can be revoked.
    """
    now = db.now()
    expires = now + timedelta(hours=config.token_lifetime_hours)
    claims = {"iss": issuer or config.root_url, "sub": str(user.id), "iat": now, "exp": expires}
    key = OctKey.import_key(hmac.digest(config.signing_key(), b"tokens of Basic login", "sha256"))
    token = jwt.encode({"alg": "HS256"}, {**claims, "jti": secrets.token_urlsafe(32)}, key)
    with db.session(config) as session:
        session.execute(delete(db.Token).where(db.Token.user_id == user.id, db.Token.expires < now))
        session.add(db.Token(hash=_hash_token(token), user_id=user.id, expires=expires))
    return token


def get_user_by_token(config: Config, token: str) -> Account:
    """Get the user to whom ``token`` was issued; TokenInvalid if it is unknown, expired or revoked."""
    with db.autocommit_session(config) as session:
        record = session.get(db.Token, _hash_token(token))
    if record is None or record.expires <= db.now() or is_locked_out(config, record.user):
        raise TokenInvalid
    return make_account(record.user)


def revoke_token(config: Config, token: str) -> None:
    """Revoke ``token``."""
    with db.session(config) as session:
        session.execute(delete(db.Token).where(db.Token.hash == _hash_token(token)))
    record_event("token_revoked")


@dataclass(frozen=True)
class Bearer:
    """The token of an ``Authorization`` header, issued by ``provider``, or by Basic login if that is empty.

    ``provider`` is None if only the token itself can identify it.
    """

    token: str = field(repr=False)
    provider: str | None = None


def parse_bearer(authorization: str | None) -> Bearer:
    """Parse ``Bearer basic//TOKEN``, ``Bearer oidc/PROVIDER/TOKEN`` or ``Bearer TOKEN``.

    Raises AuthenticationRequired without a header, AuthenticationSchemeInvalid for other schemes.
    """
    if not authorization:
        raise AuthenticationRequired
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        raise AuthenticationSchemeInvalid
    # Opaque tokens may contain slashes themselves.
    method, slash, rest = value.strip().partition("/")
    provider, second, token = rest.partition("/")
    if not slash:
        return Bearer(method)
    if not second or (method, bool(provider)) not in (("basic", False), ("oidc", True)):
        raise AuthenticationSchemeInvalid
    return Bearer(token, provider)


def get_user_by_bearer(
    config: Config, bearer: Bearer, address: str = "", rules: Collection[ClaimRule] = ()
) -> Account:
    """Get the user of a request with this token, from an IP address; ``rules`` as in `get_or_create_user`.

    Raises:
        TokenInvalid: the token is unknown, expired, revoked or for another service, or the user is disabled.
        AuthenticationSchemeInvalid: there is no such provider, or no Basic login.
        PermissionsInsufficient: the rules of the provider do not admit this user.
        InfrastructureBusy: the provider cannot be reached.
        TooManyRequests: the provider rejected too many tokens from this address.
    """
    provider = oidc.find_provider(config, bearer.provider, bearer.token)
    if provider is not None:
        identity = _identify_within_limits(config, provider, bearer.token, address)
        return get_or_create_user(config, identity, rules)
    if not config.basic_login:
        raise AuthenticationSchemeInvalid("There is no Basic login here: sign in with OpenID Connect.")
    return get_user_by_token(config, bearer.token)


def _identify_within_limits(config: Config, provider: OidcProvider, token: str, address: str) -> Identity:
    if not oidc.needs_provider(provider, token):
        return oidc.identify_user(provider, token)
    # Made-up tokens are passed on to the provider, which must not take this service for an attacker.
    limits = {f"token from {get_network(address)}": MAX_UNKNOWN_TOKENS}
    failed_attempts.check(config, limits, config.login_wait_s)
    try:
        return oidc.identify_user(provider, token)
    except (TokenInvalid, InfrastructureBusy):
        failed_attempts.count(config, limits, config.login_wait_s)
        raise


def get_user(config: Config, id_: UUID) -> Account | None:
    """Get a user by id, None if there is none or the user is disabled."""
    with db.autocommit_session(config) as session:
        user = session.get(db.User, id_)
    return None if user is None or user.disabled else make_account(user)


def ensure_demo_user(config: Config) -> None:
    """Create the demo user if it is missing; ValueError if other machines can reach the service."""
    if not config.is_local_only:
        raise ValueError(
            f"the user {DEMO_USER} exists only on a loopback address without proxies, and "
            f"{config.reason_for_access}"
        )
    if all(user.name != DEMO_USER or user.issuer for user in list_users(config)):
        _insert_user(config, DEMO_USER, DEMO_USER, ())


def has_demo_user(config: Config) -> bool:
    """Whether the demo user can sign in here; InfrastructureBusy without a database."""
    if not (config.basic_login and config.is_local_only):
        return False
    demo = (db.User.name == DEMO_USER) & db.User.issuer.is_(None)
    with db.autocommit_session(config) as session:
        return session.scalar(select(db.User.id).where(demo, ~db.User.disabled)) is not None


def has_users(config: Config) -> bool:
    """Whether there is an account other than the demo user's."""
    with db.autocommit_session(config) as session:
        return session.scalar(_select_users()) is not None


def _select_users() -> Select[UUID]:
    not_demo = (db.User.name != DEMO_USER) | db.User.issuer.is_not(None)
    return select(db.User.id).where(not_demo).limit(1)


def is_locked_out(config: Config, user: db.User) -> bool:
    """Whether a user is locked out of this service."""
    # No other user has this name; its password is publicly known.
    demo = user.name == DEMO_USER and user.issuer is None
    return user.disabled or (demo and not config.is_local_only)


def _hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def make_account(user: db.User) -> Account:
    """Make an account from a row of the table."""
    grants = frozenset({*user.roles, *user.grants})
    roles = tuple(sorted(filter(ROLE.fullmatch, grants)))
    return Account(user.id, user.name, roles, user.disabled, user.issuer, grants)
