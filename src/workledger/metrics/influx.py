"""InfluxDB over plain HTTP: `/write` of version 1, and `/api/v2/write` of versions 2 and 3 and what speaks like them.

URL forms, each also with `influx+https`:
`influx+http://USER:PASSWORD@HOST:8086/?db=NAME` and `influx+http://HOST:8086/?org=ORG&bucket=NAME&token=TOKEN`.
"""

from __future__ import annotations

import base64
import http.client
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from workledger.errors import ConfigurationError, Unavailable, WorkledgerError

__all__ = ["InfluxTarget", "InfluxWriter", "target_of"]

logger = logging.getLogger(__name__)

_PARAMETERS: Final = frozenset({"db", "rp", "org", "bucket", "token"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_DROPPED: Final = re.compile(r"beyond retention|outside.*retention", re.IGNORECASE)
_TOO_BUSY: Final = 429
_OWN_FAULT: Final = 500
_ANSWER_CHARS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxTarget:
    """Where points go. `place` names it without its secrets; `consumer` is the name of its cursor."""

    write_url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    place: str
    consumer: str
    is_loopback: bool


def target_of(url: str) -> InfluxTarget:
    """Read a metrics URL; raises `ConfigurationError` that says what is missing and shows no secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _malformed("has no valid host and port", url) from error
    scheme = parts.scheme.removeprefix("influx+")
    if not parts.scheme.startswith("influx+") or scheme not in {"http", "https"} or not parts.hostname:
        raise _malformed("must begin with influx+http://HOST or influx+https://HOST", url)
    given = dict(parse_qsl(parts.query))
    if unknown := sorted(given.keys() - _PARAMETERS):
        raise _malformed(f"has the unknown parameter {unknown[0]!r}; known are {', '.join(sorted(_PARAMETERS))}", url)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    base = f"{scheme}://{host}:{port or (443 if scheme == 'https' else 8086)}{parts.path.rstrip('/')}"
    path, query, name = _where(given, url)
    return InfluxTarget(
        write_url=f"{base}{path}?{urlencode({**query, 'precision': 'ns'})}",
        headers=_authorization(parts, given.get("token"), url),
        place=f"{base} ({name})",
        consumer=f"influx:{base.partition('://')[2]}/{name}"[:255],
        is_loopback=parts.hostname in _LOOPBACK,
    )


def _where(given: Mapping[str, str], url: str) -> tuple[str, dict[str, str], str]:
    """The path, its parameters, and the name of what is written to."""
    if "bucket" in given and "db" not in given:
        query = {"org": given.get("org", ""), "bucket": given["bucket"]}
        return "/api/v2/write", query, given["bucket"]
    if "db" in given and "bucket" not in given:
        query = {key: given[key] for key in ("db", "rp") if key in given}
        return "/write", query, given["db"]
    raise _malformed("names no place; give either ?db=NAME (version 1) or ?org=ORG&bucket=NAME (version 2 and 3)", url)


def _authorization(parts: SplitResult, token: str | None, url: str) -> dict[str, str]:
    if token:
        if not token.isprintable() or not token.isascii():
            raise _malformed("has a token with characters that no token has", url)
        return {"Authorization": f"Token {token}"}
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _malformed(problem: str, url: str) -> ConfigurationError:
    shown = re.sub(r"(token=|//)[^&@/]*(@|&|$)", r"\1***\2", url)
    return ConfigurationError(f"metrics URL {shown!r} {problem}", setting="WORKLEDGER_METRICS_URL", value=shown)


class InfluxWriter:
    """Writes lines to one target, one request a call. Writing the same lines again changes nothing there."""

    def __init__(self, target: InfluxTarget, *, timeout_s: float = 10.0) -> None:
        self.target = target
        self._timeout_s = timeout_s
        proxies = urllib.request.ProxyHandler({}) if target.is_loopback else urllib.request.ProxyHandler()
        self._opener = urllib.request.build_opener(_NoRedirect, proxies)

    def write(self, lines: Sequence[str]) -> None:
        """Return when the server has taken the lines.

        Raises `Unavailable` for what may go better later and `ConfigurationError` for a wrong address or
        credentials. Lines older than the server keeps are its to drop; that is logged.
        """
        if not lines:
            return
        request = urllib.request.Request(  # noqa: S310  target_of lets only http and https through
            self.target.write_url,
            data="\n".join(lines).encode(),
            headers={**self.target.headers, "Content-Type": "text/plain; charset=utf-8"},
            method="POST",
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                self._judge(response.status, response.read(_ANSWER_CHARS))
        except urllib.error.HTTPError as error:
            with error:
                self._judge(error.code, _body(error))
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(f"InfluxDB at {self.target.place} cannot be reached: {reason}") from error

    def _judge(self, status: int, body: bytes) -> None:
        said = " ".join(body.decode(errors="replace").split())[:_ANSWER_CHARS]
        place = self.target.place
        match status:
            case 204:
                return
            case 400 | 422 if _DROPPED.search(said):
                logger.warning("influx.points_dropped place=%s answer=%s", place, said)
            case 401 | 403:
                raise ConfigurationError(
                    f"InfluxDB at {place} refused the credentials ({status}: {said}); "
                    "check user and password, or the token, in WORKLEDGER_METRICS_URL",
                    setting="WORKLEDGER_METRICS_URL",
                    value=place,
                )
            case 404:
                raise ConfigurationError(
                    f"InfluxDB at {place} does not know the place (404: {said}); create the database or bucket first",
                    setting="WORKLEDGER_METRICS_URL",
                    value=place,
                )
            case _ if status >= _OWN_FAULT or status == _TOO_BUSY:
                raise Unavailable(f"InfluxDB at {place} is not able to write now ({status}: {said})")
            case _:
                raise WorkledgerError(f"InfluxDB at {place} refused points ({status}: {said})")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Following a redirect would turn the write into a read, and the answer into an acknowledgement."""

    def redirect_request(self, *_positional: Any, **_named: Any) -> None:
        """Refuse."""


def _body(error: urllib.error.HTTPError) -> bytes:
    try:
        return error.read(_ANSWER_CHARS)
    except (http.client.HTTPException, OSError):
        return b""
