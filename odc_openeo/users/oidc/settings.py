"""Settings of identity providers, from the operator's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from odc_openeo import config
from odc_openeo.config import PREFIX
from odc_openeo.users.claim_rules import ClaimRule
from odc_openeo.users.roles import check_role


def is_loopback(url: str) -> bool:
    """Whether a URL refers to this machine."""
    return config.is_loopback(urlsplit(url).hostname or "")


def _check_issuer(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("an issuer must be a URL without user, query and fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(url)):
        raise ValueError("an issuer must begin with https:// (http:// only on this machine)")
    return url.rstrip("/")


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(ClaimRule):
    """A rule about a claim that grants roles, or refuses access."""

    roles: tuple[Annotated[str, AfterValidator(check_role)], ...] = ()
    refuse: bool = False


class Client(_Settings):
    """An OIDC client without secret, for all openEO clients."""

    id: str = Field(min_length=1)
    grant_types: tuple[
        Literal[
            "implicit",
            "authorization_code",
            "authorization_code+pkce",
            "urn:ietf:params:oauth:grant-type:device_code",
            "urn:ietf:params:oauth:grant-type:device_code+pkce",
            "refresh_token",
        ],
        ...,
    ] = Field(min_length=1)
    redirect_urls: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_redirects(self) -> Self:
        if not self.redirect_urls and any(g.startswith(("implicit", "auth")) for g in self.grant_types):
            raise ValueError("redirect_urls are needed for these grant_types")
        return self


class ProviderSettings(_Settings):
    """One provider. `docs/accounts.md` explains each setting."""

    id: str = Field(pattern=r"^[A-Za-z0-9_]{1,20}$")
    issuer: Annotated[str, AfterValidator(_check_issuer)]
    title: str = Field(min_length=1)
    description: str | None = None
    scopes: tuple[str, ...] = ("openid",)
    default_clients: tuple[Client, ...] = ()
    authorization_parameters: dict[str, str] = {}
    links: tuple[dict[str, str], ...] = ()
    account_url: str | None = None

    audiences: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    any_audience: bool = False
    algorithms: tuple[
        Literal[
            "RS256",
            "RS384",
            "RS512",
            "PS256",
            "PS384",
            "PS512",
            "ES256",
            "ES384",
            "ES512",
            "Ed25519",
            "EdDSA",
        ],
        ...,
    ] = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
    opaque_tokens: Literal["refuse", "introspection", "userinfo"] = "refuse"
    client_id: str | None = None
    client_secret: SecretStr | None = None

    name_claim: str = "name"
    userinfo_claims: bool = False
    rules: tuple[Rule, ...] = ()
    entitled_only: bool = False

    leeway_s: float = Field(30, ge=0, le=300)
    cache_s: float = Field(60, ge=0, le=3600)
    keys_lifetime_s: float = Field(3600, gt=0, le=86_400)
    refresh_interval_s: float = Field(10, gt=0)

    @model_validator(mode="after")
    def _check_consistent(self) -> Self:
        if self.scopes and "openid" not in self.scopes:
            raise ValueError("scopes must include openid")
        if not (self.accepted_clients or self.audiences or self.any_audience):
            raise ValueError(
                "set the tokens that are accepted: audiences, clients or default_clients; any_audience: true "
                "accepts those issued for any service"
            )
        if self.opaque_tokens == "userinfo" and not self.any_audience:
            raise ValueError(
                "userinfo does not say which service a token is for: it needs any_audience: true"
            )
        if self.opaque_tokens == "introspection" and not (self.client_id and self.client_secret):
            raise ValueError("introspection needs client_id and client_secret")
        return self

    @property
    def accepted_clients(self) -> frozenset[str]:
        """Clients whose tokens are for this service."""
        return frozenset({*self.clients, *(client.id for client in self.default_clients)})

    def to_public_dict(self) -> dict[str, Any]:
        """Make the public entry of ``GET /credentials/oidc``."""
        fields = {"id", "issuer", "title", "description", "scopes", "default_clients"}
        fields |= {"authorization_parameters", "links"}
        public = self.model_dump(mode="json", include=fields)
        for client in public["default_clients"]:
            client.update(redirect_urls=client["redirect_urls"] or None)
        public["default_clients"] = [_drop_empty(client) for client in public["default_clients"]]
        return _drop_empty(public)


def _drop_empty(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


class _ProvidersFile(_Settings):
    providers: tuple[ProviderSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_unique(self) -> Self:
        for name in ("id", "issuer"):
            if len({getattr(provider, name) for provider in self.providers}) < len(self.providers):
                raise ValueError(f"two providers have the same {name}")
        return self


def load_providers(path: Path) -> tuple[ProviderSettings, ...]:
    """Load the providers of a file; ValueError that says what to fix, without any value of the file."""
    setting = f"{PREFIX}OIDC_PROVIDERS"
    try:
        return _ProvidersFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).providers
    except OSError as error:
        raise ValueError(f"{setting}: cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise ValueError(f"{setting}: {path} is not YAML in line {line}") from None
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise ValueError(f"{setting}: {path}: {'; '.join(faults)}") from None
