"""Icechunk repositories: opened without what they may refer to elsewhere, changed in commits that are atomic.

The package is imported when it is needed: it starts threads, which a process that forks must not have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

from odc_openeo.errors import StorageFailure

MAIN: Final = "main"
"""The branch that readers see."""

MOST_TRIES: Final = 12
"""Requests for the same object while a bucket is throttling or out of reach."""

CACHED_REFERENCES: Final = 1_000_000
"""References to chunks that are kept in memory."""


class CommitConflict(Exception):
    """Another commit has changed the same chunks or arrays in the meantime."""


def has_icechunk() -> bool:
    """Whether the extra ``icechunk`` is installed."""
    return find_spec("icechunk") is not None


def create_repository(place: Any) -> Any:
    """Create a repository at an `icechunk.Storage`, where there is none."""
    import icechunk

    with translate_repository_failures():
        return icechunk.Repository.create(place, _make_config())


def open_repository(place: Any, *, may_create: bool = False) -> Any:
    """Open the repository at an `icechunk.Storage`.

    Chunks that it refers to elsewhere (virtual ones) are never read. The configuration is ours, whatever the
    repository says.
    """
    import icechunk

    with translate_repository_failures():
        if may_create and not icechunk.Repository.exists(place):
            return icechunk.Repository.create(place, _make_config())
        return icechunk.Repository.open(place, _make_config(), authorize_virtual_chunk_access=None)


def _make_config() -> Any:
    import icechunk

    retries = icechunk.StorageRetriesSettings(MOST_TRIES, 200, 8000)
    return icechunk.RepositoryConfig(
        caching=icechunk.CachingConfig(num_chunk_refs=CACHED_REFERENCES),
        storage=icechunk.StorageSettings(retries=retries),
    )


def commit_session(session: Any, message: str, details: Mapping[str, Any], *, rebase: bool = False) -> str:
    """Commit a session and return the id of the snapshot; in a folder, one process at a time.

    With ``rebase``, commits since the session began are no conflict unless they changed the same chunks.

    Raises:
        CommitConflict: there was another commit, or one of the same chunks.
    """
    import icechunk

    solver = icechunk.ConflictDetector() if rebase else None
    with translate_repository_failures():
        return str(session.commit(message, metadata=dict(details), rebase_with=solver))


@contextlib.contextmanager
def translate_repository_failures() -> Iterator[None]:
    """Turn errors of Icechunk into `CommitConflict` and `StorageFailure`."""
    import icechunk

    try:
        yield
    except (icechunk.ConflictError, icechunk.RebaseFailedError) as error:
        raise CommitConflict(str(error)) from error
    except icechunk.IcechunkError as error:
        raise StorageFailure from error
