"""One delivery of an event to a URL: CloudEvents in structured mode, signed by the Standard Webhooks scheme.

`webhook-id` is the event's id and the same for every try, `webhook-timestamp` the second of this try, and
`webhook-signature` has `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY` for each secret, so that a secret
can be replaced without a delivery that the receiver refuses (https://www.standardwebhooks.com/).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import ipaddress
import os
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import SplitResult, urlsplit

import orjson

from workledger._version import __version__
from workledger.errors import ConfigurationError, InvalidInput
from workledger.synapse.bus import BusEvent
from workledger.synapse.cloudevent import attributes

__all__ = ["Outcome", "Sender", "body_of", "check_secret", "check_url", "new_secret", "sign", "verify"]

_PREFIX: Final = "whsec_"
_ENVIRONMENT: Final = "env:"
_SECRET_BYTES: Final = range(24, 65)
_TOLERANCE_S: Final = 300
_ANSWER_BYTES: Final = 512
_REASON_CHARS: Final = 300
_URL_CHARS: Final = 2000
_GONE: Final = 410
_BUSY: Final = frozenset({408, 425, 429})
_SERVER_FAULT: Final = 500


# -- secrets and signatures -------------------------------------------------------------------------------------


def new_secret() -> str:
    """Make a secret: `whsec_` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(text: str) -> str:
    """Return a secret as it is to be kept: `whsec_…`, or `env:NAME` for the variable that has it."""
    if not text.startswith(_ENVIRONMENT):
        _key(text)
    return text


def _key(secret: str) -> bytes:
    """The bytes that a secret stands for."""
    if secret.startswith(_ENVIRONMENT):
        name = secret.removeprefix(_ENVIRONMENT)
        found = os.environ.get(name)
        if not found or found.startswith(_ENVIRONMENT):
            raise ConfigurationError(f"the webhook's secret is in the variable {name}, which is not set", setting=name)
        return _key(found)
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(_PREFIX) or len(key) not in _SECRET_BYTES:
        raise InvalidInput(
            f"a webhook's secret is {_PREFIX} and the base64 of 24 to 64 bytes, or {_ENVIRONMENT}NAME",
            field="secret",
            value="…",
            limit="24 to 64 bytes",
        )
    return key


