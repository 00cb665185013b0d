"""Advisory locks of PostgreSQL, for what excludes each other on all machines."""

from __future__ import annotations

import hashlib

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def lock_for_transaction(session: Session, name: str) -> None:
    """Wait for the lock of a name, and hold it until the transaction ends."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    session.execute(select(func.pg_advisory_xact_lock(key)))
