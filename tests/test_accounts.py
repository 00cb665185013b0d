from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import yaml
from argon2 import extract_parameters
from sqlalchemy import select, update

from odc_openeo import db
from odc_openeo.config import Config
from odc_openeo.errors import (
    AuthenticationRequired,
    AuthenticationSchemeInvalid,
    CredentialsInvalid,
    TokenInvalid,
    TooManyRequests,
)
from odc_openeo.users import accounts
from odc_openeo.users.oidc import Identity
from tests.conftest import SERVICE_HASHER
from tests.identity_provider import running_provider, settings_of

PASSWORD = "correct horse"


def test_login_needs_the_right_password(config):
    user = accounts.create_user(config, "ada", PASSWORD, ["admin"])
    assert accounts.verify_password(config, "ada", PASSWORD) == user
    assert user.roles == ("admin",)
    token = accounts.issue_token(config, user)
    assert accounts.get_user_by_token(config, token) == user


@pytest.mark.parametrize(
    ("name", "password"), [("ada", "wrong"), ("eve", PASSWORD), ("ada", ""), ("ada", "x" * 10**6)]
)
def test_wrong_credentials(config, name, password):
    accounts.create_user(config, "ada", PASSWORD)
    with pytest.raises(CredentialsInvalid):
        accounts.verify_password(config, name, password)


def test_no_readable_password_is_stored(config):
    created = accounts.create_user(config, "ada", PASSWORD)
    token = accounts.issue_token(config, created)
    with db.session(config) as session:
        user = session.scalar(select(db.User))
        kept = session.scalar(select(db.Token))
    assert user.password_hash.startswith("$argon2id$")
    assert PASSWORD not in user.password_hash
    assert token.encode() not in kept.hash


def test_guessing_passwords_from_hashes_is_expensive(config, monkeypatch):
    monkeypatch.setattr(accounts, "_hasher", SERVICE_HASHER)
    created = accounts.create_user(config, "ada", PASSWORD)
    with db.session(config) as session:
        cost = extract_parameters(session.scalar(select(db.User.password_hash)))
    # The second recommendation of RFC 9106.
    assert (cost.memory_cost, cost.time_cost, cost.parallelism) >= (2**16, 3, 4)
    assert accounts.verify_password(config, "ada", PASSWORD) == created
    with pytest.raises(CredentialsInvalid):
        accounts.verify_password(config, "ada", "battery staple")


def test_tokens_expire(config):
    user = accounts.create_user(config, "ada", PASSWORD)
    token = accounts.issue_token(config, user)
    with db.session(config) as session:
        session.execute(update(db.Token).values(expires=db.now() - timedelta(seconds=1)))
    with pytest.raises(TokenInvalid):
        accounts.get_user_by_token(config, token)
    accounts.issue_token(config, user)
    with db.session(config) as session:
        assert len(session.scalars(select(db.Token)).all()) == 1


def test_revoked_and_unknown_tokens(config):
    token = accounts.issue_token(config, accounts.create_user(config, "ada", PASSWORD))
    accounts.revoke_token(config, token)
    for candidate in (token, "nonsense", ""):
        with pytest.raises(TokenInvalid):
            accounts.get_user_by_token(config, candidate)


def test_a_good_signature_does_not_make_a_token_good(config):
    ada = accounts.create_user(config, "ada", PASSWORD)
    token = accounts.issue_token(config, ada)
    accounts.revoke_token(config, token)
    sent = accounts.parse_bearer(f"Bearer {token}")
    with pytest.raises(TokenInvalid):
        accounts.get_user_by_bearer(config, sent)
    assert accounts.issue_token(config, ada) != accounts.issue_token(config, ada)


def test_disabled_user_is_out_at_once(config):
    token = accounts.issue_token(config, accounts.create_user(config, "ada", PASSWORD))
    accounts.disable_user(config, "ada")
    with pytest.raises(TokenInvalid):
        accounts.get_user_by_token(config, token)
    with pytest.raises(CredentialsInvalid):
        accounts.verify_password(config, "ada", PASSWORD)
    accounts.disable_user(config, "ada", disabled=False)
    assert accounts.verify_password(config, "ada", PASSWORD).name == "ada"


def test_all_sessions_of_a_user_can_be_ended(config):
    ada, bob = (accounts.create_user(config, name, PASSWORD) for name in ("ada", "bob"))
    tokens = [accounts.issue_token(config, ada) for _ in range(2)]
    kept = accounts.issue_token(config, bob)
    assert accounts.end_sessions(config, "ada") == (ada, 2)
    for token in tokens:
        with pytest.raises(TokenInvalid):
            accounts.get_user_by_token(config, token)
    assert accounts.get_user_by_token(config, kept) == bob
    assert accounts.get_user_by_token(config, accounts.issue_token(config, ada)) == ada