def sign(*, secret: str, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """Give the signature of a delivery by one secret: `v1,BASE64`."""
    signed = b"%s.%d.%s" % (webhook_id.encode(), timestamp_s, body)
    return "v1," + base64.b64encode(hmac.new(_key(secret), signed, hashlib.sha256).digest()).decode()


def verify(*, secret: str, headers: Mapping[str, str], body: bytes, now_s: float | None = None) -> bool:
    """Say whether a delivery was signed with a secret no more than five minutes ago: for receivers in Python."""
    try:
        webhook_id, timestamp_s = headers["webhook-id"], int(headers["webhook-timestamp"])
        given = headers["webhook-signature"].split()
    except (KeyError, ValueError):
        return False
    expected = sign(secret=secret, webhook_id=webhook_id, timestamp_s=timestamp_s, body=body)
    is_fresh = abs((time.time() if now_s is None else now_s) - timestamp_s) <= _TOLERANCE_S
    return is_fresh and any(hmac.compare_digest(expected.encode(), each.encode()) for each in given)


def body_of(event: BusEvent, *, source: str) -> tuple[str, bytes]:
    """Give an event's id, and the event as a CloudEvent in structured mode."""
    found = dict(attributes(event.data, source=source))
    document = {
        **found,
        "sequence": f"{event.position:020d}",
        "datacontenttype": "application/json",
        "data": orjson.Fragment(event.data),
    }
    return found["id"], orjson.dumps(document)


# -- sending ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a delivery. `status` is None when no answer came; `retry_after_s` is what the answer asked for."""

    status: int | None
    reason: str
    retry_after_s: float | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants no more."""
        return self.status == _GONE

    @property
    def is_refused(self) -> bool:
        """Whether the receiver is well and does not want this event: trying it often is of no use."""
        return self.status is not None and self.status < _SERVER_FAULT and self.status not in _BUSY


def check_url(url: str) -> str:
    """Return the URL of a receiver, or raise `InvalidInput`."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    else:
        is_good = is_good and not parts.username and not parts.fragment and url.isascii() and url.isprintable()
    if not is_good or " " in url or len(url) > _URL_CHARS:
        raise InvalidInput(
            f"{url!r} is not the URL of a webhook: https://HOST/PATH, without user and fragment",
            field="url",
            value=url,
            limit=_URL_CHARS,
        )
    return url


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Sends signed deliveries. Follows no redirect, uses no proxy, and takes `timeout_s` at most, whatever is dripped.

    Addresses that are not public (loopback, private and link-local networks, cloud metadata) are refused unless
    `allow_private`; the address that was looked at is the one that is connected to.
    """

    timeout_s: float = 15.0

    def send(
        self, url: str, *, secret_values: Sequence[str], webhook_id: str, body: bytes, allow_private: bool = False
    ) -> Outcome:
        """Send one delivery and give what came of it. Raises `ConfigurationError` for a secret that is not set."""
        now_s = int(time.time())
        signatures = [sign(secret=each, webhook_id=webhook_id, timestamp_s=now_s, body=body) for each in secret_values]
        headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "User-Agent": f"workledger/{__version__}",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": " ".join(signatures),
        }
        try:
            with self._connection(urlsplit(url), allow_private=allow_private) as (connection, check):
                connection.request("POST", _target(urlsplit(url)), body=body, headers=headers)
                answer = connection.getresponse()
                check()  # for headers that were cut off are taken for whole ones
                text = answer.read(_ANSWER_BYTES).decode("utf-8", "replace")
                return Outcome(
                    status=answer.status,
                    reason=_told(f"{answer.status} {answer.reason} {text}"),
                    retry_after_s=_retry_after_s(answer.getheader("Retry-After")),
                )
        except _Forbidden as error:
            return Outcome(status=None, reason=str(error))
        except TimeoutError:
            return Outcome(status=None, reason=f"no answer within {self.timeout_s:g} s")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Outcome(status=None, reason=_told(f"{type(error).__name__}: {error}"))

    @contextmanager
    def _connection(
        self, url: SplitResult, *, allow_private: bool
    ) -> Generator[tuple[http.client.HTTPConnection, Callable[[], None]]]:
        """A connection that is cut when the time is over, even while something trickles in; and a check of that."""
        deadline_s = time.monotonic() + self.timeout_s
        host = url.hostname or ""
        port = url.port or (443 if url.scheme == "https" else 80)
        open_sockets = [_connect(host, port, deadline_s=deadline_s, allow_private=allow_private)]
        is_over = threading.Event()

        def cut() -> None:
            is_over.set()
            with suppress(OSError):
                open_sockets[-1].shutdown(socket.SHUT_RDWR)

        def check() -> None:
            if is_over.is_set():
                raise TimeoutError

        timer = threading.Timer(max(deadline_s - time.monotonic(), 0), cut)
        timer.daemon = True
        timer.start()
        connection = http.client.HTTPConnection(host, port)
        try:
            if url.scheme == "https":
                context = ssl.create_default_context()
                secure = context.wrap_socket(open_sockets[0], server_hostname=host, do_handshake_on_connect=False)
                open_sockets.append(secure)
                secure.do_handshake()
            connection.sock = open_sockets[-1]
            yield connection, check
        except (OSError, http.client.HTTPException) as error:
            if is_over.is_set():
                raise TimeoutError from error
            raise
        finally:
            timer.cancel()
            connection.close()
            for each in open_sockets:
                each.close()


class _Forbidden(Exception):
    """An address that deliveries may not go to."""


def _connect(host: str, port: int, *, deadline_s: float, allow_private: bool) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        mapped = getattr(ip, "ipv4_mapped", None) or ip
        if not allow_private and (not mapped.is_global or mapped.is_multicast):
            raise _Forbidden(
                f"{host} is {ip}, which is no public address; add the webhook with --allow-private if it is meant to be"
            )
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in found:
        attempt = socket.socket(family, kind, protocol)
        attempt.settimeout(max(deadline_s - time.monotonic(), 0.01))
        try:
            attempt.connect(address)
        except OSError as error:
            attempt.close()
            failure = error
        else:
            return attempt
    raise failure


def _target(url: SplitResult) -> str:
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


def _told(text: str) -> str:
    """What a receiver said, fit to be kept and shown."""
    words = "".join(char if char.isprintable() else " " for char in text).split()
    return " ".join(words)[:_REASON_CHARS]


def _retry_after_s(header: str | None) -> float | None:
    """The seconds that `Retry-After` asks for: a number, or a date (RFC 9110, section 10.2.3)."""
    if not header:
        return None
    if header.strip().isdigit():
        return float(header)
    with suppress(ValueError, TypeError):
        return max(parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    return None
