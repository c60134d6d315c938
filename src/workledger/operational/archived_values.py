"""Large values out of the archive."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from workledger.model.archived import ArchiveFile
from workledger.model.payload import Blob
from workledger.postgres.archive_access import access_for
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["archived_payloads"]


def archived_payloads(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, Blob]:
    """Values by digest; one that is in no file of the archive is left out."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "archive_of_payloads"), (list(digests),), binary=True)
        rows = cursor.fetchall()
    found: dict[bytes, Blob] = {}
    for *row, there in rows:
        file = ArchiveFile(*row)
        found |= access_for(connection, file).payloads(file, there)
    return found
