"""Signing in from a web page in headless Chromium: authorization code with PKCE, from another origin."""

from __future__ import annotations

import queue
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

from odc_openeo.app import create_app
from odc_openeo.config import Config
from tests.clients.test_oidc import providers_file
from tests.identity_provider import running_provider, settings_of
from tests.support.http_service import serve_application

PAGE = """<!doctype html><title>A web application</title><script>
const api = "API";
const base64 = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes)))
  .replace(/[+]/g, "-").replace(/[/]/g, "_").replace(/=/g, "");
const json = async (url, options) => (await fetch(url, options)).json();
const random = () => base64(crypto.getRandomValues(new Uint8Array(32)));

async function leave(provider, found) {
  const verifier = random(), state = random();
  sessionStorage.setItem(state, verifier);
  const challenge = base64(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
  location.assign(found.authorization_endpoint + "?" + new URLSearchParams({
    response_type: "code", client_id: provider.default_clients[0].id, redirect_uri: location.origin + "/",
    scope: provider.scopes.join(" "), state, nonce: random(), code_challenge: challenge,
    code_challenge_method: "S256",
  }));
}

async function arrive(provider, found, given) {
  const tokens = await json(found.token_endpoint, {method: "POST", body: new URLSearchParams({
    grant_type: "authorization_code", code: given.get("code"), redirect_uri: location.origin + "/",
    client_id: provider.default_clients[0].id, code_verifier: sessionStorage.getItem(given.get("state")),
  })});
  const told = {};
  for (const form of [tokens.access_token, `oidc/${provider.id}/${tokens.access_token}`]) {
    const answer = await fetch(`${api}/me`, {headers: {Authorization: `Bearer ${form}`}});
    told[form === tokens.access_token ? "plain" : "prefixed"] = (await answer.json()).name;
    told.id = answer.headers.get("X-Request-Id");
  }
  const node = {process_id: "add", arguments: {x: 1, y: 2}, result: true};
  const result = await fetch(`${api}/result`, {
    method: "POST", body: JSON.stringify({process: {process_graph: {node}}}),
    headers: {Authorization: `Bearer ${tokens.access_token}`, "Content-Type": "application/json"},
  });
  told.result = await result.json();
  told.identifier = result.headers.get("OpenEO-Identifier");
  const refused = await fetch(`${api}/me`, {headers: {Authorization: "Bearer made-up"}});
  told.refused = (await refused.json()).code;
  return told;
}

(async () => {
  const [provider] = (await json(`${api}/credentials/oidc`)).providers;
  const found = await json(provider.issuer + "/.well-known/openid-configuration");
  const given = new URLSearchParams(location.search);
  if (!given.get("code")) return leave(provider, found);
  return arrive(provider, found, given).catch((error) => ({error: String(error)})).then(
    (told) => fetch("/told", {method: "POST", body: JSON.stringify(told)}));
})();
</script>"""


@pytest.fixture
def chromium() -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed")
    return program


@pytest.fixture
def service(odc_config: Config, tmp_path: Path) -> Iterator[str]:
    """The address of the API, with a provider."""
    with running_provider() as provider:
        path = providers_file(tmp_path, settings_of(provider))
        with serve_application(create_app(odc_config.model_copy(update={"oidc_providers": path}))) as url:
            yield f"{url}/openeo/1.3"


def test_authorization_code_with_pkce(chromium: str, service: str, tmp_path: Path) -> None:
    addresses: queue.Queue[dict[str, Any]] = queue.Queue()
    site = Flask("site")
    site.add_url_rule("/", "page", lambda: PAGE.replace("API", service))
    site.add_url_rule(
        "/told", "told", lambda: addresses.put(request.get_json(force=True)) or "", methods=["POST"]
    )
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    with serve_application(site) as url:
        browser = subprocess.Popen(
            [*command, f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0", f"{url}/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            result = addresses.get(timeout=120)
        finally:
            browser.terminate()
            browser.wait(20)
    assert (result["plain"], result["prefixed"]) == ("Anna Example", "Anna Example")
    assert (result["result"], result["refused"]) == (3, "TokenInvalid")
    assert result["id"]
    assert result["identifier"]
