"""Pages as browsers read them: parsed strictly, with all that makes them usable and safe looked at."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit
from xml.etree.ElementTree import Element

import html5lib
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from odc_openeo.api.pages.html import COPY_SCRIPT

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ORIGIN = "http://localhost"
LOADED = {"img": "src", "iframe": "src", "link": "href", "source": "src", "object": "data"}
FIELDS = ("input", "select", "textarea")


def parsed(text: str) -> Element:
    """The document; html5lib.html5parser.ParseError for anything that HTML does not allow."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


def elements(root: Element, *names: str) -> Iterator[Element]:
    """All elements with one of the names."""
    return (e for e in root.iter() if isinstance(e.tag, str) and (not names or e.tag in names))


def text_of(element: Element) -> str:
    """All text in an element, without superfluous white space."""
    return " ".join("".join(element.itertext()).split())


def checked(response: TestResponse, address: str = "") -> Element:
    """The document of a page that is sound; AssertionError that says what is not."""
    assert response.mimetype == "text/html", address
    root = parsed(response.text)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not list(elements(root, "style", "iframe", "object", "embed")), address
    (script,) = elements(root, "script")
    assert not script.attrib, address
    content = "".join(script.itertext())
    assert content == COPY_SCRIPT, address
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    for element in elements(root):
        names = set(element.attrib)
        assert "style" not in names, (address, element.tag)
        assert not [n for n in names if n.startswith("on")], (address, element.tag)
    _check_loaded(root, address)
    _check_usable(root, address)
    return root


def _check_loaded(root: Element, address: str) -> None:
    for element in elements(root, *LOADED):
        source = urljoin(f"{ORIGIN}{address}", element.get(LOADED[str(element.tag)], ""))
        assert source.startswith(f"{ORIGIN}/"), (address, source)
    for element in elements(root, "a"):
        scheme = urlsplit(element.get("href", "")).scheme
        assert scheme in ("", "http", "https", "mailto"), (address, element.get("href"))


def _check_usable(root: Element, address: str) -> None:
    """Language, title, one heading of the page, texts for pictures, labels for fields, names that exist."""
    assert root.get("lang"), address
    (title,) = elements(root, "head")
    assert text_of(next(elements(title, "title"))), address
    assert len(list(elements(root, "h1"))) == 1, address
    assert len(list(elements(root, "main"))) == 1, address
    ids = [e.get("id") for e in elements(root) if e.get("id")]
    assert len(ids) == len(set(ids)), address
    labelled = {e.get("for") for e in elements(root, "label")}
    for field in elements(root, *FIELDS):
        assert field.get("type") == "hidden" or field.get("id") in labelled, (address, field.attrib)
    for image in elements(root, "img"):
        assert image.get("alt") is not None, address
    for element in elements(root):
        for name in (element.get("aria-labelledby") or "").split():
            assert name in ids, (address, name)
    for link in elements(root, "a"):
        fragment = link.get("href", "")
        if fragment.startswith("#"):
            assert fragment[1:] in ids, (address, fragment)


def own_links(root: Element, address: str) -> set[str]:
    """Paths on this server that a page leads to, or shows."""
    links = set()
    for element in elements(root, "a", "link", "img", "form"):
        value = element.get("href") or element.get("src") or element.get("action")
        if element.tag == "form" and element.get("method") == "post":
            continue
        if value:
            whole = urlsplit(urljoin(f"{ORIGIN}{address}", value))
            if f"{whole.scheme}://{whole.netloc}" == ORIGIN:
                links.add(f"{whole.path}?{whole.query}" if whole.query else whole.path)
    return links


def crawl(client: FlaskClient, start: str, most: int = 400) -> dict[str, Element | None]:
    """All pages that can be reached, each checked; None for what is no page, such as JSON or pictures."""
    seen: dict[str, Element | None] = {}
    waiting = [start]
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        assert len(seen) < most
        response = client.get(address, headers=HTML)
        assert response.status_code in (200, 303, 308), (address, response.status_code)
        if "Location" in response.headers:
            waiting.append(response.headers["Location"].partition("#")[0])
        is_page = response.mimetype == "text/html" and response.status_code == 200
        seen[address] = checked(response, address) if is_page else None
        root = seen[address]
        if root is not None:
            waiting += sorted(own_links(root, address) - seen.keys())
    return seen


def form_key(response: TestResponse) -> str:
    """The secret of the forms of a page."""
    match = re.search(r'name="form_key" value="([0-9a-f]+)"', response.text)
    assert match is not None
    return match[1]
