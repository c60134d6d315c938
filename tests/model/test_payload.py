"""Large values live once, by digest; too large ones are refused or described."""

import orjson
import pytest

from workledger.errors import InvalidInput, StoreCorrupted
from workledger.model.jsonvalue import decode, is_placeholder
from workledger.model.payload import MAX_PAYLOAD_BYTES, OFFLOAD_BYTES, Packer, reference_of, unpack_blob


def written(fragment):
    return decode(orjson.dumps(fragment))


def test_a_small_value_stays_where_it_is():
    packer = Packer()
    assert written(packer.value("input", {"a": 1})) == {"a": 1}
    assert packer.blobs == []


def test_a_large_value_is_moved_aside_and_comes_back():
    packer = Packer()
    value = {"text": "x" * OFFLOAD_BYTES, "nul": "\0"}
    reference = reference_of(written(packer.value("input", value)))
    (blob,) = packer.blobs
    assert reference is not None
    assert reference.digest == blob.digest
    assert len(blob.body) < OFFLOAD_BYTES
    assert unpack_blob(blob) == value


def test_a_blob_that_was_changed_is_found_out():
    packer = Packer()
    packer.value("input", "y" * 10_000)
    (blob,) = packer.blobs
    forged = type(blob)(digest=bytes(32), codec=blob.codec, size_bytes=blob.size_bytes, body=blob.body)
    with pytest.raises(StoreCorrupted):
        unpack_blob(forged)


def test_a_direct_call_with_too_large_a_value_is_refused():
    with pytest.raises(InvalidInput, match="16,777,216"):
        Packer(strict=True).value("input", "x" * (MAX_PAYLOAD_BYTES + 1))


def test_a_decorator_with_too_large_a_value_records_a_placeholder_with_its_digest():
    packer = Packer(strict=False)
    kept = written(packer.value("input", "x" * (MAX_PAYLOAD_BYTES + 1)))
    assert is_placeholder(kept)
    assert len(kept["sha256"]) == 64
    assert packer.placeholders == 1
