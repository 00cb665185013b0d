"""Roles of users: names that the operator chooses, which open collections."""

from __future__ import annotations

import re
from typing import Final

ROLE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_role(name: str) -> str:
    """Return the name of a role; ValueError that says what it may look like if it is not one."""
    if not ROLE.fullmatch(name):
        raise ValueError(
            f"{name[:100]!r} is not a valid role: use 1 to 64 lower-case letters, digits and . _ -, "
            "with a letter or digit first"
        )
    return name
