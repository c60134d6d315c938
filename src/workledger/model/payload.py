"""Values on their way into an event: encoded once, and moved aside when they are large."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
import zstandard

from workledger.errors import InvalidInput, StoreCorrupted
from workledger.model.jsonvalue import TAG, Placeholder, decode, encode, escape_text

if TYPE_CHECKING:
    from datetime import datetime

    from workledger.model.fact import Usage

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "OFFLOAD_BYTES",
    "Blob",
    "Packer",
    "Reference",
    "blob_json",
    "reference_of",
    "unpack_blob",
]

logger = logging.getLogger(__name__)

#: Values above this many bytes of JSON are stored once, by digest, and referred to.
OFFLOAD_BYTES = 4096
#: One value may have at most this many bytes of JSON.
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024

_told: set[tuple[str, str]] = set()


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """A large value, addressed by the SHA-256 of its JSON."""

    digest: bytes
    codec: str
    size_bytes: int
    body: bytes


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in a row for a value that is kept in `payloads`."""

    digest: bytes
    size_bytes: int


def reference_of(value: object) -> Reference | None:
    """Return the reference that a decoded value is, or None when it is the value itself."""
    if isinstance(value, dict) and value.get(TAG) == "payload":  # pyright: ignore[reportUnknownMemberType]
        return Reference(digest=bytes.fromhex(value["digest"]), size_bytes=value["size"])  # pyright: ignore[reportUnknownArgumentType]
    return None


def unpack_blob(blob: Blob) -> Any:
    """Return the value of a stored blob, or raise `StoreCorrupted` when it is not what its digest says."""
    return decode(blob_json(blob))


def blob_json(blob: Blob) -> bytes:
    """Return the JSON of a stored blob, or raise `StoreCorrupted` when it is not what its digest says."""
    data = blob.body
    if blob.codec == "json+zstd":
        try:
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=blob.size_bytes)
        except zstandard.ZstdError as error:
            raise StoreCorrupted(
                f"payload {blob.digest.hex()} cannot be decompressed: {error}", location=blob.digest.hex()
            ) from error
    if hashlib.sha256(data).digest() != blob.digest:
        raise StoreCorrupted(
            f"payload {blob.digest.hex()} does not have the content its digest names", location=blob.digest.hex()
        )
    return data


@dataclass(slots=True)
class Packer:
    """Encodes the values of one event; collects the large ones as blobs.

    `strict=True` (direct API calls) refuses a value over the limit with `InvalidInput`; otherwise (decorators)
    a described placeholder with the digest takes its place, and the recorded program goes on. `pricing` puts a cost
    to what a model call used.
    """

    strict: bool = True
    pricing: Callable[[Usage, datetime], Usage] | None = None
    blobs: list[Blob] = field(default_factory=list[Blob])
    placeholders: int = 0

    def value(self, name: str, value: object) -> orjson.Fragment:
        """Return the JSON of a value, or of a reference to it, ready to stand in an event's payload."""
        data = encode(value, on_placeholder=self._note)
        if len(data) <= OFFLOAD_BYTES:
            return orjson.Fragment(data)
        digest = hashlib.sha256(data)
        if len(data) > MAX_PAYLOAD_BYTES:
            return self._refuse(name, value, size=len(data), digest=digest.hexdigest())
        self.blobs.append(_blob(digest.digest(), data))
        return orjson.Fragment(orjson.dumps({TAG: "payload", "digest": digest.hexdigest(), "size": len(data)}))

    def json(self, name: str, value: object) -> orjson.Fragment:
        """Return the JSON of a value that stays in the row whatever its size (metadata, tags, steps)."""
        data = encode(value, on_placeholder=self._note)
        if len(data) > MAX_PAYLOAD_BYTES:
            return self._refuse(name, value, size=len(data), digest=hashlib.sha256(data).hexdigest())
        return orjson.Fragment(data)

    def fields(self, name: str, values: Mapping[str, object]) -> dict[str, Any]:
        """Return an object whose values are packed one by one; one that uses the reserved key is wrapped."""
        packed = {escape_text(key): self.value(f"{name}.{key}", value) for key, value in values.items()}
        return {TAG: "dict", "value": packed} if TAG in packed else packed

    def text(self, value: str | None) -> str | None:
        """Return text with what PostgreSQL refuses escaped; None stays None."""
        return None if value is None else escape_text(value)

    def _refuse(self, name: str, value: object, *, size: int, digest: str) -> orjson.Fragment:
        if self.strict:
            raise InvalidInput(
                f"{name} has {size:,} bytes of JSON; the limit is {MAX_PAYLOAD_BYTES:,}. "
                "Store it elsewhere and record where",
                field=name,
                value=type(value).__name__,
                limit=MAX_PAYLOAD_BYTES,
            )
        placeholder = Placeholder(value, "over the payload limit", size_bytes=size, sha256=digest)
        self._note(placeholder)
        return orjson.Fragment(orjson.dumps(dict(placeholder)))

    def _note(self, placeholder: Placeholder) -> None:
        self.placeholders += 1
        key = (placeholder["type"], placeholder["reason"])
        if key not in _told:
            _told.add(key)
            logger.warning("value.not_kept type=%s reason=%s (said once)", *key)


def _blob(digest: bytes, data: bytes) -> Blob:
    packed = zstandard.ZstdCompressor(level=3).compress(data)
    if len(packed) < len(data):
        return Blob(digest=digest, codec="json+zstd", size_bytes=len(data), body=packed)
    return Blob(digest=digest, codec="json", size_bytes=len(data), body=data)
