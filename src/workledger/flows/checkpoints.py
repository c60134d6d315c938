"""The arrow from the seals to a place outside the database, by its URL: a folder, or a place in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from workledger.errors import ConfigurationError, StoreCorrupted
from workledger.flows.seal import write_checkpoint
from workledger.log import seal
from workledger.log.seal_checkpoints import CheckpointStore, FolderCheckpoints
from workledger.postgres.connection import Connection
from workledger.training import urls

if TYPE_CHECKING:
    from workledger.training.bucket import Bucket

__all__ = ["BucketCheckpoints", "keep_newest", "open_checkpoints"]

_SUFFIX: Final = ".checkpoint"
_KNOWN: Final = "a folder, file:FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"


class BucketCheckpoints:
    """A place in a bucket. It should belong to another account, which lets this one add objects and not remove them."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def keep(self, name: str, note: str) -> None:
        """Make an object, where there is none of that name."""
        try:
            self._bucket.create(name, note.encode())
        except StoreCorrupted as error:
            raise StoreCorrupted(
                f"{self._bucket.name}/{name} holds another checkpoint for this position: the log was rewritten, or two "
                "logs share the place; `workledger verify --seals` tells which",
                location=f"{self._bucket.name}/{name}",
            ) from error

    def names(self) -> list[str]:
        """The names of the checkpoints, oldest first."""
        return sorted(one.path for one in self._bucket.list("") if one.path.endswith(_SUFFIX))

    def read_all(self) -> dict[str, str]:
        """Every checkpoint by name, oldest first."""
        found = ((name, self._bucket.read(name)) for name in self.names())
        return {name: content[0].decode("utf-8", "replace") for name, content in found if content is not None}


def open_checkpoints(place: str) -> CheckpointStore:
    """Give the place of checkpoints that a URL means, or the path of a folder. Nothing is made or read yet."""
    parts = urlsplit(place)
    if not parts.scheme and place:
        return FolderCheckpoints(Path(place).expanduser())
    if parts.scheme == "file" and parts.path and parts.netloc in {"", "localhost"} and not parts.query:
        return FolderCheckpoints(Path(unquote(parts.path)).expanduser())
    if urls.is_bucket(place):
        return BucketCheckpoints(urls.open_bucket(place))
    raise ConfigurationError(
        f"{place!r} is no place for checkpoints; use {_KNOWN}", setting="WORKLEDGER_CHECKPOINTS_URL", value=place
    )


def keep_newest(connection: Connection, store: CheckpointStore) -> str | None:
    """Keep the checkpoint of the newest seal, and return its name; None when nothing is sealed yet.

    Raises `ConfigurationError` when seals are not signed: there is nothing to keep then.
    """
    name = write_checkpoint(connection, store)
    if name is None and seal.newest(connection) is not None:
        raise ConfigurationError(
            "the newest seal is not signed, so there is no checkpoint to keep; make a key with `workledger keys new` "
            "and a seal with `workledger seals make`",
            setting="keys",
            value=None,
        )
    return name