def test_bad_users_are_refused(config):
    accounts.create_user(config, "ada", PASSWORD)
    for name, password, what in [
        ("ada", PASSWORD, "already"),
        ("a b", PASSWORD, "not a valid user name"),
        ("", PASSWORD, "not a valid user name"),
        ("bob", "short", "8 to"),
    ]:
        with pytest.raises(ValueError, match=what):
            accounts.create_user(config, name, password)
    with pytest.raises(ValueError, match="no user 'eve'"):
        accounts.disable_user(config, "eve")


def test_demo_user_logs_in_on_loopback_only(config):
    accounts.ensure_demo_user(config)
    accounts.ensure_demo_user(config)
    assert accounts.verify_password(config, "demo", "demo").name == "demo"
    public = config.model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(CredentialsInvalid):
        accounts.verify_password(public, "demo", "demo")
    with pytest.raises(ValueError, match="loopback"):
        accounts.ensure_demo_user(public)


def test_tokens_of_the_demo_user_are_void_elsewhere(config):
    accounts.ensure_demo_user(config)
    token = accounts.issue_token(config, accounts.verify_password(config, "demo", "demo"))
    public = config.model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(TokenInvalid):
        accounts.get_user_by_token(public, token)


@pytest.mark.parametrize(
    ("header", "token", "provider"),
    [
        ("Bearer basic//TOKEN", "TOKEN", ""),
        ("bearer TOKEN", "TOKEN", None),
        ("Bearer  TOKEN ", "TOKEN", None),
        ("Bearer oidc/egi/TOKEN", "TOKEN", "egi"),
        ("Bearer oidc/egi/TO/KEN//", "TO/KEN//", "egi"),
    ],
)
def test_bearer_token_identifies_user(header, token, provider):
    sent = accounts.parse_bearer(header)
    assert (sent.token, sent.provider) == (token, provider)
    assert "TOKEN" not in repr(sent)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (None, AuthenticationRequired),
        ("", AuthenticationRequired),
        ("Basic YTpi", AuthenticationSchemeInvalid),
        ("Bearer", AuthenticationSchemeInvalid),
        ("Bearer oidc//TOKEN", AuthenticationSchemeInvalid),
        ("Bearer oidc/TOKEN", AuthenticationSchemeInvalid),
        ("Bearer basic/egi/TOKEN", AuthenticationSchemeInvalid),
        ("Bearer basic/TOKEN", AuthenticationSchemeInvalid),
        ("Bearer other//TOKEN", AuthenticationSchemeInvalid),
    ],
)
def test_other_headers(header, error):
    with pytest.raises(error):
        accounts.parse_bearer(header)


def test_config_without_database():
    with pytest.raises(ValueError, match="ODC_OPENEO_DATABASE_URL"):
        accounts.list_users(Config())


# --- Users of identity providers -----------------------------------------------------------------

ISSUER = "https://login.example.org"


def test_first_sign_in_makes_a_user_once(config):
    anna = Identity(ISSUER, "1", "Anna", frozenset({"admin"}))
    with ThreadPoolExecutor(8) as pool:
        user = list(pool.map(lambda _: accounts.get_or_create_user(config, anna), range(16)))
    assert len({user.id for user in user}) == 1
    assert user[0].roles == ("admin",)
    renamed = accounts.get_or_create_user(config, Identity(ISSUER, "1", "Anna B."))
    assert (renamed.id, renamed.name, renamed.roles) == (user[0].id, "Anna B.", ())
    assert accounts.list_users(config) == [renamed]


def test_users_are_identified_by_issuer_and_subject(config):
    ada = accounts.create_user(config, "ada", PASSWORD)
    other_users = [
        accounts.get_or_create_user(config, Identity(issuer, subject, "ada"))
        for issuer, subject in [(ISSUER, "1"), (ISSUER, "2"), ("https://other.example.org", "1")]
    ]
    assert len({user.id for user in [ada, *other_users]}) == 4
    assert accounts.verify_password(config, "ada", PASSWORD) == ada
    assert accounts.disable_user(config, "ada").id == ada.id
    assert accounts.set_roles(config, str(other_users[0].id), ["admin"]).issuer == ISSUER
    with pytest.raises(ValueError, match="no user"):
        accounts.disable_user(config, "Ada of a provider")
    with pytest.raises(ValueError, match="not stored here"):
        accounts.set_password(config, str(other_users[0].id), PASSWORD)
    with pytest.raises(CredentialsInvalid):
        accounts.verify_password(config, "ada", PASSWORD)


def test_roles_granted_here_stay_in_addition_to_those_of_claims(config):
    anna = accounts.get_or_create_user(config, Identity(ISSUER, "1", "Anna"))
    accounts.set_roles(config, str(anna.id), ["admin"])
    assert accounts.get_or_create_user(config, Identity(ISSUER, "1", "Anna")).roles == ("admin",)
    with pytest.raises(ValueError, match="not a valid role"):
        accounts.set_roles(config, str(anna.id), ["Root role"])


