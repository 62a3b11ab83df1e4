"""Who is answered: this machine or whoever has the token; what a browser may do; what a request can change."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path

import pytest
from asked import asked
from pages import parsed
from starlette.testclient import TestClient

from headrace.view.app import application, static_files
from headrace.view.guard import HEADERS
from headrace.view.registry import ACTIONS, PAGES

TOKEN = "a-token-of-a-test"
SAME = {"sec-fetch-site": "same-origin"}
ADDRESSES = [
    "/",
    "/documents/0",
    "/nothing",
    "/documents/NaN",
    "/documents/99999999",
    "/static/headrace.css",
    "/progress",
    "/static/nothing.css",
    "/documents?format=json",
    "/documents/x?format=json",
    "/stages/",
    "/removed/label",
]


@pytest.fixture
def guarded(target) -> TestClient:
    return TestClient(application(target, TOKEN), base_url="http://192.0.2.7:8765", follow_redirects=False)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[",
        "::2",
        "localhost@evil.example",
        "evil.example:localhost",
        "127.0.0.2",
    ],
)
def test_other_names_are_refused(client, host):
    """A page elsewhere may let its own name lead to this machine, and would read the answers."""
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "localhost" in answer.text
    assert "small" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8765", "[::1]:9"])
def test_names_of_this_machine_are_answered(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("headers", [{}, {"host": "evil.example"}])
def test_every_answer_has_the_headers(client, address, headers):
    """Errors and files too."""
    told = client.get(address, headers=headers).headers
    assert HEADERS.items() <= told.items()
    assert "'unsafe" not in told["content-security-policy"]
    assert told["cache-control"] in ("no-store", "no-cache")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"])
def test_other_methods_are_refused(target, method):
    answer = asyncio.run(asked(application(target), method, b"/"))
    assert answer.status_code == 405
    assert HEADERS.items() <= answer.headers.items()


def test_head_is_get_without_a_body(client):
    for address in ("/", "/documents", "/static/headrace.css"):
        answer = client.head(address)
        assert answer.status_code == 200
        assert not answer.content


def test_the_token_is_asked_once(guarded):
    """It leaves the address, where it would be shared and kept, for a cookie that no script reads."""
    assert guarded.get("/").status_code == 401
    answer = guarded.get(f"/stages?by=1&token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/stages?by=1"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert guarded.get("/").status_code == 200
    assert TOKEN not in guarded.get("/").text


@pytest.mark.parametrize(
    "told",
    [
        "",
        "token=",
        "token=wrong",
        f"token={TOKEN}x",
        f"token={TOKEN[:-1]}",
        "token=%ff%fe",
        "token=é",
        f"Token={TOKEN}",
        f"token=wrong&token={TOKEN}",
    ],
)
def test_a_wrong_token_is_refused(guarded, told):
    answer = guarded.get(f"/?{told}")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert TOKEN not in answer.text


@pytest.mark.parametrize(
    "cookie",
    [
        "headrace=wrong",
        "headrace=",
        'headrace="',
        "headrace",
        "\x01=\x02",
        "a=b; headrace=x",
        f"Headrace={TOKEN}",
        f"headrace={TOKEN}x",
    ],
)
def test_a_wrong_cookie_is_refused(guarded, cookie):
    for address in ADDRESSES:
        assert guarded.get(address, headers={"cookie": cookie}).status_code == 401


def test_a_token_leads_nowhere_else(target):
    """An address with two slashes is another server's."""
    for path in (b"//evil.example/", b"///evil.example", b"/\\evil.example", b"//evil.example%2f.."):
        answer = asyncio.run(asked(application(target, TOKEN), "GET", path + b"?token=" + TOKEN.encode()))
        assert answer.status_code == 303
        assert not answer.headers["location"].startswith(("//", "/\\"))
        assert answer.headers["location"].startswith("/")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "null"},
        {"sec-fetch-site": "none"},
        {"origin": "http://evil.example"},
        {"origin": "http://["},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site", "origin": "http://localhost"},
        {"origin": ""},
    ],
)
def test_only_pages_of_this_server_change_anything(client, headers):
    for action in ACTIONS:
        if "POST" in action.methods:
            answer = client.post(action.path, content=b"row=0&reason=short&label=wrong", headers=headers)
            assert answer.status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_may_lead_here_but_embed_nothing(client, site):
    """An image or a frame of another page would make this machine search or count, though nobody reads the answer."""
    for wanted in ("image", "iframe", "empty", "script", ""):
        headers = {"sec-fetch-site": site, "sec-fetch-dest": wanted}
        assert client.get("/corpus/query?sql=SELECT+1", headers=headers).status_code == 403
    led = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=led).status_code == 200


def digests(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in run.rglob("*") if path.is_file()}  # fmt: skip


def test_no_get_changes_anything(viewed, tmp_path):
    """Every page and every action, with the fields of a change in the address."""
    from headrace.view.target import Target

    run = Path(shutil.copytree(viewed, tmp_path / "run"))
    before = digests(run)
    client = TestClient(application(Target(run)), base_url="http://localhost", follow_redirects=False)
    queue, seen = ["/"], set()
    while queue and len(seen) < 60:
        href = queue.pop(0)
        if href not in seen:
            seen.add(href)
            answer = client.get(href)
            if answer.status_code == 200 and answer.headers["content-type"].startswith("text/html"):
                queue += sorted({link.split("#")[0] for link in parsed(answer).links("/")})[:12]
    for action in ACTIONS:
        said = "row=0&reason=short&label=wrong&q=text&text=text"
        for method in ("GET", "HEAD"):
            answer = client.request(method, f"{action.path}?{said}", headers=SAME)
            assert answer.status_code < 500
    assert len(seen) > 20
    assert digests(run) == before


def test_only_the_viewers_own_files_are_served(client):
    assert {name.rsplit(".", 1)[1] for name in static_files()} <= {"css", "js", "svg"}
    for name in ("..%2fapp.py", "%2e%2e%2fapp.py", "../app.py", "app.py", "/etc/passwd", "%2fetc%2fpasswd", "", ".",
                 "view.css%00", "view.css/", "VIEW.CSS", "__init__.py"):  # fmt: skip
        assert client.get(f"/static/{name}").status_code == 404, name


def test_addresses_of_pages_take_no_other_fields(client):
    """A misspelled field is told, not passed over."""
    for page in PAGES:
        if page.name in ("overview", "documents", "removed", "corpus"):
            answer = client.get({"overview": "/"}.get(page.name, f"/{page.name}") + "?sourze=x")
            assert answer.status_code == 400
            assert "sourze" in answer.text
