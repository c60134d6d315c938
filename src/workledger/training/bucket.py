"""A bucket on S3, Google Cloud Storage or Azure: whole objects, made once, and one that is swapped by its version.

Credentials, and whatever else a cloud wants to know, come from the variables that its own tools read:
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`;
`GOOGLE_APPLICATION_CREDENTIALS`; `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`.
"""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar, cast

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

from workledger.errors import MissingExtra, StoreCorrupted, Unavailable, WorkledgerError
from workledger.training.clouds import cloud_error, refused, wrong

try:
    import obstore
    from obstore import exceptions
    from obstore.store import AzureStore, GCSStore, S3Store
except ImportError as error:
    raise MissingExtra("object stores need obstore: pip install 'workledger[objects]'", extra="objects") from error

__all__ = ["SCHEMES", "Bucket", "Version"]

T = TypeVar("T")

#: What tells one content of an object from another: the arguments of a conditional write.
Version = dict[str, str]

_MAKERS: Final[dict[str, Any]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
SCHEMES: Final = tuple(_MAKERS)
#: What is larger goes up in parts, which no store can be told to do only if the name is free.
_ONE_PUT_BYTES: Final = 64 * 1024 * 1024
_IN_MEMORY_BYTES: Final = 8 * 1024 * 1024
_ATTEMPTS: Final = 3
_CHUNK_BYTES: Final = 1024 * 1024
_RETRY: Final = {
    "max_retries": 5,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
    "retry_timeout": timedelta(seconds=30),
}
_TIMEOUTS: Final = {"timeout": timedelta(seconds=60), "connect_timeout": timedelta(seconds=5)}


class Listed(NamedTuple):
    """An object that is there."""

    path: str
    written_at: datetime


class Bucket:
    """The objects below a prefix. Raises `ConfigurationError` for what trying again does not mend."""

    def __init__(
        self, scheme: str, name: str, *, prefix: str, endpoint: str | None = None, region: str | None = None
    ) -> None:
        self.name = f"{scheme}://{name}" + (f"/{prefix}" if prefix else "")
        options: dict[str, Any] = {"client_options": dict(_TIMEOUTS), "retry_config": _RETRY}
        if endpoint is not None:
            options["base_url" if scheme == "gs" else "endpoint"] = endpoint
            options["client_options"]["allow_http"] = endpoint.startswith("http://")
        if region is not None:
            options["region"] = region
        with self._explained():
            self._store = _MAKERS[scheme](name, prefix=prefix or None, **options)

    def read(self, path: str) -> tuple[bytes, Version] | None:
        """Give an object and its version; None when it is not there."""

        def get() -> tuple[bytes, Version] | None:
            try:
                found = obstore.get(self._store, path)
            except FileNotFoundError:
                return None
            return bytes(found.bytes()), _version(found.meta)

        return self._try(get)

    def open(self, path: str) -> BinaryIO | None:
        """Give an object as a file to read and seek in; None when it is not there. Long ones are on the disk."""

        def get() -> BinaryIO | None:
            try:
                found = obstore.get(self._store, path)
            except FileNotFoundError:
                return None
            file = cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES))  # noqa: SIM115  the caller closes it
            for chunk in found.stream():
                file.write(bytes(chunk))
            file.seek(0)
            return file

        return self._try(get)

    def size_bytes(self, path: str) -> int | None:
        """Give how long an object is; None when it is not there."""

        def head() -> int | None:
            try:
                return obstore.head(self._store, path)["size"]
            except FileNotFoundError:
                return None

        return self._try(head)

    def read_part(self, path: str, *, start: int, length: int) -> bytes:
        """Give so many bytes of an object from a place on."""
        return self._try(lambda: bytes(obstore.get_range(self._store, path, start=start, length=length)))

    def create(self, path: str, data: bytes) -> None:
        """Make an object. The same bytes there are fine; other bytes raise `StoreCorrupted`."""
        if not self._try(lambda: self._created(path, data)):
            found = self.read(path)
            if found is None or found[0] != data:
                raise self._taken(path)

    def upload(self, source: Path, path: str, *, sha256: str) -> None:
        """Make an object of a file. The same bytes there are fine; other bytes raise `StoreCorrupted`."""
        if source.stat().st_size > _ONE_PUT_BYTES:
            if self.written_at(path) is None:
                self._try(lambda: obstore.put(self._store, path, source, max_concurrency=2))
                return
        elif self._try(lambda: self._created(path, source)):
            return
        if self._sha256(path) != sha256:
            raise self._taken(path)

    def swap(self, path: str, data: bytes, version: Version | None) -> Version | None:
        """Put an object in the place of that version of it (None: of nothing) and give the new version.

        None when another one is there. After an answer that was lost, that may be the one that was to be put.
        """

        def put() -> Version | None:
            mode: Any = "create" if version is None else version
            try:
                return _version(obstore.put(self._store, path, data, mode=mode, use_multipart=False))
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                return None

        return self._try(put)

    def put(self, path: str, data: bytes) -> None:
        """Make an object, or put it in the place of the one that is there."""
        self._try(lambda: obstore.put(self._store, path, data, use_multipart=False))

    def list(self, folder: str) -> list[Listed]:
        """Give the objects below a folder, in no order."""

        def pages() -> list[Listed]:
            return [
                Listed(found["path"], found["last_modified"])
                for page in obstore.list(self._store, folder)
                for found in page
            ]

        return self._try(pages)

    def written_at(self, path: str) -> datetime | None:
        """Give when an object was written, by the clock of the store; None when it is not there."""

        def head() -> datetime | None:
            try:
                return obstore.head(self._store, path)["last_modified"].astimezone(UTC)
            except FileNotFoundError:
                return None

        return self._try(head)

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects; those that are gone already are fine."""

        def delete(path: str) -> None:
            try:
                obstore.delete(self._store, path)
            except FileNotFoundError:
                return

        for path in paths:
            self._try(lambda path=path: delete(path))

    def check_conditions(self) -> None:
        """Raise `ConfigurationError` when the store does not keep to the conditions of a write.

        Everything else rests on them: a store that ignores them would lose what one of two writers wrote.
        """
        path = f"_tmp/{uuid.uuid4().hex}"
        self.swap(path, b"1", None)
        again = self.swap(path, b"2", None)
        stale = self.swap(path, b"3", {"e_tag": '"00000000000000000000000000000000"', "version": "1"})
        self.delete([path])
        if again is not None or stale is not None:
            raise wrong(
                f"{self.name} ignores the conditions of a write (If-None-Match, If-Match), so that two writers would "
                "overwrite each other; use another store",
                name=self.name,
            )

    # -- errors -------------------------------------------------------------------------------------------------

    def _created(self, path: str, data: bytes | Path) -> bool:
        try:
            obstore.put(self._store, path, data, mode="create", use_multipart=False)
        except exceptions.AlreadyExistsError:
            return False
        return True

    def _sha256(self, path: str) -> str | None:
        file = self.open(path)
        if file is None:
            return None
        digest = hashlib.sha256()
        with file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def _taken(self, path: str) -> StoreCorrupted:
        return StoreCorrupted(
            f"{self.name}/{path} is there already with other content; move it away to have it written again",
            location=path,
        )

    def _try(self, act: Callable[[], T]) -> T:
        """Do something, again and again for a while when the store cannot be reached."""
        again = Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(multiplier=0.2, max=5) + wait_random(0, 0.2),
            reraise=True,
        )
        return cast("T", again(self._once, act))

    def _once(self, act: Callable[[], T]) -> T:
        with self._explained():
            return act()

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except WorkledgerError:
            raise
        except FileNotFoundError as error:
            raise wrong(f"{self.name}: there is no such bucket; make it first", name=self.name) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise refused(error, name=self.name) from error
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise cloud_error(error, name=self.name) from error


def _version(found: Any) -> Version:
    return {name: found[name] for name in ("e_tag", "version") if found.get(name) is not None}
