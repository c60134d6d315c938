"""Where a Redis is: one server, the master that Sentinels name, or the nodes of a cluster; and what its errors mean.

Everything is asked through `Servers.ask`, which sends commands about one key in one round trip to whoever has that key.
After a failover it finds out who that is now. Every command we send may be sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from workledger.errors import ConfigurationError, MissingExtra, SynapseUnavailable, WorkledgerError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.crc import key_slot
    from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError, ReadOnlyError, TryAgainError
    from redis.retry import Retry
    from redis.sentinel import Sentinel
except ImportError as error:
    raise MissingExtra("a Redis bus needs the extra: pip install 'workledger[redis]'", extra="redis") from error

__all__ = ["Command", "RedisTarget", "Script", "Servers", "target_of"]

#: What may be set besides for Sentinels and clusters; one server takes whatever the client knows.
_OPTIONS: Final = frozenset({"db", "client_name", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"})

Command = tuple[str | int | bytes, ...]

_SETTING: Final = "WORKLEDGER_SYNAPSE_URL"
_MAX_PARTITIONS: Final = 256
_CONNECT_TIMEOUT_S: Final = 5.0
_ANSWER_TIMEOUT_S: Final = 10.0
_ATTEMPTS: Final = 3
#: What a node answers that is not the one to ask, or not now. Who it is then has to be found out anew.
_ELSEWHERE: Final = (MovedError, ReadOnlyError, ClusterDownError, TryAgainError)
#: What arrives of these is taken as it is: the shapes that the client makes of them differ between its versions.
_RAW: Final = ("XREAD", "XINFO STREAM", "XRANGE", "XREVRANGE", "XCLAIM", "HGETALL", "CLUSTER SLOTS")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisTarget:
    """A stream, or several, on some Redis. `place` names the servers without their secrets."""

    kind: str
    addresses: Sequence[tuple[str, int]] = ()
    master: str = ""
    url: str = field(default="", repr=False)
    options: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    sentinel_options: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    partitions: int = 1
    place: str = ""


def target_of(url: str) -> RedisTarget:
    """Read a URL; each form takes `?partitions=N`, and the options of the client.

    `redis://[USER:PASSWORD@]HOST:PORT/DB`, `rediss://…`, `unix://SOCKET`;
    `redis+sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]/MASTER[?db=0&sentinel_username=…&sentinel_password=…]`;
    `redis+cluster://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]`. `rediss+…` is for TLS.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    credentials, _, servers = parts.netloc.rpartition("@")
    given = dict(parse_qsl(parts.query))
    partitions = _partitions(given.pop("partitions", "1"))
    base = url.partition("?")[0]
    place = base.replace(f"//{credentials}@", "//***@", 1) if ":" in credentials else base
    if not kind:
        bare = f"{base}?{urlencode(given, quote_via=quote)}" if given else base
        return RedisTarget(kind="server", url=bare, partitions=partitions, place=place)
    sentinel_options: dict[str, Any] = {
        name.removeprefix("sentinel_"): given.pop(name) for name in sorted(given) if name.startswith("sentinel_")
    }
    if unknown := [name for name in given if name not in _OPTIONS]:
        raise _malformed(place, f"there is no option {unknown[0]}")
    options: dict[str, Any] = {"db": int(given.pop("db", "0"))} if given.get("db", "0").isdigit() else {}
    user, _, password = credentials.partition(":")
    options |= {name: unquote(text) for name, text in (("username", user), ("password", password)) if text}
    if scheme == "rediss":
        options["ssl"] = True
        sentinel_options["ssl"] = True
    master = unquote(parts.path.strip("/"))
    if kind == "sentinel" and not master:
        raise _malformed(place, "after the Sentinels comes the name of their master: redis+sentinel://HOST:26379/NAME")
    if kind == "cluster" and (master or options.pop("db", 0)):
        raise _malformed(place, "a cluster has only one database")
    return RedisTarget(
        kind=kind,
        addresses=_addresses(servers, port=26379 if kind == "sentinel" else 6379, place=place),
        master=master,
        options=options | given,
        sentinel_options=sentinel_options,
        partitions=partitions,
        place=place,
    )


