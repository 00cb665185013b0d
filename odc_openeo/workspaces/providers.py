"""Where workspaces can be: the service's own storage, and what the operator's file names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from odc_openeo.config import PREFIX, Config
from odc_openeo.storage import Storage, storage, storage_at

log = logging.getLogger(__name__)

BUILT_IN: Final = "storage"
"""The name of the provider that is always there."""
SETTING: Final = f"{PREFIX}WORKSPACE_PROVIDERS"


class Provider(BaseModel):
    """A place for workspaces: a folder or fsspec URL, with options for fsspec that may hold secrets.

    ``public_url`` is where users find the same tree of files, if they can reach it without this service.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    description: str = ""
    url: SecretStr
    options: dict[str, SecretStr | bool | int | float] = Field(default_factory=dict)
    public_url: str | None = Field(None, pattern=r"^\w[\w+.-]*://[^\s]+$")

    def open(self) -> Storage:
        """The storage of this provider."""
        plain = {k: v.get_secret_value() if isinstance(v, SecretStr) else v for k, v in self.options.items()}
        return storage_at(self.url.get_secret_value(), plain)


_FILE = TypeAdapter(dict[str, Provider])


class ProvidersError(ValueError):
    """The file of workspace providers can't be used; the message says where and why."""


def providers(config: Config) -> dict[str, Provider]:
    """The providers by name, the built-in one first. Names differ not only in casing.

    Raises:
        ProvidersError: the operator's file is missing or wrong.
    """
    own = Provider(
        title="Storage of this service",
        description="Kept beside the results of batch jobs; files are read through this API.",
        url=SecretStr(config.storage),
    )
    more = _read(config.workspace_providers)
    found = {BUILT_IN: own, **more}
    if len({name.lower() for name in found}) < 1 + len(more):
        raise ProvidersError(f"names of workspace providers must differ, also from '{BUILT_IN}'")
    return found


def find_provider(config: Config, name: str | None) -> str | None:
    """The name as it is kept, from one in any casing; the first provider without one; None if unknown."""
    known = {each.lower(): each for each in providers(config)}
    return next(iter(known.values())) if name is None else known.get(name.lower())


def place(config: Config, name: str) -> Storage | None:
    """The storage of a provider, None if the operator offers it no more, or not as it should be."""
    if name == BUILT_IN:
        return storage(config)
    found = providers(config).get(name)
    try:
        return None if found is None else found.open()
    except (ImportError, ValueError):
        log.exception("the workspace provider %s can't be used", name)
        return None


def _read(path: Path | None) -> dict[str, Provider]:
    if path is None:
        return {}
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _FILE.validate_python(content or {})
    except OSError as error:
        raise ProvidersError(f"{SETTING}: {path} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ProvidersError(f"{SETTING}: {path} is invalid: {error}") from error
