"""What one W takes on disk: bytes by table and index after VACUUM, and the ratio to the bytes of its payloads.

W is that of `record.py`, recorded change by change as programs do, in parts with a VACUUM after each, as autovacuum
does it: the rows are as updates leave them, and their space is used again. What grows from the middle to the end is
counted.

    python benchmarks/storage.py --workflows 5000
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import orjson

import record
import workledger
from harness import arguments, database, report
from workledger.log.sequencer import sequence
from workledger.postgres.connection import Connection, connect

CALLERS = 16
PARTS = 10
#: Values of about 300 B in one W: in and out of the workflow and of each task.
VALUES = 2 * record.TASKS + 2

# Partitions are counted as the table and the index they are parts of; TOAST as the table it belongs to.
SIZES = """
SELECT coalesce(parent.relname, c.relname) AS name, c.relkind = 'i' AS is_index,
       coalesce(tp.relname, t.relname) AS table,
       sum(pg_relation_size(c.oid) + CASE WHEN c.reltoastrelid <> 0
           THEN pg_total_relation_size(c.reltoastrelid) ELSE 0 END)::bigint AS bytes
FROM pg_class c
LEFT JOIN pg_inherits h ON h.inhrelid = c.oid
LEFT JOIN pg_class parent ON parent.oid = h.inhparent
LEFT JOIN pg_index i ON i.indexrelid = c.oid
LEFT JOIN pg_class t ON t.oid = coalesce(i.indrelid, c.oid)
LEFT JOIN pg_inherits th ON th.inhrelid = t.oid
LEFT JOIN pg_class tp ON tp.oid = th.inhparent
WHERE c.relnamespace = 'workledger'::regnamespace AND c.relkind IN ('r', 'i')
GROUP BY 1, 2, 3"""


def sizes(connection: Connection) -> dict[tuple[str, bool, str], int]:
    """Bytes by relation, whether it is an index, and table."""
    return {(name, is_index, table): size for name, is_index, table, size in connection.execute(SIZES).fetchall()}


def measure(url: str, workflows: int) -> list[tuple[str, str, str]]:
    each = workflows // PARTS // CALLERS
    with (
        tempfile.TemporaryDirectory() as home,
        workledger.open(url, home=Path(home)) as ledger,
        connect(url) as connection,
    ):
        for part in range(2 * PARTS):
            if part == PARTS:
                before = sizes(connection)
            asyncio.run(record.ours_many(ledger, CALLERS, each))
            sequence(connection, schema="workledger")
            connection.execute("VACUUM")
        after = sizes(connection)
    count = each * CALLERS * PARTS
    grown = {key: (size - before.get(key, 0)) / count for key, size in after.items() if size > before.get(key, 0)}
    return table(grown, payload_bytes=VALUES * len(orjson.dumps(record.body())))


def table(grown: dict[tuple[str, bool, str], float], *, payload_bytes: int) -> list[tuple[str, str, str]]:
    total = sum(grown.values())
    rows = [
        ("one W, bytes on disk", f"{total:,.0f}", f"{total / payload_bytes:.2f} of the payloads ({payload_bytes:,})"),
    ]
    by_table: dict[str, float] = {}
    for (_, _, of), size in grown.items():
        by_table[of] = by_table.get(of, 0) + size
    for of, size in sorted(by_table.items(), key=lambda item: -item[1]):
        if size < total / 1000:
            continue
        rows.append((of, f"{size:,.0f}", f"{size / payload_bytes:.2f}"))
        parts = [(name, is_index, part) for (name, is_index, owner), part in grown.items() if owner == of]
        for name, is_index, part in sorted(parts, key=lambda item: (item[1], -item[2])):
            rows.append((f"  {name if is_index else 'rows'}", f"{part:,.0f}", f"{part / payload_bytes:.2f}"))
    return rows


def main() -> None:
    options = arguments(__doc__ or "", workflows=5000)
    with database() as url:
        report(f"Storage of {options.workflows:,} W", measure(url, options.workflows))


if __name__ == "__main__":
    main()
