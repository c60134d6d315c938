"""Columns as PostgreSQL sends them: each value is that of the row, and no lot is larger than it may be."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from workledger.errors import StoreCorrupted
from workledger.log import partitions
from workledger.model.archived import SentColumns
from workledger.model.ids import new_event_id
from workledger.training.arrow_sent import texts
from workledger.training.event_archive import table_of

INSERT = """
WITH e AS (
    INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s::jsonb) RETURNING event_id)
INSERT INTO event_inbox (event_id) SELECT event_id FROM e RETURNING event_id"""
HOSTILE = ['a,b\n"c"', "", "é😀\u2028", "\x01\x02\\N", "x" * 60, None]


def lots_of(old, monkeypatch, *, size_bytes=None):
    if size_bytes is not None:
        monkeypatch.setattr(partitions, "_LOT_BYTES", size_bytes)
    (partition,) = [one for one in partitions.partitions(old.connection) if one.name == "events_2026_03"]
    with partitions.staged(old.connection, partition) as staged:
        return list(staged.lots(after=0, upto=old.head))


def rows_of(lots):
    return [row for rows, columns in lots for row in table_of(rows, columns).to_pylist()]


def test_every_value_is_that_of_the_row(old, monkeypatch):
    old.live(3)
    at = datetime(2026, 3, 20, 12, 30, 1, 7, tzinfo=UTC)
    for text in HOSTILE:
        payload = None if text is None else json.dumps({"n": 2**53 + 1, "text": text})
        old.sql(INSERT, new_event_id(at), text or "t", text, text, text, "info", at, payload)
    old.settle()
    wanted = old.sql(
        "SELECT position, event_id::text, event_type, entity_type, entity_id, workflow_id, severity, created_at,"
        " recorded_at, schema_version, salt::text, payload::text FROM events_2026_03 JOIN event_positions"
        " USING (event_id) ORDER BY position"
    )
    found = rows_of(lots_of(old, monkeypatch))
    assert [tuple(row.values()) for row in found] == wanted
    assert {row["entity_id"] for row in found} >= {text for text in HOSTILE if text}


def test_lots_are_no_larger_than_they_may_be_and_miss_nothing(old, monkeypatch):
    old.live(3)
    whole = rows_of(lots_of(old, monkeypatch))
    for size_bytes in (0, 1, 700, 3000):
        lots = lots_of(old, monkeypatch, size_bytes=size_bytes)
        assert rows_of(lots) == whole
        assert len(lots) == len(whole) if size_bytes < 2 else 1 < len(lots) < len(whole)


def test_columns_that_do_not_fit_together_are_refused():
    with pytest.raises(StoreCorrupted, match="do not fit together"):
        texts(b"abc", (2).to_bytes(4, "big"), 1)
    with pytest.raises(StoreCorrupted, match="do not fit together"):
        table_of(2, SentColumns(*[b""] * len(SentColumns.__struct_fields__)))