class Servers:
    """The servers of one target. One object serves one thread.

    What is asked raises `SynapseUnavailable` when no server answers, and `ConfigurationError` for what waiting does
    not mend. Errors that answer a single command are among the answers.
    """

    def __init__(self, target: RedisTarget, *, max_block_s: float = 0.0) -> None:
        self.target = target
        self.place = target.place
        timeouts = {"socket_timeout": max_block_s + _ANSWER_TIMEOUT_S, "socket_connect_timeout": _CONNECT_TIMEOUT_S}
        # The client's own retries would send an XADD twice without a word, and make one blocked read out of eleven.
        common = {"protocol": 2, "retry": Retry(NoBackoff(), 0), **timeouts}
        try:
            self._finder: _Finder = _FINDERS[target.kind](target, common)
        except (ValueError, TypeError) as error:
            raise _malformed(target.place, str(error)) from error

    def ask(self, key: str, *commands: Command) -> list[Any]:
        """Give the answers to commands about one key, as `ask_each` does."""
        return self.ask_each([(key, command) for command in commands])

    def ask_each(self, requests: Sequence[tuple[str, Command]]) -> list[Any]:
        """Give the answers to commands, each beside its key, in one round trip to each server that has one.

        The commands about a key are carried out in their order. The first that fails ends nothing.
        """
        for attempt in range(_ATTEMPTS):
            try:
                answers = self._sent(requests)
                if not any(isinstance(answer, _ELSEWHERE) for answer in answers):
                    return answers
                self._finder.forget()
            except redis.TimeoutError as error:
                self._finder.forget()
                raise self.translated(error) from error
            except redis.RedisError as error:
                # A connection may turn out to be dead, and a master may have been replaced.
                self._finder.forget()
                if attempt or not isinstance(error, redis.ConnectionError):
                    raise self.translated(error) from error
            else:
                if attempt == _ATTEMPTS - 1:
                    raise self.translated(next(answer for answer in answers if isinstance(answer, _ELSEWHERE)))
        raise AssertionError

    def one(self, key: str, *words: str | int | bytes) -> Any:
        """Give the answer to one command; raises what it says when that is an error."""
        (answer,) = self.ask(key, words)
        return self.checked(answer, key=key)

    def checked(self, answer: Any, *, key: str) -> Any:
        """Give an answer about a key; raises what it says when it is an error."""
        if isinstance(answer, Exception):
            raise self.translated(answer, key=key) from answer
        return answer

    def translated(self, error: Exception, *, key: str = "one") -> WorkledgerError:
        """Our error for one of the client's or the server's."""
        text = str(error) or type(error).__name__
        if "WRONGTYPE" in text:
            return ConfigurationError(
                f"the key {key} in Redis at {self.place} is not a stream; delete it, or choose another project",
                setting="WORKLEDGER_PROJECT",
                value=key,
            )
        if "OOM" in text or "maxmemory" in text:
            return SynapseUnavailable(
                f"Redis at {self.place} is full: {text}. Give it more memory; the log keeps everything meanwhile"
            )
        return SynapseUnavailable(
            f"Redis at {self.place} cannot be used: {text}. Check {_SETTING}, or set it to postgres: to do without a "
            "bus"
        )

    def close(self) -> None:
        """Close the connections."""
        self._finder.close()

    def _sent(self, requests: Sequence[tuple[str, Command]]) -> list[Any]:
        answers: list[Any] = [None] * len(requests)
        of_client: dict[int, tuple[redis.Redis, list[int]]] = {}
        for number, (key, _) in enumerate(requests):
            client = self._finder.client_of(key)
            of_client.setdefault(id(client), (client, []))[1].append(number)
        for client, numbers in of_client.values():
            sent = _sent(client, [requests[number][1] for number in numbers])
            for number, answer in zip(numbers, sent, strict=True):
                answers[number] = answer
        self._ask_elsewhere(requests, answers)
        return answers

    def _ask_elsewhere(self, requests: Sequence[tuple[str, Command]], answers: list[Any]) -> None:
        """Ask about keys that are being moved where they are moved to; everything about them, to keep the order."""
        moving = {requests[n][0]: answer for n, answer in enumerate(answers) if isinstance(answer, AskError)}
        for key, ask in moving.items():
            numbers = [number for number, (name, _) in enumerate(requests) if name == key]
            commands = [word for number in numbers for word in (("ASKING",), requests[number][1])]
            sent = _sent(self._finder.client_at(ask.host, ask.port), commands)[1::2]
            for number, answer in zip(numbers, sent, strict=True):
                answers[number] = answer


@dataclass(frozen=True, slots=True)
class Script:
    """A program for the server, sent once and then named by its digest."""

    text: str

    def ask(self, servers: Servers, keys: Sequence[str], *arguments: str | int | bytes) -> Any:
        """Give its answer, be it an error. The keys are in one slot of a cluster."""
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        rest = (len(keys), *keys, *arguments)
        (answer,) = servers.ask(keys[0], ("EVALSHA", digest, *rest))
        if isinstance(answer, NoScriptError):
            (answer,) = servers.ask(keys[0], ("EVAL", self.text, *rest))
        return answer


