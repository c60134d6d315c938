"""The archive in a bucket: a file is written on this machine first, and goes up whole; it is read a part at a time."""

from __future__ import annotations

import io
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from workledger.errors import StoreCorrupted, Unavailable
from workledger.training import urls
from workledger.training.archive_files import HashingFile, explained
from workledger.training.bucket import Bucket
from workledger.training.scratch import scratch_folder

__all__ = ["BucketFiles", "open_object"]

_BUFFER_BYTES: Final = 1024 * 1024
#: So much is fetched at once for whoever reads a little at a time; what is longer is fetched as it is asked for.
_AHEAD_BYTES: Final = 1024 * 1024


class BucketFiles:
    """A place in a bucket."""

    def __init__(self, root_url: str) -> None:
        self._parts = urlsplit(root_url)
        self._bucket = urls.open_bucket(root_url)
        self._checked = False

    def url(self, name: str) -> str:
        """Give the address of an object."""
        return urlunsplit(self._parts._replace(path=f"{self._parts.path.rstrip('/')}/{quote(name)}"))

    @contextmanager
    def preparing(self, name: str) -> Generator[HashingFile]:
        """Write on this machine, and bring it up, which fails where another object is."""
        with scratch_folder() as folder:
            local = folder / "file"
            with explained(self._bucket.name), local.open("xb", buffering=_BUFFER_BYTES) as file:
                hashing = HashingFile(file)
                yield hashing
            with explained(self._bucket.name, Unavailable):
                self._upload(local, name, hashing)

    def open(self, name: str) -> BinaryIO:
        """Open an object."""
        return _opened(self._bucket, name)

    def _upload(self, local: Path, name: str, hashing: HashingFile) -> None:
        if not self._checked:
            self._bucket.check_conditions()
            self._checked = True
        try:
            self._bucket.upload(local, name, sha256=hashing.sha256.hex())
        except StoreCorrupted as error:
            raise FileExistsError(name) from error


def open_object(url: str) -> BinaryIO:
    """Open an object by its address; the caller closes it. Raises `StoreCorrupted` when it is gone."""
    parts = urlsplit(url)
    bucket = urls.open_bucket(urlunsplit(parts._replace(path="")))
    return _opened(bucket, unquote(parts.path).lstrip("/"))


def _opened(bucket: Bucket, path: str) -> BinaryIO:
    size_bytes = bucket.size_bytes(path)
    if size_bytes is None:
        where = f"{bucket.name}/{path}"
        raise StoreCorrupted(f"the archive file {where} is gone", location=where)
    return cast("BinaryIO", io.BufferedReader(_ObjectFile(bucket, path, size_bytes), _AHEAD_BYTES))


class _ObjectFile(io.RawIOBase):
    """An object that nobody changes."""

    def __init__(self, bucket: Bucket, path: str, size_bytes: int) -> None:
        self._bucket = bucket
        self._path = path
        self._size_bytes = size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        length = min(len(buffer), self._size_bytes - self._at)
        if length <= 0:
            return 0
        part = self._bucket.read_part(self._path, start=self._at, length=length)
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
