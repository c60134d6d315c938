"""What is typed into a search field: words that names and errors have, and ids."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import psycopg

from workledger.model.jsonvalue import escape_text
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["PROBE", "Words", "words_of"]

#: The newest workflows in whose ids a text is looked for anywhere, and which are looked at for frequent words.
PROBE: Final = 2_000

_SEPARATORS: Final = re.compile(r"[\s._/:@\\\-<>]+")
_SAYS_SOMETHING: Final = re.compile(r"\w").search


@dataclass(frozen=True, slots=True)
class Words:
    """A search: its words as a tsquery (None: it has none), and the ids that it means."""

    query: str | None
    ids: list[str]


def words_of(connection: Connection, text: str) -> Words:
    """What a text looks for: every word of it, whole or as a beginning, in any order; or an id.

    An id is found whole, and among the newest workflows by any part of it.
    """
    text = escape_text(text.strip())
    words = [word for word in _SEPARATORS.split(text) if _SAYS_SOMETHING(word)]
    query = " & ".join("'" + word.replace("'", "''") + "':*" for word in words) or None
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "find_ids"), (_anywhere(text), text, PROBE))
        return Words(query, [workflow_id for (workflow_id,) in cursor.fetchall()])


def _anywhere(text: str) -> str:
    """The ILIKE pattern that finds a text anywhere, as it is stored."""
    literal = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{literal}%"
