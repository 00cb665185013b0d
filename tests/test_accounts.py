from datetime import timedelta

import pytest
from sqlalchemy import select, update

from odc_openeo import accounts, db
from odc_openeo.config import Config
from odc_openeo.errors import (
    AuthenticationRequired,
    AuthenticationSchemeInvalid,
    CredentialsInvalid,
    TokenInvalid,
)

PASSWORD = "correct horse"


def test_login(config):
    made = accounts.create_user(config, "ada", PASSWORD, ["admin"])
    assert accounts.verify_password(config, "ada", PASSWORD) == made
    assert made.roles == ("admin",)
    token = accounts.issue_token(config, made)
    assert accounts.user_of_token(config, token) == made


@pytest.mark.parametrize(
    ("name", "password"), [("ada", "wrong"), ("eve", PASSWORD), ("ada", ""), ("ada", "x" * 10**6)]
)
def test_wrong_credentials(config, name, password):
    accounts.create_user(config, "ada", PASSWORD)
    with pytest.raises(CredentialsInvalid):
        accounts.verify_password(config, name, password)


def test_nothing_readable_is_kept(config):
    made = accounts.create_user(config, "ada", PASSWORD)
    token = accounts.issue_token(config, made)
    with db.session(config) as session:
        user = session.scalar(select(db.User))
        kept = session.scalar(select(db.Token))
    assert user.password_hash.startswith("$argon2id$")
    assert PASSWORD not in user.password_hash
    assert token.encode() not in kept.hash


def test_tokens_expire(config):
    made = accounts.create_user(config, "ada", PASSWORD)
    token = accounts.issue_token(config, made)
    with db.session(config) as session:
        session.execute(update(db.Token).values(expires=db.now() - timedelta(seconds=1)))
    with pytest.raises(TokenInvalid):
        accounts.user_of_token(config, token)
    accounts.issue_token(config, made)
    with db.session(config) as session:
        assert len(session.scalars(select(db.Token)).all()) == 1


def test_revoked_and_unknown_tokens(config):
    token = accounts.issue_token(config, accounts.create_user(config, "ada", PASSWORD))
    accounts.revoke_token(config, token)
    for each in (token, "nonsense", ""):
        with pytest.raises(TokenInvalid):
            accounts.user_of_token(config, each)


def test_disabled_user_is_out_at_once(config):
    token = accounts.issue_token(config, accounts.create_user(config, "ada", PASSWORD))
    accounts.disable_user(config, "ada")
    with pytest.raises(TokenInvalid):
        accounts.user_of_token(config, token)
    with pytest.raises(CredentialsInvalid):
        accounts.verify_password(config, "ada", PASSWORD)
    accounts.disable_user(config, "ada", disabled=False)
    assert accounts.verify_password(config, "ada", PASSWORD).name == "ada"


def test_bad_users_are_refused(config):
    accounts.create_user(config, "ada", PASSWORD)
    for name, password, what in [
        ("ada", PASSWORD, "already"),
        ("a b", PASSWORD, "no user name"),
        ("", PASSWORD, "no user name"),
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
        accounts.user_of_token(public, token)


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
def test_bearer(header, token, provider):
    sent = accounts.bearer(header)
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
        accounts.bearer(header)


def test_config_without_database():
    with pytest.raises(ValueError, match="ODC_OPENEO_DATABASE_URL"):
        accounts.list_users(Config())
