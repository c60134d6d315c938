"""Large values in lines: where a line refers to the table of payloads, the value itself takes its place."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
import orjson
import zstandard

from workledger.errors import StoreCorrupted
from workledger.model.payload import Blob

__all__ = ["Resolver"]

_MARK: Final = b'"$workledger": "payload"'
# How jsonb writes a reference: keys by length, one space after colon and comma. A dict of the recorded program that
# looks like one is wrapped by `model.jsonvalue`, and so never stands where these are looked for.
_REFERENCE: Final = re.compile(rb'\{"size": (\d+), "digest": "([0-9a-f]{64})", "\$workledger": "payload"\}')
#: Lines are given on in lots of about this size, so that memory does not grow with what they refer to.
_LOT_BYTES: Final = 8 * 1024 * 1024
_CACHE_BYTES: Final = 16 * 1024 * 1024

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Payloads = Callable[[Sequence[bytes]], dict[bytes, Blob]]


class Resolver:
    """Puts large values back into lines; keeps those it needed last, because many runs share one prompt."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._fetched: dict[bytes, Blob] = {}

    def expand(self, lines: Sequence[bytes], *, nested: str | None = None) -> Iterator[list[bytes]]:
        """Give the lines with their large values in full, in order, in lots of bounded size.

        References are looked for in the values of the line's columns; with `nested`, in the members of that
        column, and in those of a `message` in it. Raises `StoreCorrupted` for a value that is missing or altered.
        """
        if not any(_MARK in line for line in lines):
            yield list(lines)
            return
        lot: list[bytes] = []
        wanted: dict[bytes, None] = {}
        size_bytes = 0
        for line in lines:
            lot.append(line)
            if _MARK not in line:
                continue
            for found in _REFERENCE.finditer(line):
                wanted[bytes.fromhex(found[2].decode())] = None
                size_bytes += int(found[1])
            if size_bytes > _LOT_BYTES:
                yield self._expanded_lot(lot, wanted, nested)
                lot, wanted, size_bytes = [], {}, 0
        if lot:
            yield self._expanded_lot(lot, wanted, nested) if wanted else lot

    def _expanded_lot(self, lot: list[bytes], wanted: Iterable[bytes], nested: str | None) -> list[bytes]:
        missing = [digest for digest in wanted if digest not in self._cache]
        self._fetched = self._payloads(missing) if missing else {}
        return [line if _MARK not in line else self._expanded(line, nested) for line in lot]

    def _expanded(self, line: bytes, nested: str | None) -> bytes:
        columns = _decode_object(line)
        if nested is None:
            return orjson.dumps(self._object(columns))
        try:
            inner = _decode_object(columns[nested])
        except msgspec.MsgspecError:
            return line
        members = self._object(inner)
        if "message" in inner:
            members["message"] = self._message(bytes(inner["message"]))
        kept = {name: orjson.Fragment(bytes(value)) for name, value in columns.items()}
        return orjson.dumps(kept | {nested: members})

    def _message(self, message: bytes) -> object:
        if _REFERENCE.fullmatch(message):
            return orjson.Fragment(self._value(message))
        try:
            return self._object(_decode_object(message))
        except msgspec.MsgspecError:
            return orjson.Fragment(message)

    def _object(self, members: dict[str, msgspec.Raw]) -> dict[str, object]:
        return {name: orjson.Fragment(self._value(bytes(value))) for name, value in members.items()}

    def _value(self, value: bytes) -> bytes:
        found = _REFERENCE.fullmatch(value)
        return value if found is None else self._content(bytes.fromhex(found[2].decode()))

    def _content(self, digest: bytes) -> bytes:
        if digest in self._cache:
            self._cache.move_to_end(digest)
            return self._cache[digest]
        blob = self._fetched.get(digest) or self._payloads([digest]).get(digest)
        if blob is None:
            raise StoreCorrupted(
                f"payload {digest.hex()} is referred to and not stored; restore it into the table `payloads`",
                location=f"payloads/{digest.hex()}",
            )
        content = _unpacked(blob)
        self._remember(digest, content)
        return content

    def _remember(self, digest: bytes, content: bytes) -> None:
        self._cache[digest] = content
        self._cached_bytes += len(content)
        while self._cached_bytes > _CACHE_BYTES and self._cache:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped)


def _unpacked(blob: Blob) -> bytes:
    """Give the JSON of a stored payload, after comparing it with its digest."""
    data = blob.body
    if blob.codec == "json+zstd":
        try:
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=max(blob.size_bytes, 1))
        except zstandard.ZstdError as error:
            raise StoreCorrupted(
                f"payload {blob.digest.hex()} cannot be decompressed: {error}", location=f"payloads/{blob.digest.hex()}"
            ) from error
    if hashlib.sha256(data).digest() != blob.digest:
        raise StoreCorrupted(
            f"payload {blob.digest.hex()} is not what its digest says", location=f"payloads/{blob.digest.hex()}"
        )
    return data
