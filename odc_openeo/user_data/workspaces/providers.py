"""Places for workspaces: the service's own storage, and the providers of the operator's file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from odc_openeo.config import PREFIX, Config
from odc_openeo.storage import Storage, get_storage, storage_at

log = logging.getLogger(__name__)

BUILT_IN: Final = "storage"
"""The name of the built-in provider."""
SETTING: Final = f"{PREFIX}WORKSPACE_PROVIDERS"


class WorkspaceProvider(BaseModel):
    """A place for workspaces: a folder or fsspec URL, with options for fsspec that may hold secrets.

    ``public_url`` is where users find the same tree of files, if it is reachable without this service.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    description: str = ""
    url: SecretStr
    options: dict[str, SecretStr | bool | int | float] = Field(default_factory=dict)
    public_url: str | None = Field(None, pattern=r"^\w[\w+.-]*://[^\s]+$")

    def open(self, buckets: Path | None) -> Storage:
        """The storage of this provider; ``buckets`` is the file of rules on how buckets are reached."""
        plain = {k: v.get_secret_value() if isinstance(v, SecretStr) else v for k, v in self.options.items()}
        return storage_at(self.url.get_secret_value(), plain, buckets)


_PROVIDERS_FILE = TypeAdapter(dict[str, WorkspaceProvider])


class ProvidersError(ValueError):
    """The file of workspace providers can't be used; the message says why."""


def load_providers(config: Config) -> dict[str, WorkspaceProvider]:
    """Load the providers by name, the built-in one first. Names differ by more than casing.

    Raises:
        ProvidersError: the operator's file is missing or invalid.
    """
    built_in = WorkspaceProvider(
        title="Storage of this service",
        description="Kept with the results of batch jobs; files are read through this API.",
        url=SecretStr(config.storage),
    )
    configured = _read_providers(config.workspace_providers)
    all_providers = {BUILT_IN: built_in, **configured}
    if len({name.lower() for name in all_providers}) < 1 + len(configured):
        raise ProvidersError(f"names of workspace providers must differ, also from '{BUILT_IN}'")
    return all_providers


def find_provider(config: Config, name: str | None) -> str | None:
    """Find a provider's exact name from one in any casing; the first provider by default; None if unknown."""
    names = {provider_name.lower(): provider_name for provider_name in load_providers(config)}
    return next(iter(names.values())) if name is None else names.get(name.lower())


def find_storage(config: Config, name: str) -> Storage | None:
    """Find the storage of a provider; None if it is not configured any more, or can't be opened."""
    if name == BUILT_IN:
        return get_storage(config)
    provider = load_providers(config).get(name)
    try:
        return None if provider is None else provider.open(config.buckets)
    except (ImportError, ValueError):
        log.exception("the workspace provider %s can't be used", name)
        return None


def _read_providers(path: Path | None) -> dict[str, WorkspaceProvider]:
    if path is None:
        return {}
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _PROVIDERS_FILE.validate_python(content or {})
    except OSError as error:
        raise ProvidersError(f"{SETTING}: {path} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ProvidersError(f"{SETTING}: {path} is invalid: {error}") from error
