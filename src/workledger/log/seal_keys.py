"""The public keys of a log, as its database lists them.

The list says which keys there are, not which to trust: whoever verifies should take the public keys from somewhere
the database's administrator cannot write to.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg

from workledger.log.seal_notes import SealKey
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["ListedKey", "endorsement_text", "list_key", "listed_keys", "log_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedKey:
    """A public key as the database lists it. `replaced` says that another one took over from it."""

    key: SealKey
    endorsed_by: str | None
    endorsement: bytes | None
    created_at: datetime
    replaced: bool


def log_name(connection: Connection, *, schema: str) -> str:
    """The name under which the log is sealed: that of its seals, else of its keys, else one made of its id."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "log_name"), (schema,))
        ((name,),) = cursor.fetchall()
        return name


def listed_keys(connection: Connection) -> list[ListedKey]:
    """Every public key that the database lists, oldest first."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "keys"))
        return [
            ListedKey(
                key=SealKey(name=row[0], public_key=row[1]),
                endorsed_by=row[2],
                endorsement=row[3],
                created_at=row[4],
                replaced=row[5],
            )
            for row in cursor.fetchall()
        ]


def list_key(
    connection: Connection, key: SealKey, *, endorsed_by: str | None = None, endorsement: bytes | None = None
) -> None:
    """List a public key, with the id of the key it replaces and that one's signature of `endorsement_text`."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(
            load("workledger.log", "list_key"), (key.key_id, key.name, key.public_key, endorsed_by, endorsement)
        )


def endorsement_text(key: SealKey) -> str:
    """What the key that is being replaced signs, to say which one comes after it."""
    return f"workledger key endorsement\n{key.verifier_key}\n"
