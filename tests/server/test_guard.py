from __future__ import annotations

import pytest

from server.recorded import Dashboard
from workledger.errors import ConfigurationError
from workledger.server.app import create_app
from workledger.server.serve import DashboardServer, read_url

TOKEN = "a token that nobody guesses"
PATHS = [
    "/",
    "/health",
    "/workflows/research-1",
    "/api/v1/workflows",
    "/static/dashboard.css",
    "/nothing",
    "/?status=x",
]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_forbids_what_is_not_ours(dashboard: Dashboard, path: str) -> None:
    headers = dashboard.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["server"] is None
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_only_reading_is_allowed(dashboard: Dashboard, method: str) -> None:
    answer = dashboard.get("/", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", PATHS)
def test_head_answers_as_get_does_without_the_body(dashboard: Dashboard, path: str) -> None:
    head, get = dashboard.get(path, method="HEAD"), dashboard.get(path)
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize("host", ["localhost", "localhost:8321", "127.0.0.1:1", "[::1]:8321", "LOCALHOST:80"])
def test_names_of_this_machine_are_answered(dashboard: Dashboard, host: str) -> None:
    assert dashboard.get("/", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8321",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "127.0.0.2",
        "",
        "localhost@evil",
        "::1",
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/v1/workflows", "/static/dashboard.css"])
def test_a_rebound_name_is_refused(dashboard: Dashboard, host: str, path: str) -> None:
    answer = dashboard.get(path, host=host)
    assert answer.status == 421
    assert b"research" not in answer.body


def test_a_name_that_was_allowed_is_answered(dashboard: Dashboard, serve_app) -> None:
    other = serve_app(dashboard.ledger, allowed_hosts=["Ledger.example"])
    assert other.get("/", host="ledger.example").status == 200
    assert other.get("/", host="other.example").status == 421


def test_without_the_token_nothing_is_answered(dashboard: Dashboard, serve_app) -> None:
    guarded = serve_app(dashboard.ledger, token=TOKEN)
    for path in PATHS:
        answer = guarded.get(path)
        assert answer.status == 401
        assert b"research" not in answer.body
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert guarded.get(path, Authorization="Bearer wrong").status == 401
        assert guarded.get(path, Cookie="workledger_session=wrong").status == 401
        assert guarded.get(f"{path}{'&' if '?' in path else '?'}token=wrong").status == 401


def test_the_token_opens_as_a_bearer(dashboard: Dashboard, serve_app) -> None:
    guarded = serve_app(dashboard.ledger, token=TOKEN)
    assert guarded.get("/api/v1/workflows", Authorization=f"Bearer {TOKEN}").status == 200
    assert guarded.get("/api/v1/workflows", host="anywhere.example", Authorization=f"bearer {TOKEN}").status == 200
    assert guarded.get("/api/v1/workflows", Authorization=f"Basic {TOKEN}").status == 401


def test_the_token_in_an_address_becomes_a_cookie_that_does_not_tell_it(dashboard: Dashboard, serve_app) -> None:
    guarded = serve_app(dashboard.ledger, token=TOKEN)
    welcome = guarded.get("/workflows/a%2Fb?x=1&token=a+token+that+nobody+guesses")
    assert (welcome.status, welcome.headers["location"]) == (303, "/workflows/a%2Fb?x=1")
    cookie = welcome.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "token" not in cookie.split(";", 1)[0]
    assert guarded.get("/", Cookie=cookie.split(";", 1)[0]).status == 200


def test_the_way_in_leads_nowhere_else(dashboard: Dashboard, serve_app) -> None:
    guarded = serve_app(dashboard.ledger, token=TOKEN)
    for path in ("//evil.example/", "/\\evil.example/", "///evil.example"):
        location = guarded.get(f"{path}?token=a+token+that+nobody+guesses").headers["location"]
        assert location.startswith("/evil.example")


def test_a_short_token_is_refused(dashboard: Dashboard) -> None:
    with pytest.raises(ConfigurationError, match="5 characters and needs 16"):
        create_app(dashboard.ledger, token="12345")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_beyond_this_machine_only_with_a_token(dashboard: Dashboard, host: str) -> None:
    with pytest.raises(ConfigurationError, match="only with a token"):
        DashboardServer(create_app(dashboard.ledger), host, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.10"])
def test_loopback_needs_none(dashboard: Dashboard, host: str) -> None:
    assert DashboardServer(create_app(dashboard.ledger), host, 0).url.startswith("http://")


def test_with_a_token_it_listens_everywhere(dashboard: Dashboard) -> None:
    with DashboardServer(create_app(dashboard.ledger, token=TOKEN), "0.0.0.0", 0) as url:
        port = int(url.rsplit(":", 1)[1])
        reached = Dashboard(f"http://127.0.0.1:{port}", dashboard.ledger)
        assert reached.get("/").status == 401
        assert reached.get("/", Authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:1", "127.0.0.1:8321", "http://", "http://h:99999", "http://h:1/path"]
)
def test_an_address_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="http://HOST:PORT"):
        read_url(url)


def test_an_address_is_host_and_port() -> None:
    assert read_url("http://[::1]:99") == ("::1", 99)
    assert read_url("http://localhost") == ("localhost", 8321)
