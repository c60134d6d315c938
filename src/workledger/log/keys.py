"""Secret keys that sign seals (Ed25519, RFC 8032), in a folder.

The folder holds, for each key, `KEYID.pub` (its verifier key) and, as long as it may sign, `KEYID.pem` (readable by
its owner alone).
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from workledger.errors import ConfigurationError, MissingExtra, NotFound
from workledger.log.seal_keys import endorsement_text, listed_keys
from workledger.log.seal_notes import SealKey, parse_verifier_key
from workledger.postgres.connection import Connection

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ImportError as error:
    raise MissingExtra("signed seals need cryptography: pip install 'workledger[seals]'", extra="seals") from error

__all__ = ["KeyFolder", "Signer", "signature_holds"]

_SAFE: Final = re.compile("[0-9a-f]{8}")


class Signer:
    """A secret key and its public side."""

    def __init__(self, key: SealKey, secret: Ed25519PrivateKey) -> None:
        self.key = key
        self._secret = secret

    def sign(self, text: str) -> bytes:
        """Sign a text: 64 bytes."""
        return self._secret.sign(text.encode())

    def endorse(self, successor: SealKey) -> bytes:
        """Sign that another key comes after this one."""
        return self.sign(endorsement_text(successor))


class KeyFolder:
    """The keys of one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, name: str) -> Signer:
        """Make a key for the log of this name. The secret is written once, for its owner's eyes only."""
        secret = Ed25519PrivateKey.generate()
        key = SealKey(name=name, public_key=secret.public_key().public_bytes_raw())
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        encoded = secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._write(f"{key.key_id}.pem", encoded, mode=0o600)
        self._write(f"{key.key_id}.pub", f"{key.verifier_key}\n".encode(), mode=0o644)
        return Signer(key, secret)

    def public_keys(self) -> list[SealKey]:
        """Every key whose public side is here, by id."""
        return [parse_verifier_key(path.read_text("utf-8")) for path in sorted(self._folder.glob("*.pub"))]

    def can_sign(self, key_id: str) -> bool:
        """Say whether the secret is here."""
        return bool(_SAFE.fullmatch(key_id)) and (self._folder / f"{key_id}.pem").exists()

    def signer(self, key_id: str) -> Signer:
        """The secret key of this id; raises `NotFound` or, when others may have read it, `ConfigurationError`."""
        if not self.can_sign(key_id):
            raise NotFound(f"no secret key {key_id} in {self._folder}", entity_type="key", entity_id=key_id)
        path = self._folder / f"{key_id}.pem"
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(
                f"{path} can be read by others than its owner; chmod 600 it, and replace the key "
                "(`workledger keys rotate`) if anybody may have",
                setting="keys",
                value=str(path),
            )
        secret = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(secret, Ed25519PrivateKey):
            raise ConfigurationError(f"{path} holds no Ed25519 key", setting="keys", value=str(path))
        (public,) = [key for key in self.public_keys() if key.key_id == key_id]
        return Signer(public, secret)

    def forget_secret(self, key_id: str) -> None:
        """Remove the secret of a key that was replaced: from now on it can only be misused."""
        with suppress(FileNotFoundError):
            (self._folder / f"{key_id}.pem").unlink()

    def active_signer(self, connection: Connection) -> Signer | None:
        """The newest key that the database lists, nothing has replaced, and this folder can sign with."""
        for listed in reversed(listed_keys(connection)):
            if not listed.replaced and self.can_sign(listed.key.key_id):
                return self.signer(listed.key.key_id)
        return None

    def _write(self, name: str, data: bytes, *, mode: int) -> None:
        handle = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)


def signature_holds(key: SealKey, text: str, signature: bytes) -> bool:
    """Say whether a key made this signature of this text."""
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, text.encode())
    except InvalidSignature:
        return False
    return True
