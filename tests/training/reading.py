"""The training store read as a stranger would read it, and the same rows by SQL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import zstandard

from training.journal import Journal
from workledger.training.log_lines import LogLines
from workledger.training.records import SCHEMAS, ColumnType, RecordType
from workledger.training.store import LocalStore

TABLE = {
    RecordType.EVENTS: ("events", "event_id"),
    RecordType.TASKS: ("task_executions", "execution_id"),
    RecordType.TOOL_EXECUTIONS: ("task_executions", "execution_id"),
    RecordType.WORKFLOWS: ("workflows", "workflow_id"),
}
#: Columns that the tables do not have.
OWN = {
    RecordType.EVENTS: {"position"},
    RecordType.TASKS: {"position", "started_position", "conversation_id"},
    RecordType.TOOL_EXECUTIONS: {"position", "started_position", "conversation_id"},
    RecordType.WORKFLOWS: {"position", "started_position"},
}


def lines(store: LocalStore, record_type: RecordType, form: str = "jsonl") -> list[bytes]:
    found: list[bytes] = []
    for entry in store.entries():
        file = entry.files_of(form).get(record_type)
        if file is not None:
            found += (store.folder / file.path).read_bytes().splitlines()
    return found


def records(store: LocalStore, record_type: RecordType) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(store, record_type)]


def sql_records(journal: Journal, record_type: RecordType) -> dict[str, dict[str, Any]]:
    """The rows of the table by their id, each value as JSON has it."""
    table, key = TABLE[record_type]
    columns = [column for column in SCHEMAS[record_type].columns if column.name not in OWN[record_type]]
    shown = [
        f"{column.name}::text" if column.type is ColumnType.JSON and column.name != "tags" else column.name
        for column in columns
    ]
    found = {}
    for row in journal.sql(f"SELECT {', '.join(shown)} FROM {table}"):
        record = {column.name: _plain(journal, value, column.type) for column, value in zip(columns, row, strict=True)}
        found[record[key]] = record
    return found


def _plain(journal: Journal, value: Any, kind: ColumnType) -> Any:
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, Decimal):
        return float(value)
    if kind is ColumnType.JSON and isinstance(value, str):
        return _resolved(journal, json.loads(value))
    return value if isinstance(value, (int, float, list)) else str(value)


def _resolved(journal: Journal, value: Any) -> Any:
    if isinstance(value, dict) and value.get("$workledger") == "dict":
        return value
    if isinstance(value, dict) and set(value) == {"$workledger", "digest", "size"}:
        digest = bytes.fromhex(value["digest"])
        found = journal.sql("SELECT codec, body FROM payloads WHERE digest = %s", digest)
        if not found:
            return value
        ((codec, body),) = found
        text = zstandard.ZstdDecompressor().decompress(body, max_output_size=value["size"]) if "zstd" in codec else body
        assert hashlib.sha256(text).digest() == digest
        return json.loads(text)
    if isinstance(value, dict):
        return {name: _resolved(journal, inner) for name, inner in value.items()}
    return value


def assert_agrees_with_sql(journal: Journal, store: LocalStore) -> None:
    """Every finished thing is there, the last ending of each as its row has it, value by value."""
    for record_type in RecordType:
        expected = sql_records(journal, record_type)
        _, key = TABLE[record_type]
        last = {record[key]: record for record in records(store, record_type)}
        for name, record in last.items():
            ours = {column: value for column, value in record.items() if column not in OWN[record_type]}
            assert ours == expected[name], (record_type, name)
        assert set(last) == _finished(journal, record_type)


def _finished(journal: Journal, record_type: RecordType) -> set[str]:
    ended = "status IN ('completed', 'failed', 'cancelled')"
    statement = {
        RecordType.EVENTS: "SELECT event_id::text FROM event_positions",
        RecordType.TASKS: f"SELECT execution_id FROM task_executions WHERE {ended} AND kind <> 'tool'",
        RecordType.TOOL_EXECUTIONS: f"SELECT execution_id FROM task_executions WHERE {ended} AND kind = 'tool'",
        RecordType.WORKFLOWS: f"SELECT workflow_id FROM workflows WHERE {ended}",
    }[record_type]
    return {name for (name,) in journal.sql(statement)}


def derived(journal: Journal, cuts: Iterable[int], **options: Any) -> dict[RecordType, list[bytes]]:
    """The lines of the whole log, derived in stretches that end at `cuts`, by one deriver."""
    from workledger.training.deriver import Deriver

    log = LogLines(journal.connection)
    deriver = options.get("deriver") or Deriver(log)
    found: dict[RecordType, list[bytes]] = {record_type: [] for record_type in RecordType}
    after = 0
    for cut in cuts:
        stretch: list[Any] = []
        for page in log.iterate(after=after, upto=cut, page=1000):
            stretch += page
        for record_type, more in deriver.derive(stretch):
            found[record_type] += more
        after = cut
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a store that is data, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("_lock")
    }
