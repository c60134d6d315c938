"""Merkle trees as in Certificate Transparency (RFC 6962, section 2.1; RFC 9162 hashes the same way).

A leaf is SHA-256(0x00 || entry), a node SHA-256(0x01 || left || right). A tree of n leaves is split at the largest
power of two below n. Many hashes are passed as one `bytes`, 32 bytes each: a list would take three times the room.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from workledger.errors import InvalidInput

__all__ = ["HASH_BYTES", "Peaks", "inclusion_path", "leaf_hash", "root_from_path", "tree_root"]

HASH_BYTES: Final = 32
_NODE: Final = b"\x01"


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(b"\x00" + entry).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE + left + right).digest()


def tree_root(leaves: bytes) -> bytes:
    """The root of a tree of leaf hashes; of no leaves at all, the hash of nothing."""
    if not leaves:
        return sha256(b"").digest()
    level = leaves
    while len(level) > HASH_BYTES:
        level = _level_above(level)
    return level


def _level_above(level: bytes) -> bytes:
    """Pair what stands side by side; what is left over moves up as it is, which is what splitting amounts to."""
    pair = 2 * HASH_BYTES
    whole = len(level) - len(level) % pair
    nodes = [sha256(_NODE + level[at : at + pair]).digest() for at in range(0, whole, pair)]
    return b"".join(nodes) + level[whole:]


def inclusion_path(leaves: bytes, index: int) -> list[bytes]:
    """The audit path of leaf `index` (from 0): the hashes beside it on its way to the root, from the bottom up."""
    size = len(leaves) // HASH_BYTES
    if not 0 <= index < size:
        raise InvalidInput(f"leaf {index} is not in a tree of {size}", field="index", value=index, limit=size)
    path: list[bytes] = []
    level = leaves
    while len(level) > HASH_BYTES:
        beside = (index ^ 1) * HASH_BYTES
        if beside < len(level):
            path.append(level[beside : beside + HASH_BYTES])
        level = _level_above(level)
        index //= 2
    return path


def root_from_path(leaf: bytes, *, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that an audit path leads to (RFC 9162, section 2.1.3.2); None when the path has the wrong length."""
    if not 0 <= index < size:
        return None
    at, last, result = index, size - 1, leaf
    for beside in path:
        if last == 0:
            return None
        if at % 2 or at == last:
            result = _node_hash(beside, result)
            while at % 2 == 0 and at:
                at, last = at // 2, last // 2
        else:
            result = _node_hash(result, beside)
        at, last = at // 2, last // 2
    return result if last == 0 else None


class Peaks:
    """The roots of the complete subtrees of a growing tree, largest first: all that is needed to let it grow.

    >>> peaks = Peaks()
    >>> peaks.append(leaf_hash(b"entry"))
    >>> peaks.root() == leaf_hash(b"entry")
    True
    """

    def __init__(self, *, size: int = 0, data: bytes = b"") -> None:
        if len(data) != size.bit_count() * HASH_BYTES:
            raise InvalidInput(
                f"a tree of {size} leaves has {size.bit_count()} peaks, not {len(data) / HASH_BYTES:g}",
                field="data",
                value=len(data),
                limit=size.bit_count() * HASH_BYTES,
            )
        self.size = size
        self._peaks = [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        carried, size = leaf, self.size
        while size % 2:
            carried, size = _node_hash(self._peaks.pop(), carried), size // 2
        self._peaks.append(carried)
        self.size += 1

    def root(self) -> bytes:
        """The root of the tree as it is now."""
        if not self._peaks:
            return sha256(b"").digest()
        *rest, result = self._peaks
        for peak in reversed(rest):
            result = _node_hash(peak, result)
        return result

    def path_of_next(self) -> list[bytes]:
        """The audit path that the next leaf will have when it is the last one."""
        return self._peaks[::-1]

    @property
    def data(self) -> bytes:
        """The peaks, to begin again from."""
        return b"".join(self._peaks)
