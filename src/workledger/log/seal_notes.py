"""Checkpoints: what a log was at one moment, as text that a key signs (C2SP signed-note and tlog-checkpoint).

    workledger/research/5f0c9a1e77b24d10          origin: which log
    1042                                          size: how many seals it had
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=  root of the Merkle tree over those seals

    — workledger/research/5f0c9a1e77b24d10 Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+Z…

A key is passed around as a verifier key, `name+hash+base64(0x01 || public key)`, which is what Go's sumdb tools read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from workledger.errors import InvalidInput

__all__ = ["Checkpoint", "SealKey", "SignedNote", "make_note", "parse_checkpoint", "parse_note", "parse_verifier_key"]

_ED25519: Final = b"\x01"
_KEY_BYTES: Final = 32
_HASH_BYTES: Final = 4
_ROOT_BYTES: Final = 32
_NAME: Final = re.compile(r"[^\s+]+")
_SIZE: Final = re.compile("0|[1-9][0-9]*")
_SIGNATURE: Final = re.compile("— (?P<name>[^\\s+]+) (?P<data>[A-Za-z0-9+/]+=*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealKey:
    """A public key under the name of the log that it signs for."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> str:
        """Eight hex digits that tell the keys of a name apart: SHA-256(name || 0x0A || 0x01 || key)[:4]."""
        text = self.name.encode() + b"\n" + _ED25519 + self.public_key
        return hashlib.sha256(text).hexdigest()[: 2 * _HASH_BYTES]

    @property
    def verifier_key(self) -> str:
        """The key as text: `name+hash+base64`."""
        return f"{self.name}+{self.key_id}+{_encode(_ED25519 + self.public_key)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedNote:
    """A text and who signed it: key name, key id, signature."""

    text: str
    signatures: tuple[tuple[str, str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a log was at one moment: its name, its number of seals, and the root over them."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{_encode(self.root)}\n"


def make_note(text: str, *, key: SealKey, signature: bytes) -> str:
    """A text with one signature below it."""
    return f"{text}\n— {key.name} {_encode(bytes.fromhex(key.key_id) + signature)}\n"


def parse_note(data: str) -> SignedNote:
    """Take a note apart; raises `InvalidInput` for what is none."""
    text, blank, below = data.rpartition("\n\n")
    lines = below.removesuffix("\n").split("\n")
    found = [match for line in lines if (match := _SIGNATURE.fullmatch(line))]
    if not blank or not below.endswith("\n") or len(found) != len(lines):
        raise _malformed("signed note", data, "text, an empty line, and signatures that begin with an em dash")
    return SignedNote(text=text + "\n", signatures=tuple(_signature(match, data) for match in found))


def _signature(match: re.Match[str], data: str) -> tuple[str, str, bytes]:
    raw = _decode(match["data"])
    if raw is None or len(raw) <= _HASH_BYTES:
        raise _malformed("signed note", data, "signatures in base64")
    return match["name"], raw[:_HASH_BYTES].hex(), raw[_HASH_BYTES:]


def parse_checkpoint(text: str) -> Checkpoint:
    """Take the text of a note as a checkpoint; raises `InvalidInput` for what is none."""
    origin, size, root, *_ = [*text.split("\n"), "", "", ""]
    hashed = _decode(root)
    if not origin or not _SIZE.fullmatch(size) or hashed is None or len(hashed) != _ROOT_BYTES:
        raise _malformed("checkpoint", text, "origin, size and root, a line each")
    return Checkpoint(origin=origin, size=int(size), root=hashed)


def parse_verifier_key(text: str) -> SealKey:
    """Take `name+hash+base64` apart; raises `InvalidInput` for what is none, or when the hash does not fit."""
    name, _, rest = text.strip().partition("+")
    key_id, _, data = rest.partition("+")
    raw = _decode(data)
    if raw is None or raw[:1] != _ED25519 or len(raw) != 1 + _KEY_BYTES or not _NAME.fullmatch(name):
        raise _malformed("verifier key", text, "name+hash+base64 of an Ed25519 key")
    key = SealKey(name=name, public_key=raw[1:])
    if key.key_id != key_id:
        raise _malformed("verifier key", text, f"the hash {key.key_id}, not {key_id}")
    return key


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _malformed(what: str, value: str, wanted: str) -> InvalidInput:
    return InvalidInput(f"this is no {what} (it has {wanted}): {value[:80]!r}", field=what, value=value, limit=wanted)
