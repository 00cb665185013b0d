"""Sessions of people in browsers: kept like tokens, and ended with them, but no tokens of the API."""

from __future__ import annotations

import hmac
import secrets
from datetime import timedelta

from sqlalchemy import delete

from odc_openeo import db
from odc_openeo.accounts import Account, account_of, locked_out
from odc_openeo.config import Config
from odc_openeo.errors import TokenInvalid


def begin(config: Config, user: Account) -> str:
    """Begin a session of ``token_lifetime_hours``; what the browser is to keep."""
    value = secrets.token_urlsafe(32)
    now = db.now()
    expires = now + timedelta(hours=config.token_lifetime_hours)
    with db.session(config) as session:
        session.execute(delete(db.Token).where(db.Token.user_id == user.id, db.Token.expires < now))
        session.add(db.Token(hash=_hash(config, value), user_id=user.id, expires=expires))
    return value


def user(config: Config, value: str) -> Account:
    """Whose session it is; TokenInvalid when it has ended, or its user is locked out."""
    with db.session(config) as session:
        found = session.get(db.Token, _hash(config, value))
    if found is None or found.expires <= db.now() or locked_out(config, found.user):
        raise TokenInvalid
    return account_of(found.user)


def end(config: Config, value: str) -> None:
    """End a session."""
    with db.session(config) as session:
        session.execute(delete(db.Token).where(db.Token.hash == _hash(config, value)))


def _hash(config: Config, value: str) -> bytes:
    # Another hash than that of tokens: a session sent as a token is unknown, and the other way round.
    return hmac.digest(config.signing_key(), b"session " + value.encode(), "sha256")
