"""Browser sessions: stored and revoked like tokens, but not valid as tokens of the API."""

from __future__ import annotations

import hmac
import secrets
from datetime import timedelta

from sqlalchemy import delete

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import TokenInvalid
from odc_openeo.telemetry.log_records import record_event
from odc_openeo.users.accounts import Account, is_locked_out, make_account


def begin(config: Config, user: Account) -> str:
    """Begin a session of ``token_lifetime_hours``, and return the value of its cookie."""
    value = secrets.token_urlsafe(32)
    now = db.now()
    expires = now + timedelta(hours=config.token_lifetime_hours)
    with db.session(config) as session:
        session.execute(delete(db.Token).where(db.Token.user_id == user.id, db.Token.expires < now))
        session.add(db.Token(hash=_hash_value(config, value), user_id=user.id, expires=expires))
    return value


def get_user(config: Config, value: str) -> Account:
    """Get the user of a session; TokenInvalid if it has ended, or its user is locked out."""
    with db.session(config) as session:
        record = session.get(db.Token, _hash_value(config, value))
    if record is None or record.expires <= db.now() or is_locked_out(config, record.user):
        raise TokenInvalid
    return make_account(record.user)


def end(config: Config, value: str) -> None:
    """End a session."""
    with db.session(config) as session:
        session.execute(delete(db.Token).where(db.Token.hash == _hash_value(config, value)))
    record_event("sign_out")


def _hash_value(config: Config, value: str) -> bytes:
    # Not the hash of tokens: a session sent as a token is unknown, and vice versa.
    return hmac.digest(config.signing_key(), b"session " + value.encode(), "sha256")
