"""How somebody who reads over a connection gets at what is archived: whoever opens the connection gives it access."""

from __future__ import annotations

from weakref import WeakKeyDictionary, WeakSet

from workledger.errors import ConfigurationError
from workledger.model.archived import ArchiveAccess, ArchiveFile
from workledger.postgres.connection import Connection

__all__ = ["access_for", "give_access", "is_mounted", "set_mounted"]

_access: WeakKeyDictionary[Connection, ArchiveAccess] = WeakKeyDictionary()
_mounted: WeakSet[Connection] = WeakSet()


def give_access(connection: Connection, access: ArchiveAccess) -> None:
    """Let whoever reads over a connection find archived rows with this."""
    _access[connection] = access


def set_mounted(connection: Connection, *, mounted: bool) -> None:
    """Say whether archived rows stand among those of the database for a connection, so that files need not be read."""
    if mounted:
        _mounted.add(connection)
    else:
        _mounted.discard(connection)


def is_mounted(connection: Connection) -> bool:
    """Whether archived rows stand among those of the database."""
    return connection in _mounted


def access_for(connection: Connection, archive: ArchiveFile) -> ArchiveAccess:
    """The access of a connection; raises `ConfigurationError`, naming the file, where it was given none."""
    access = _access.get(connection)
    if access is None:
        raise ConfigurationError(
            f"what was asked for is archived in {archive.url}, and this connection cannot read archives; use one of "
            "`workledger.open()`",
            setting="connection",
            value=archive.name,
        )
    return access
