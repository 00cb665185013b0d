"""Access tokens of providers: good ones, forged ones, and what the operator's file can say."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from odc_openeo.config import Config
from odc_openeo.errors import (
    AuthenticationSchemeInvalid,
    InfrastructureBusy,
    PermissionsInsufficient,
    TokenInvalid,
)
from odc_openeo.users import oidc
from odc_openeo.users.oidc.http import Unreachable
from odc_openeo.users.oidc.provider import OidcProvider
from odc_openeo.users.oidc.settings import ProviderSettings
from tests.identity_provider import (
    AUDIENCE,
    MACHINE,
    OPAQUE,
    PUBLIC,
    SECRET,
    IdentityProvider,
    running_provider,
    settings_of,
)


@pytest.fixture(scope="module")
def running() -> Iterator[IdentityProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: IdentityProvider) -> IdentityProvider:
    """The provider in order, with a new key and nothing counted."""
    running.broken = False
    running.replaced = {}
    running.people = {"anna": {"name": "Anna Example"}}
    running.rotate()
    running.requests_by_path.clear()
    return running


def make_provider(provider: IdentityProvider, **settings: Any) -> OidcProvider:
    """The provider as the service sees it."""
    return OidcProvider(ProviderSettings(**settings_of(provider, **settings)))


def unsigned(provider: IdentityProvider, algorithm: str = "none") -> str:
    parts = ({"alg": algorithm, "typ": "JWT"}, provider.claims())
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return f"{'.'.join(encoded)}."


def with_hmac(provider: IdentityProvider) -> str:
    """The public key taken for a shared secret."""
    secret = provider.keys[0].as_pem(private=False)
    head = _header(alg="HS256", kid=provider.keys[0].get("kid"))
    signed = f"{head}.{provider.token().split('.')[1]}"
    digest = hmac.digest(secret, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def changed(token: str) -> str:
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    other = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "admin"}).encode()).decode()
    return ".".join([header, other.rstrip("="), signature])


@dataclass(frozen=True)
class Now:
    """A time in seconds from when a token is made."""

    plus: int


def timed(claims: dict[str, Any]) -> dict[str, Any]:
    now = int(time.time())
    return {name: now + entry.plus if isinstance(entry, Now) else entry for name, entry in claims.items()}


def of(**claims: Any) -> Any:
    return lambda provider: provider.token(provider.claims(**timed(claims)))


FORGED = {
    "issuer of another": of(iss="https://login.example.org"),
    "no issuer": of(iss=None),
    "issuer in a list": lambda p: p.token(p.claims(iss=[p.issuer])),
    "audience of another": of(aud="https://other.example.org", client_id="other"),
    "no audience and no client": of(aud=None, client_id=None),
    "audience is a client's id": of(aud=PUBLIC, client_id=None),
    "expired": of(exp=Now(-60)),
    "no expiry": of(exp=None),
    "expiry is text": of(exp="never"),
    "not valid yet": of(nbf=Now(600)),
    "issued in the future": of(iat=Now(600)),
    "no subject": of(sub=None, client_id=None),
    "subject is a number": of(sub=7),
    "alg none": unsigned,
    "alg NONE": lambda p: unsigned(p, "NONE"),
    "no algorithm": lambda p: unsigned(p, ""),
    "HMAC with the public key": with_hmac,
    "signature of an unknown key": lambda p: p.token(key=RSAKey.generate_key(2048)),
    "unknown key id": lambda p: p.token(kid="unknown"),
    "key id is a number": lambda p: p.token().replace(p.token().split(".")[0], _header(kid=7)),
    "own key in the header": lambda p: _brings_its_key(p),
    "claims changed": lambda p: changed(p.token()),
    "no signature": lambda p: p.token().rpartition(".")[0] + ".",
    "ID token": lambda p: p.id_token(),
    "hash of an access token": of(at_hash="x"),
    "logout token": of(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
    "refresh token": of(typ="Refresh"),
    "another type": lambda p: p.token(typ="dpop+jwt"),
    "unknown critical header": lambda p: f"{_header(crit=['exp'])}.{p.token().partition('.')[2]}",
    "nonsense": lambda p: "a.b.c",
    "opaque": lambda p: p.opaque(),
    "empty": lambda p: "",
    "huge": lambda p: "a" * 10**6,
    "not ASCII": lambda p: "é" * 20,
    "line break": lambda p: p.token() + "\nX: y",
}


def _header(**fields: Any) -> str:
    text = json.dumps({"alg": "RS256", "typ": "JWT", **fields}).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _brings_its_key(provider: IdentityProvider) -> str:
    own_key = RSAKey.generate_key(2048, {"kid": "own"})
    return provider.token(key=own_key, kid="own", jwk=own_key.as_dict(private=False))


@pytest.mark.parametrize("case", FORGED)
def test_bad_tokens_are_refused(provider: IdentityProvider, case: str) -> None:
    token = FORGED[case](provider)
    service = make_provider(provider)
    with pytest.raises(TokenInvalid):
        oidc.identify_user(service, token)
    assert oidc.identify_user(service, provider.token()).subject == "anna"


def test_a_good_token(provider: IdentityProvider) -> None:
    service = make_provider(provider)
    identities = [oidc.identify_user(service, provider.token()) for _ in range(20)]
    assert set(identities) == {oidc.Identity(provider.issuer, "anna", "Anna Example")}
    assert provider.requests_by_path == {"/.well-known/openid-configuration": 1, "/jwks": 1}


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": [AUDIENCE, "other"], "client_id": "other"},
        {"aud": "other", "client_id": PUBLIC},
        {"aud": None, "client_id": None, "azp": PUBLIC},
        {"aud": None, "client_id": "own-client"},
        {"exp": Now(-10)},
        {"nbf": Now(10)},
        {"typ": "Bearer", "nonce": "x"},
    ],
)
def test_other_good_tokens(provider: IdentityProvider, claims: dict[str, Any]) -> None:
    service = make_provider(provider, clients=["own-client"])
    token = provider.token(provider.claims(**timed(claims)))
    assert oidc.identify_user(service, token).subject == "anna"


def test_any_audience_is_for_those_who_ask_for_it(provider: IdentityProvider) -> None:
    token = provider.token(provider.claims(aud="other", client_id="other"))
    service = make_provider(provider, any_audience=True)
    assert oidc.identify_user(service, token).subject == "anna"


@pytest.mark.parametrize(
    ("algorithm", "make"),
    [
        ("PS256", lambda: RSAKey.generate_key(2048)),
        ("ES256", lambda: ECKey.generate_key("P-256")),
        ("ES512", lambda: ECKey.generate_key("P-521")),
        ("Ed25519", lambda: OKPKey.generate_key("Ed25519")),
    ],
)
def test_tokens_of_other_algorithms_are_accepted(
    provider: IdentityProvider, algorithm: str, make: Any
) -> None:
    key = type(new_key := make()).import_key(
        {**new_key.as_dict(private=True), "kid": "new", "alg": algorithm}
    )
    provider.keys = [key]
    token = provider.token(alg=algorithm, kid="new")
    assert oidc.identify_user(make_provider(provider), token).subject == "anna"
    with pytest.raises(TokenInvalid):
        oidc.identify_user(make_provider(provider, algorithms=["RS256"]), token)


def test_a_key_is_used_for_its_own_algorithm_only(provider: IdentityProvider) -> None:
    key = RSAKey.import_key({**provider.keys[0].as_dict(private=True), "alg": "PS256"})
    token = provider.token(key=RSAKey.import_key(provider.keys[0].as_pem(private=True)))
    provider.keys = [key]
    with pytest.raises(TokenInvalid):
        oidc.identify_user(make_provider(provider), token)


@pytest.mark.filterwarnings("ignore:Key size should be")
def test_weak_and_foreign_keys_are_not_used(provider: IdentityProvider) -> None:
    with pytest.warns(SecurityWarning):
        weak = RSAKey.generate_key(1024, {"kid": "weak"})
    encrypting = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"})
    shared = OctKey.generate_key(256, {"kid": "shared"})
    signing = provider.keys[0]
    provider.keys = [signing, weak, encrypting, shared]  # type: ignore[list-item]
    service = make_provider(provider)
    unused = RSAKey.import_key(encrypting.as_pem(private=True))
    for token in (provider.token(key=weak, kid="weak"), provider.token(key=unused, kid="enc")):
        with pytest.raises(TokenInvalid):
            oidc.identify_user(service, token)
    with pytest.raises(TokenInvalid):
        oidc.identify_user(service, provider.token(key=shared, kid="shared", alg="HS256"))
    assert oidc.identify_user(service, provider.token()).subject == "anna"


def test_without_key_id_all_keys_are_tried(provider: IdentityProvider) -> None:
    other = RSAKey.generate_key(2048, {"kid": "other"})
    token = provider.token(kid=None)
    provider.keys.insert(0, other)
    assert oidc.identify_user(make_provider(provider), token).subject == "anna"


def test_rotated_keys_replace_old_ones(provider: IdentityProvider) -> None:
    service = make_provider(provider)
    old = provider.token()
    assert oidc.identify_user(service, old).subject == "anna"
    provider.rotate()
    time.sleep(0.25)
    assert oidc.identify_user(service, provider.token()).subject == "anna"
    with pytest.raises(TokenInvalid):
        oidc.identify_user(service, old)


def test_forged_key_ids_do_not_burden_the_provider(provider: IdentityProvider) -> None:
    service = make_provider(provider, refresh_interval_s=60)
    oidc.identify_user(service, provider.token())
    provider.rotate()

    def attack() -> None:
        for number in range(20):
            with pytest.raises(TokenInvalid):
                oidc.identify_user(service, provider.token(kid=f"forged-{number}"))

    threads = [threading.Thread(target=attack) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.requests_by_path["/jwks"] == 1


def test_keys_stay_valid_while_provider_is_down(provider: IdentityProvider) -> None:
    service = make_provider(provider, keys_lifetime_s=0.1)
    good = provider.token()
    assert oidc.identify_user(service, good).subject == "anna"
    provider.broken = True
    time.sleep(0.25)
    assert oidc.identify_user(service, good).subject == "anna"
    with pytest.raises(TokenInvalid):
        oidc.identify_user(service, provider.token(kid="unknown"))
    with pytest.raises(InfrastructureBusy, match="Local login"):
        oidc.identify_user(make_provider(provider), good)


def test_providers_vouch_for_their_own_users_only(provider: IdentityProvider, tmp_path: Path) -> None:
    with running_provider() as other:
        path = tmp_path / "providers.yaml"
        both = [settings_of(provider), settings_of(other, "other")]
        path.write_text(yaml.safe_dump({"providers": both}))
        config = Config(oidc_providers=path)
        token, foreign = provider.token(), other.token()
        first, second = (oidc.find_provider(config, None, entry) for entry in (token, foreign))
        assert first is not None
        assert second is not None
        assert oidc.identify_user(first, token).issuer == provider.issuer
        assert oidc.identify_user(second, foreign).issuer == other.issuer
        for service, wrong in [(first, foreign), (second, token)]:
            with pytest.raises(TokenInvalid):
                oidc.identify_user(service, wrong)
        pretended = other.token(other.claims(iss=provider.issuer))
        assert oidc.find_provider(config, None, pretended) is first
        with pytest.raises(TokenInvalid):
            oidc.identify_user(first, pretended)
        with pytest.raises(AuthenticationSchemeInvalid, match="local, other"):
            oidc.find_provider(config, "third", token)
        assert oidc.find_provider(config, None, "no-jwt") is None
        assert oidc.find_provider(config, "", token) is None


@pytest.mark.parametrize(
    "replaced",
    [
        {"issuer": "https://login.example.org"},
        {"jwks_uri": "http://login.example.org/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
    ],
)
def test_faulty_discovery_documents_are_not_followed(
    provider: IdentityProvider, replaced: dict[str, Any], tmp_path: Path
) -> None:
    provider.replaced = replaced
    with pytest.raises(InfrastructureBusy):
        oidc.identify_user(make_provider(provider), provider.token())
    path = tmp_path / "providers.yaml"
    path.write_text(yaml.safe_dump({"providers": [settings_of(provider)]}))
    with pytest.raises(ValueError, match="local at http"):
        oidc.check_providers(Config(oidc_providers=path))
    provider.replaced = {}


@pytest.mark.parametrize("url", ["http://login.example.org/jwks", "file:///etc/passwd", "", None, 7])
def test_endpoints_are_encrypted(provider: IdentityProvider, url: Any) -> None:
    provider.replaced = {"jwks_uri": url}
    with pytest.raises(Unreachable, match="no jwks_uri with https"):
        make_provider(provider).get_endpoint("jwks_uri")
    provider.replaced = {"jwks_uri": "https://login.example.org/jwks"}
    assert make_provider(provider).get_endpoint("jwks_uri") == "https://login.example.org/jwks"


def test_doctor_says_who_may_sign_in(provider: IdentityProvider, tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(yaml.safe_dump({"providers": [settings_of(provider)]}))
    assert oidc.check_providers(Config(oidc_providers=path)) == "by local, Basic"
    assert oidc.check_providers(Config()) == "by Basic"
    with pytest.raises(ValueError, match="nobody"):
        oidc.check_providers(Config(basic_login=False))


# --- Opaque tokens -------------------------------------------------------------------------------

INTROSPECTION = {"opaque_tokens": "introspection", "client_id": MACHINE, "client_secret": SECRET}
USERINFO = {"opaque_tokens": "userinfo", "any_audience": True}


@pytest.mark.parametrize("settings", [INTROSPECTION, USERINFO])
def test_opaque_tokens(provider: IdentityProvider, settings: dict[str, Any]) -> None:
    service = make_provider(provider, clients=[OPAQUE], cache_s=0.5, **settings)
    token = provider.opaque(client=OPAQUE)
    for _ in range(5):
        assert oidc.identify_user(service, token) == oidc.Identity(provider.issuer, "anna", "Anna Example")
        with pytest.raises(TokenInvalid):
            oidc.identify_user(service, "unknown")
    assert provider.requests_by_path["/introspect"] + provider.requests_by_path["/userinfo"] == 2
    del provider.grants[token]
    time.sleep(0.6)
    with pytest.raises(TokenInvalid):
        oidc.identify_user(service, token)


def test_introspection_checks_the_audience(provider: IdentityProvider) -> None:
    service = make_provider(provider, **INTROSPECTION)
    with pytest.raises(TokenInvalid, match="another service"):
        oidc.identify_user(service, provider.opaque(client="other"))
    robot = make_provider(provider, clients=[MACHINE], **INTROSPECTION)
    assert oidc.identify_user(robot, provider.opaque(None, MACHINE)).subject == f"client:{MACHINE}"


def test_opaque_tokens_end_while_they_are_remembered(provider: IdentityProvider) -> None:
    service = make_provider(provider, **INTROSPECTION)
    token = provider.opaque()
    provider.grants[token].expires = time.time() + 1
    assert oidc.identify_user(service, token).subject == "anna"
    time.sleep(1.2)
    with pytest.raises(TokenInvalid):
        oidc.identify_user(service, token)


def test_claims_of_inactive_tokens_do_not_count(provider: IdentityProvider) -> None:
    token = provider.opaque()
    provider.grants[token].expires = 0
    with pytest.raises(TokenInvalid):
        oidc.identify_user(make_provider(provider, **INTROSPECTION), token)


def test_wrong_secret_of_introspection_is_the_operators_fault(provider: IdentityProvider) -> None:
    service = make_provider(provider, **{**INTROSPECTION, "client_secret": "wrong"})
    with pytest.raises(InfrastructureBusy):
        oidc.identify_user(service, provider.opaque())


# --- Names, roles and refusal --------------------------------------------------------------------

RULES = [
    {"claim": "groups", "values": ["eo:*"]},
    {"claim": ["realm_access", "roles"], "values": ["boss"], "roles": ["admin"]},
    {"claim": "banned", "values": ["true"], "refuse": True},
]


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({"groups": ["x", "eo:users"]}, set()),
        ({"groups": "eo:users"}, set()),
        ({"realm_access": {"roles": ["boss"]}}, {"admin"}),
        ({"realm_access": {"roles": ["boss"]}, "groups": ["eo:users"], "banned": False}, {"admin"}),
        ({}, None),
        ({"groups": ["other:users", 7, None, {}]}, None),
        ({"realm_access": ["boss"]}, None),
        ({"groups": ["eo:users"], "banned": True}, None),
    ],
)
def test_rules(provider: IdentityProvider, claims: dict[str, Any], roles: set[str] | None) -> None:
    service = make_provider(provider, rules=RULES, entitled_only=True)
    token = provider.token(provider.claims(**claims))
    if roles is None:
        with pytest.raises(PermissionsInsufficient):
            oidc.identify_user(service, token)
    else:
        assert oidc.identify_user(service, token).roles == roles


def test_only_the_star_is_special_in_rules(provider: IdentityProvider) -> None:
    rules = [{"claim": "groups", "values": ["eo[1].?"], "refuse": True}]
    service = make_provider(provider, rules=rules)
    with pytest.raises(PermissionsInsufficient):
        oidc.identify_user(service, provider.token(provider.claims(groups=["eo[1].?"])))
    assert oidc.identify_user(service, provider.token(provider.claims(groups=["eo1.x"]))).subject == "anna"


def test_claims_of_userinfo(provider: IdentityProvider) -> None:
    provider.people["anna"] = {"name": "Anna", "groups": ["eo:users"]}
    service = make_provider(provider, rules=RULES, entitled_only=True, userinfo_claims=True)
    bare = provider.token(provider.claims(name=None, groups=None))
    result = oidc.identify_user(service, bare)
    assert result.name == "Anna"
    assert oidc.identify_user(
        make_provider(provider, userinfo_claims=True, clients=["robot"]), _robot(provider)
    ).name
    with pytest.raises(PermissionsInsufficient):
        oidc.identify_user(service, _robot(provider))


def test_userinfo_of_somebody_else_is_refused(provider: IdentityProvider) -> None:
    provider.people["anna"] = {"sub": "eve", "name": "Eve"}
    token = provider.token(provider.claims(sub="anna"))
    assert oidc.identify_user(make_provider(provider), token).subject == "anna"
    with pytest.raises(TokenInvalid):
        oidc.identify_user(make_provider(provider, userinfo_claims=True), token)


def _robot(provider: IdentityProvider) -> str:
    return provider.token(provider.claims(sub=MACHINE, client_id=MACHINE, name=None, groups=None))


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"nickname": "Nan", "name": "Anna"}, "Nan"),
        ({"nickname": "", "name": "Anna"}, "Anna"),
        ({"nickname": ["Nan"], "name": None, "preferred_username": "anna9"}, "anna9"),
        ({"name": None}, "anna"),
        ({"name": None, "sub": None, "client_id": MACHINE}, MACHINE),
        ({"nickname": "A\n\x1b[31mB\u202e"}, "A[31mB"),
        ({"nickname": "x" * 1000}, "x" * 200),
    ],
)
def test_names(provider: IdentityProvider, claims: dict[str, Any], name: str) -> None:
    token = provider.token(provider.claims(**claims))
    assert (
        oidc.identify_user(make_provider(provider, name_claim="nickname", clients=[MACHINE]), token).name
        == name
    )


# --- The operator's file -------------------------------------------------------------------------

GOOD = {"id": "a", "issuer": "https://a.example.org/", "title": "A", "audiences": ["x"]}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"issuer": "http://a.example.org"}, "https"),
        ({"issuer": "https://u:p@a.example.org"}, "without user"),
        ({"id": "a b"}, "providers.0.id"),
        ({"id": "a" * 21}, "providers.0.id"),
        ({"audiences": []}, "any_audience"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"scopes": ["email"]}, "openid"),
        ({"opaque_tokens": "introspection"}, "client_secret"),
        ({"opaque_tokens": "userinfo"}, "any_audience"),
        ({"rules": [{"claim": "g", "values": ["x"], "roles": ["Root role"]}]}, "not a valid role"),
        ({"default_clients": [{"id": "c", "grant_types": ["implicit"]}]}, "redirect_urls"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_faulty_files_are_refused(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    path = tmp_path / "providers.yaml"
    secret = {"client_secret": ["hush"]} if "unknown" in change else {}
    path.write_text(yaml.safe_dump({"providers": [{**GOOD, **change, **secret}]}))
    with pytest.raises(ValueError, match=what) as caught:
        oidc.load_providers(path)
    assert "hush" not in str(caught.value)
    path.write_text(yaml.safe_dump({"providers": [GOOD]}))
    assert oidc.load_providers(path)[0].issuer == "https://a.example.org"


@pytest.mark.parametrize("text", ["", "providers: []", "providers: [", "- 1"])
def test_files_without_a_list_of_providers_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="ODC_OPENEO_OIDC_PROVIDERS"):
        oidc.load_providers(path)
    with pytest.raises(ValueError, match="cannot read"):
        oidc.load_providers(tmp_path / "missing")


def test_same_id_or_issuer_twice(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    for other in ({**GOOD, "id": "b"}, {**GOOD, "issuer": "https://b.example.org"}):
        path.write_text(yaml.safe_dump({"providers": [GOOD, other]}))
        with pytest.raises(ValueError, match="the same"):
            oidc.load_providers(path)
