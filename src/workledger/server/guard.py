"""The door: who may ask, from where, and what a browser may do with the answer.

- Only GET and HEAD: nothing here changes anything.
- Without a token, the `Host` header must name this machine. A page elsewhere on the web whose name has been pointed
  at 127.0.0.1 (DNS rebinding) still sends its own name, and is refused.
- With a token, every request must carry it: as `Authorization: Bearer …`, or as the cookie that `?token=…` sets. A
  rebound name has neither.
- Every answer carries a strict Content-Security-Policy: what a recorded program wrote is shown, never run.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workledger.errors import ConfigurationError
from workledger.server.urls import sent_path

__all__ = ["LOOPBACK_NAMES", "Guard", "Refuse", "check_token"]

logger = logging.getLogger(__name__)

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
MIN_TOKEN_CHARS: Final = 16
COOKIE: Final = "workledger_session"

_COOKIE_AGE_S: Final = 30 * 86_400
_HOST: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?", re.IGNORECASE)
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

#: Makes the answer to a request that is refused: `(scope, status, title, message)`.
Refuse = Callable[[Scope, int, str, str], Response]


def check_token(token: str | None) -> str | None:
    """Return the token, or raise `ConfigurationError` when it can be guessed."""
    if token is not None and len(token) < MIN_TOKEN_CHARS:
        raise ConfigurationError(
            f"the dashboard's token has {len(token)} characters and needs {MIN_TOKEN_CHARS}; "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'` makes one",
            setting="token",
            value=None,
        )
    return token


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: Sequence[str], refuse: Refuse) -> None:
        self._app = app
        self._token = token.encode() if token is not None else None
        self._hosts = LOOPBACK_NAMES | {host.lower() for host in hosts}
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        refusal = self._refusal(scope) or self._login(scope)
        if refusal is not None:
            await refusal(scope, receive, answer)
            return
        if scope["method"] == "HEAD":
            # The routes know GET; the server leaves the body out.
            scope = {**scope, "method": "GET"}
        try:
            await self._app(scope, receive, answer)
        except Exception:
            if answer.has_begun:
                raise
            logger.exception("dashboard.failed path=%s", scope["path"])
            failed = self._refuse(scope, 500, "Something broke", "This page could not be made. The log has the reason.")
            await failed(scope, receive, answer)

    def _refusal(self, scope: Scope) -> Response | None:
        if scope["method"] not in {"GET", "HEAD"}:
            refused = self._refuse(scope, 405, "Read only", "The dashboard only reads: GET and HEAD.")
            refused.headers["Allow"] = "GET, HEAD"
            return refused
        if self._token is None and not self._is_known_host(scope):
            host = ", ".join(Headers(scope=scope).getlist("host"))[:200]
            return self._refuse(
                scope,
                421,
                "Not here",
                f"This dashboard answers to localhost and 127.0.0.1, not to {host or 'no name'}.",
            )
        return None

    def _is_known_host(self, scope: Scope) -> bool:
        hosts = Headers(scope=scope).getlist("host")
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        return found is not None and found["name"].lower() in self._hosts

    def _login(self, scope: Scope) -> Response | None:
        """None when the request carries the token; else a way in, or the door."""
        if self._token is None or self._is_authorized(Headers(scope=scope)):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if len(given) == 1 and _is_same(given[0].encode(), self._token):
            return self._welcome(scope, [pair for pair in query if pair[0] != "token"])
        refused = self._refuse(scope, 401, "A token, please", "This dashboard is open to those who have its token.")
        refused.headers["WWW-Authenticate"] = 'Bearer realm="workledger"'
        return refused

    def _is_authorized(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._token is not None and _is_same(_bytes(given.strip()), self._token):
            return True
        return any(_is_same(_bytes(cookie), self._session()) for cookie in _cookies(headers.getlist("cookie")))

    def _session(self) -> bytes:
        """What the cookie holds: it follows from the token and does not tell it. Ports share cookies."""
        token = self._token or b""
        return hmac.new(token, b"workledger dashboard session", hashlib.sha256).hexdigest().encode()

    def _welcome(self, scope: Scope, query: list[tuple[str, str]]) -> Response:
        """Set the cookie and lead to the same page without the token in its address."""
        # Two slashes in front would name another host.
        location = "/" + sent_path(scope).lstrip("/\\") + (f"?{urlencode(query)}" if query else "")
        response = Response(status_code=303, headers={"Location": location})
        response.set_cookie(
            COOKIE,
            self._session().decode(),
            max_age=_COOKIE_AGE_S,
            httponly=True,
            samesite="lax",
            secure=scope.get("scheme") == "https",
        )
        return response


class _Answer:
    """Sends an answer on with our headers added."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)


def _cookies(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        try:
            cookie = SimpleCookie(line).get(COOKIE)
        except CookieError:
            continue
        if cookie is not None:
            yield cookie.value


def _bytes(text: str) -> bytes:
    # Header lines arrive decoded as Latin-1; this gives back the bytes that were sent.
    return text.encode("latin-1", "replace")


def _is_same(given: bytes, wanted: bytes) -> bool:
    return hmac.compare_digest(given, wanted)