class _Finder(Protocol):
    """Knows which server has a key."""

    def client_of(self, key: str) -> redis.Redis: ...

    def client_at(self, host: str, port: int) -> redis.Redis: ...

    def forget(self) -> None: ...

    def close(self) -> None: ...


class _Server:
    """One server, or the master of some Sentinels, which the client asks for at every new connection."""

    def __init__(self, target: RedisTarget, common: dict[str, Any]) -> None:
        self._sentinels: list[redis.Redis] = []
        if target.kind == "server":
            self._client = redis.Redis.from_url(target.url, **common)
        else:
            sentinel = Sentinel(
                list(target.addresses), sentinel_kwargs=common | target.sentinel_options, **common | target.options
            )
            self._sentinels = sentinel.sentinels
            self._client = sentinel.master_for(target.master)
        _raw(self._client)

    def client_of(self, key: str) -> redis.Redis:  # noqa: ARG002  there is one for all keys
        return self._client

    def client_at(self, host: str, port: int) -> redis.Redis:
        raise SynapseUnavailable(f"Redis says that it is a cluster, whose data is at {host}:{port}; use redis+cluster:")

    def forget(self) -> None:
        self._client.connection_pool.disconnect()

    def close(self) -> None:
        for client in (self._client, *self._sentinels):
            client.close()


class _Cluster:
    """The nodes of a cluster, and which of them has which slots; found out when asked, from whichever node answers."""

    def __init__(self, target: RedisTarget, common: dict[str, Any]) -> None:
        self._options = common | target.options
        self._known = list(target.addresses)
        self._clients: dict[tuple[str, int], redis.Redis] = {}
        self._slots: list[tuple[int, int, str, int]] = []
        self.client_at(*self._known[0])  # has the options checked

    def client_of(self, key: str) -> redis.Redis:
        if not self._slots:
            self._find_out()
        slot = key_slot(key.encode())
        for first, last, host, port in self._slots:
            if first <= slot <= last:
                return self.client_at(host, port)
        raise ClusterDownError(f"CLUSTERDOWN no node has slot {slot}")

    def client_at(self, host: str, port: int) -> redis.Redis:
        client = self._clients.get((host, port))
        if client is None:
            client = self._clients[host, port] = redis.Redis(host=host, port=port, **self._options)
            _raw(client)
        return client

    def forget(self) -> None:
        self._slots = []
        for client in self._clients.values():
            client.connection_pool.disconnect()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _find_out(self) -> None:
        trouble: Exception | None = None
        for host, port in self._known:
            try:
                ranges: Any = self.client_at(host, port).execute_command("CLUSTER SLOTS")
            except redis.RedisError as error:
                trouble = error
                continue
            # A node that does not know by which name it is reached leaves that out.
            self._slots = [(first, last, node[0].decode() or host, node[1]) for first, last, node, *_ in ranges]
            found = {(host, port) for _, _, host, port in self._slots}
            self._known = [*sorted(found), *(each for each in self._known if each not in found)]
            return
        if isinstance(trouble, redis.ResponseError):
            raise trouble
        raise redis.ConnectionError(f"no node of the cluster answers: {trouble}")


_FINDERS: Final[dict[str, Callable[[RedisTarget, dict[str, Any]], _Finder]]] = {
    "server": _Server,
    "sentinel": _Server,
    "cluster": _Cluster,
}


def _sent(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    if len(commands) == 1:
        try:
            return [client.execute_command(*commands[0])]
        except redis.ResponseError as error:
            return [error]
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return pipeline.execute(raise_on_error=False)


def _raw(client: redis.Redis) -> None:
    for name in _RAW:
        client.set_response_callback(name, _as_it_is)


def _as_it_is(reply: Any, **_: Any) -> Any:
    return reply


def _partitions(text: str) -> int:
    if text.isdigit() and 1 <= int(text) <= _MAX_PARTITIONS:
        return int(text)
    raise ConfigurationError(
        f"partitions={text} in a Redis URL is a number from 1 to {_MAX_PARTITIONS}", setting=_SETTING, value=text
    )


def _addresses(servers: str, *, port: int, place: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for server in servers.split(","):
        host, colon, number = server.strip().rpartition(":") if not server.endswith("]") else (server, "", "")
        host = (host if colon else number or host).strip("[]")
        if not host or (colon and not number.isdigit()):
            raise _malformed(place, f"{server!r} is not HOST:PORT")
        found.append((host, int(number) if colon else port))
    return found


def _malformed(place: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{place} is not the URL of a Redis server: {why}", setting=_SETTING, value=place)
