"""Opening files of the archive for readers, and keeping the last ones open. Not for several threads at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from workledger.errors import ConfigurationError, StoreCorrupted
from workledger.model.archived import ArchiveFile
from workledger.model.payload import Blob
from workledger.training.archive_files import open_archive_file, open_files

if TYPE_CHECKING:
    from workledger.training.event_archive import EventFile

__all__ = ["FileAccess"]

_KEPT_OPEN: Final = 4


class FileAccess:
    """Finds files where `archives` says they are or, when they were moved, below the root of the settings.

    A `model.archived.ArchiveAccess`. Opens nothing, and imports nothing large, before it is asked.
    """

    def __init__(self, root_url: Callable[[], str]) -> None:
        self._root_url = root_url
        self._open: OrderedDict[str, EventFile] = OrderedDict()

    def events(self, archive: ArchiveFile) -> EventFile:
        """Give the events of a file."""
        from workledger.training.event_archive import EventFile  # noqa: PLC0415  needs an extra, and takes long

        found = self._open.get(archive.name)
        if found is None:
            found = self._open[archive.name] = EventFile(self.open(archive), location=archive.url)
            if len(self._open) > _KEPT_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(archive.name)
        return found

    def payloads(self, archive: ArchiveFile, digests: Iterable[bytes]) -> dict[bytes, Blob]:
        """Give large values of a file by digest."""
        from workledger.training.table_archive import PayloadFile  # noqa: PLC0415  needs an extra, and takes long

        with self.open(archive) as file:
            return PayloadFile(file, location=archive.url).read(digests)

    def rows(self, archive: ArchiveFile, column: str, values: Iterable[str]) -> list[dict[str, Any]]:
        """Give the rows of a file of state that have one of these values in a column."""
        from workledger.training.table_archive import TableFile  # noqa: PLC0415  needs an extra, and takes long

        with self.open(archive) as file:
            return TableFile(file, location=archive.url).rows(column, values)

    def open(self, archive: ArchiveFile) -> BinaryIO:
        """Open a file; the caller closes it."""
        try:
            return open_archive_file(archive.url)
        except StoreCorrupted:
            with suppress(StoreCorrupted, ConfigurationError):
                return open_files(self._root_url()).open(archive.name)
            raise
