"""The fixtures of the API tests."""

from tests.api.conftest import app, bearer, client, token

__all__ = ["app", "bearer", "client", "token"]
