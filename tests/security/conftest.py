"""The application with a real database, as in the tests of the API."""

from tests.api.conftest import app, bearer, client, token

__all__ = ["app", "bearer", "client", "token"]