def test_a_user_of_a_provider_called_demo_is_nobody_special(config):
    demo = Identity(ISSUER, "1", "demo")
    public = config.model_copy(update={"host": "0.0.0.0"})
    assert accounts.get_or_create_user(public, demo).name == "demo"
    accounts.ensure_demo_user(config)
    assert accounts.verify_password(config, "demo", "demo").issuer is None


# --- Limits of attempts --------------------------------------------------------------------------

HERE, THERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def limited(config):
    accounts.create_user(config, "ada", PASSWORD)
    accounts.create_user(config, "bob", PASSWORD)
    return config.model_copy(update={"login_attempts": 2})


def fail(config, times, name="ada", address=HERE):
    for _ in range(times):
        with pytest.raises(CredentialsInvalid):
            accounts.log_in(config, name, "wrong", address)


def test_too_many_wrong_passwords(limited):
    fail(limited, 2)
    with pytest.raises(TooManyRequests, match="300 s") as caught:
        accounts.log_in(limited, "ada", PASSWORD, HERE)
    assert 299 <= caught.value.seconds <= 300
    assert accounts.log_in(limited, "ada", PASSWORD, THERE).name == "ada"
    assert accounts.log_in(limited, "bob", PASSWORD, HERE).name == "bob"


def test_waiting_helps_and_success_forgets(limited):
    fail(limited, 1)
    accounts.log_in(limited, "ada", PASSWORD, HERE)
    fail(limited, 2)
    with db.session(limited) as session:
        session.execute(update(db.Attempt).values(since=db.now() - timedelta(seconds=301)))
    assert accounts.log_in(limited, "ada", PASSWORD, HERE).name == "ada"
    with db.session(limited) as session:
        assert session.scalars(select(db.Attempt)).all() == []


def test_users_who_sign_in_often_are_not_stopped(limited):
    with ThreadPoolExecutor(8) as pool:
        users = list(pool.map(lambda _: accounts.log_in(limited, "ada", PASSWORD, HERE), range(30)))
    assert {user.name for user in users} == {"ada"}


def test_many_guesses_at_once_are_counted_all(limited):
    def guess(_):
        try:
            accounts.log_in(limited, "ada", "wrong", HERE)
        except (CredentialsInvalid, TooManyRequests) as error:
            return type(error)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(guess, range(40)))
    # Those that are under way when the limit is reached are answered yet.
    assert 2 <= outcomes.count(CredentialsInvalid) <= 2 + 7
    assert outcomes.count(CredentialsInvalid) + outcomes.count(TooManyRequests) == 40
    with db.session(limited) as session:
        counts = {row.count for row in session.scalars(select(db.Attempt))}
    assert counts == {outcomes.count(CredentialsInvalid)}


def test_guesses_from_many_addresses_and_of_many_users(limited):
    for number in range(20):
        fail(limited, 1, address=f"198.51.100.{number}")
    with pytest.raises(TooManyRequests):
        accounts.log_in(limited, "ada", PASSWORD, "198.51.100.99")
    for number in range(20):
        fail(limited, 1, name=f"user{number}")
    with pytest.raises(TooManyRequests):
        accounts.log_in(limited, "bob", PASSWORD, HERE)


def test_an_ipv6_network_counts_as_one_address(limited):
    fail(limited, 1, address="2001:db8::1")
    fail(limited, 1, address="2001:db8::2")
    with pytest.raises(TooManyRequests):
        accounts.log_in(limited, "ada", PASSWORD, "2001:db8::3")
    assert accounts.log_in(limited, "ada", PASSWORD, "2001:db8:0:1::1").name == "ada"


def test_forged_tokens_are_throttled(config, tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "MAX_UNKNOWN_TOKENS", 3)
    with running_provider() as provider:
        settings = settings_of(provider, opaque_tokens="userinfo", any_audience=True)
        path = tmp_path / "providers.yaml"
        path.write_text(yaml.safe_dump({"providers": [settings]}))
        provider_config = config.model_copy(update={"oidc_providers": path})

        def sign_in(token, address=HERE):
            return accounts.get_user_by_bearer(provider_config, accounts.Bearer(token, "local"), address).name

        tokens, other = provider.opaque(), provider.opaque()
        assert sign_in(tokens) == "Anna Example"
        for number in range(3):
            with pytest.raises(TokenInvalid):
                sign_in(f"made-up-{number}")
        with pytest.raises(TooManyRequests):
            sign_in(other)
        assert provider.requests_by_path["/userinfo"] == 4
        assert [sign_in(tokens), sign_in(provider.token())] == ["Anna Example"] * 2
        assert sign_in(other, THERE) == "Anna Example"


def test_basic_login_can_be_off(config):
    token = accounts.issue_token(config, accounts.create_user(config, "ada", PASSWORD))
    off = config.model_copy(update={"basic_login": False})
    for header in (f"Bearer basic//{token}", f"Bearer {token}"):
        sent = accounts.parse_bearer(header)
        assert accounts.get_user_by_bearer(config, sent).name == "ada"
        with pytest.raises(AuthenticationSchemeInvalid, match="OpenID Connect"):
            accounts.get_user_by_bearer(off, sent)
