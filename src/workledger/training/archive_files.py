"""Where the files of the archive are: a folder, or a place in a bucket. A file is made once and never replaced."""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from workledger.errors import ConfigurationError, StoreCorrupted, Unavailable

# Who only opens a connection imports this, and nothing of it.
# ruff: noqa: PLC0415

__all__ = [
    "ArchiveFiles",
    "FolderFiles",
    "HashingFile",
    "archive_root",
    "open_archive_file",
    "open_files",
]

_KNOWN: Final = "file:FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
_BUFFER_BYTES: Final = 1024 * 1024


class ArchiveFiles(Protocol):
    """The files below one root. Their names are paths with slashes."""

    def url(self, name: str) -> str:
        """Give the address of a file, by which `open_archive_file` finds it from anywhere."""
        ...

    def preparing(self, name: str) -> AbstractContextManager[HashingFile]:
        """Give a file to write; at the end of the block it is brought to its name, where nothing may be yet.

        Raises `FileExistsError` when other bytes are there (the same ones are fine), and `Unavailable` when there is
        no room or no way.
        """
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file to read and to seek in it; the caller closes it. Raises `StoreCorrupted` when it is gone."""
        ...


class HashingFile:
    """A file that is written from beginning to end, with the digest of what went into it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0
        self.closed = False

    @property
    def sha256(self) -> bytes:
        """The digest of what was written."""
        return self._digest.digest()

    def write(self, data: bytes, /) -> int:
        """Add bytes."""
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)
        return len(data)

    def tell(self) -> int:
        """Give the number of bytes so far."""
        return self.size_bytes

    def flush(self) -> None:
        """Leave it to the end."""

    def close(self) -> None:
        """Leave it to whoever opened the file."""


class FolderFiles:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()

    def url(self, name: str) -> str:
        """Give the address of a file."""
        return f"file://{quote(str(self._root / name))}"

    @contextmanager
    def preparing(self, name: str) -> Generator[HashingFile]:
        """Write beside, bring it to the disk, and link it to its name, which fails where one is."""
        final = self._root / name
        with explained(self._root):
            scratch = self._root / "_tmp"
            for folder in (scratch, final.parent):
                folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(scratch)
            temporary, file = _new_file(scratch)
        try:
            hashing = HashingFile(file)
            with explained(self._root):
                yield hashing
                file.flush()
                os.fsync(file.fileno())
                self._place(temporary, final, hashing)
        finally:
            _discard(file, temporary)

    def open(self, name: str) -> BinaryIO:
        """Open a file."""
        return _open_path(self._root / name)

    def _place(self, temporary: Path, final: Path, hashing: HashingFile) -> None:
        from workledger.training.shards import create_file, sync_folder

        try:
            create_file(temporary, final, sha256=hashing.sha256.hex())
        except StoreCorrupted as error:
            raise FileExistsError(str(final)) from error
        sync_folder(final.parent)


def archive_root(training_urls: str) -> str:
    """Give the place of the archive beside the first training store: `archive/` in its folder or bucket."""
    from workledger.training import urls

    for url in urls.split_urls(training_urls):
        parts = urlsplit(url.removeprefix("delta+").removeprefix("iceberg+"))
        if parts.scheme == "file":
            return f"file:{parts.path.rstrip('/')}/archive"
        if parts.scheme in urls.BUCKETS:
            kept = [word for word in parts.query.split("&") if word.startswith(("endpoint=", "region="))]
            return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/archive", query="&".join(kept)))
    raise ConfigurationError(
        f"the training store {training_urls!r} has no room for an archive; say where: set archive_url, or use --to",
        setting="WORKLEDGER_ARCHIVE_URL",
        value=training_urls,
    )


def open_files(url: str) -> ArchiveFiles:
    """Give the files below a URL. Nothing is made or read yet."""
    from workledger.training import urls

    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path and parts.netloc in {"", "localhost"} and not parts.query:
        return FolderFiles(Path(unquote(parts.path)))
    if urls.is_bucket(url):
        from workledger.training import archive_bucket

        return archive_bucket.BucketFiles(url)
    raise ConfigurationError(f"{url!r} is no place for an archive; use {_KNOWN}", setting="archive_url", value=url)


def open_archive_file(url: str) -> BinaryIO:
    """Open a file of the archive by its address; the caller closes it. Raises `StoreCorrupted` when it is gone."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return _open_path(Path(unquote(parts.path)))
    from workledger.training import urls

    if urls.is_bucket(url):
        from workledger.training import archive_bucket

        return archive_bucket.open_object(url)
    raise ConfigurationError(f"no archive can be read from {url!r}", setting="archive_url", value=url)


def _open_path(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise StoreCorrupted(f"the archive file {path} is gone", location=str(path)) from error
    except OSError as error:
        raise Unavailable(f"the archive file {path} cannot be read: {error}") from error


def _remove_abandoned(scratch: Path) -> None:
    """Remove what archivers that were killed have left: the files that nobody holds a lock on.

    Other projects may share the folder, so names and ages tell nothing.
    """
    for path in scratch.iterdir():
        with suppress(OSError), path.open("rb") as file:
            if _is_locked(file):
                path.unlink()


def _new_file(scratch: Path) -> tuple[Path, BinaryIO]:
    """Make a file and lock it, so that nobody takes it for abandoned; again, if somebody did between the two."""
    while True:
        path = scratch / uuid.uuid4().hex
        file = path.open("xb", buffering=_BUFFER_BYTES)
        _is_locked(file)
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()


def _is_locked(file: BinaryIO) -> bool:
    """Lock a file until it is closed or its process ends; False where another one has, or where nobody can."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _discard(file: BinaryIO, temporary: Path) -> None:
    # The disk may be full: closing writes what is buffered, fails again, and closes all the same.
    with suppress(OSError):
        file.close()
    temporary.unlink(missing_ok=True)


@contextmanager
def explained(root: Path | str, also: type[Exception] = OSError) -> Generator[None]:
    """Say what to do about a disk that is full, a folder that cannot be written, or a bucket that is away."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise Unavailable(
            f"the archive {root} cannot be written: {error}. Nothing has left the database for it; archive again once "
            "there is room and permission"
        ) from error
    except also as error:
        reason = getattr(error, "details", {}).get("reason", error)
        raise Unavailable(
            f"the archive cannot be written: {reason}. Nothing has left the database for it; archive again later"
        ) from error
