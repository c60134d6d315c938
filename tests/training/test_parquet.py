"""Parquet says what JSONL says, to every reader, and is the same bytes however it came about."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.journal import Journal
from training.reading import lines, records
from training.test_hostile_values import VALUES
from workledger.model import change
from workledger.model.status import Kind
from workledger.training import formats
from workledger.training.formats import parquet
from workledger.training.records import SCHEMAS, ColumnType, RecordType
from workledger.training.store import LocalStore, open_store

Land = Callable[..., int]

READERS = ["pyarrow", "duckdb", "polars", "pandas"]


def read(path: Path, reader: str) -> list[dict[str, Any]]:
    """The rows of a file, as Python values."""
    match reader:
        case "pyarrow":
            return pq.read_table(path).to_pylist()
        case "duckdb":
            return duckdb.sql(f"SELECT * FROM '{path}'").to_arrow_table().to_pylist()
        case "polars":
            return pl.read_parquet(path).to_dicts()
        case _:
            frame = pd.read_parquet(path, dtype_backend="pyarrow")
            return frame.astype(object).where(frame.notna(), None).to_dict("records")


def shard(store: LocalStore, record_type: RecordType) -> Path:
    (entry,) = store.entries()
    return store.folder / entry.files_of("parquet")[record_type].path


def assert_rows_are_lines(rows: Sequence[dict[str, Any]], expected: Sequence[bytes], record_type: RecordType) -> None:
    """Every value is that of the line; a JSON column has the text of the line, byte for byte."""
    assert len(rows) == len(expected)
    schema = SCHEMAS[record_type]
    for row, line in zip(rows, expected, strict=True):
        found = json.loads(line)
        texts = dict(zip(found, split(line), strict=True))
        assert list(row) == [column.name for column in schema.columns]
        for column in schema.columns:
            value, wanted = row[column.name], found[column.name]
            if wanted is None:
                assert value is None, column.name
            elif column.type is ColumnType.JSON:
                assert value.encode() == texts[column.name], column.name
            elif column.type is ColumnType.TIMESTAMP:
                assert pd.Timestamp(value).tz_convert("UTC") == datetime.fromisoformat(wanted), column.name
            else:
                assert value == wanted, column.name
                assert type(value) is type(wanted) or column.type is ColumnType.NUMBER


def split(line: bytes) -> list[bytes]:
    import msgspec

    return [bytes(value) for value in msgspec.json.decode(line, type=dict[str, msgspec.Raw]).values()]


@pytest.fixture
def landed(journal: Journal, land: Land, tmp_path: Path) -> LocalStore:
    """Whatever models and programs write, in every record type."""
    journal.workflow("plain", tags=["a", "b"], metadata={"k": 1}, subject="ada", total_steps=5)
    journal.start("w", input=VALUES, subject="")
    for name, value in VALUES.items():
        journal.execution(f"w/{name}", "w", kind=Kind.TOOL, task_name=name, input=value, output=[value])
    journal.execution("w/fails", "w", fails=True)
    journal.record(change.cancel_workflow, workflow_id="w", reason="")
    store = open_store(f"file:{tmp_path}/training?format=jsonl,parquet")
    land(store)
    return store


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("record_type", RecordType)
def test_every_reader_reads_what_the_lines_say(landed: LocalStore, record_type: RecordType, reader: str) -> None:
    assert_rows_are_lines(read(shard(landed, record_type), reader), lines(landed, record_type), record_type)


def test_the_types_of_the_columns_are_those_of_the_reference(landed: LocalStore) -> None:
    expected = {
        ColumnType.TEXT: pa.string(),
        ColumnType.INTEGER: pa.int64(),
        ColumnType.NUMBER: pa.float64(),
        ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
        ColumnType.JSON: pa.string(),
    }
    for record_type in RecordType:
        found = pq.read_schema(shard(landed, record_type))
        wanted = {column.name: expected[column.type] for column in SCHEMAS[record_type].columns}
        assert dict(zip(found.names, found.types, strict=True)) == wanted
        assert found.metadata[b"workledger.record_type"].decode() == record_type


def test_json_columns_can_be_asked_by_sql(landed: LocalStore) -> None:
    path = shard(landed, RecordType.EVENTS)
    told = duckdb.sql(
        f"SELECT payload ->> 'task_name' FROM '{path}' WHERE event_type = 'task.started' ORDER BY position"
    )
    names = [
        line["payload"]["task_name"]
        for line in records(landed, RecordType.EVENTS)
        if line["event_type"] == "task.started"
    ]
    assert [name for (name,) in told.fetchall()] == names


def test_integers_past_two_to_the_53_stay_exact(tmp_path: Path) -> None:
    line = event(2**53 + 1)
    path = tmp_path / "x.parquet"
    path.write_bytes(written([line]))
    for reader in READERS:
        (row,) = read(path, reader)
        assert row["position"] == 2**53 + 1


# -- bytes --------------------------------------------------------------------------------------------------------


def event(position: int, text: str = "x") -> bytes:
    return json.dumps(
        {
            "position": position,
            "event_id": f"id-{position}",
            "event_type": "cache.hit",
            "entity_type": None,
            "entity_id": text,
            "workflow_id": "",
            "severity": "info",
            "created_at": "2026-03-01T12:00:00.000001Z",
            "recorded_at": "2026-03-01T12:00:00.999999Z",
            "schema_version": 1,
            "payload": {"n": position},
        },
        separators=(",", ":"),
    ).encode()


def written(rows: Sequence[bytes], cuts: Sequence[int] = ()) -> bytes:
    sink = io.BytesIO()
    writer = formats.named("parquet").open(sink, SCHEMAS[RecordType.EVENTS])
    for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        writer.write(rows[start:end])
    writer.close()
    return sink.getvalue()


def random_cuts(rng: random.Random, count: int) -> list[int]:
    return sorted(rng.choices(range(count + 1), k=rng.randrange(6)))


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 2000)
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 17)


@pytest.mark.parametrize("seed", range(20))
def test_the_same_lines_are_the_same_bytes_however_they_were_written(small_groups: None, seed: int) -> None:
    rng = random.Random(seed)
    rows = [event(n, "é" * rng.choice([0, 1, 50, 900])) for n in range(1, rng.randrange(2, 90))]
    whole = written(rows)
    assert written(rows, random_cuts(rng, len(rows))) == whole
    assert pq.ParquetFile(io.BytesIO(whole)).metadata.num_rows == len(rows)


@pytest.mark.parametrize("seed", range(20))
def test_files_that_are_joined_are_the_file_written_at_once(small_groups: None, seed: int) -> None:
    rng = random.Random(seed)
    rows = [event(n, "ü" * rng.choice([0, 1, 50, 900])) for n in range(1, rng.randrange(2, 90))]
    cuts = sorted(set(random_cuts(rng, len(rows))) - {0, len(rows)})
    parts = [written(rows[start:end]) for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    sink = io.BytesIO()
    formats.named("parquet").join(map(io.BytesIO, parts), sink, SCHEMAS[RecordType.EVENTS])
    assert sink.getvalue() == written(rows)


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_text_files_that_are_joined_are_the_file_written_at_once(name: str) -> None:
    form, schema = formats.named(name), SCHEMAS[RecordType.EVENTS]
    rows = [event(n, 'a"b,\r\n') for n in range(1, 8)]

    def one(part: Sequence[bytes]) -> bytes:
        sink = io.BytesIO()
        writer = form.open(sink, schema)
        writer.write(part)
        writer.close()
        return sink.getvalue()

    joined = io.BytesIO()
    form.join(map(io.BytesIO, [one(rows[:3]), one(rows[3:4]), one(rows[4:])]), joined, schema)
    assert joined.getvalue() == one(rows)


def test_the_file_does_not_tell_which_library_wrote_it() -> None:
    data = written([event(1), event(2, "parquet-cpp-arrow version 1.0.0")])
    assert pq.ParquetFile(io.BytesIO(data)).metadata.created_by == "workledger version 1"
    assert pq.read_table(io.BytesIO(data))["entity_id"].to_pylist() == ["x", "parquet-cpp-arrow version 1.0.0"]


def test_landing_again_gives_the_same_bytes(journal: Journal, land: Land, tmp_path: Path) -> None:
    from training.reading import tree

    for n in range(6):
        journal.workflow(f"w{n}")
    stores = [open_store(f"file:{tmp_path}/{name}?format=parquet") for name in "ab"]
    for store in stores:
        land(store, shard_rows=17)
    first, second = (tree(store.folder) for store in stores)
    assert first == second
    assert any(path.endswith(".parquet") for path in first)


def test_a_range_that_was_given_up_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(f"file:{tmp_path}/s?format=parquet")
    with store.writing() as writer:
        assert writer is not None
        writer.write(RecordType.EVENTS, [event(1)])
        writer.discard()
    assert store.position() == 0
    assert not list((store.folder / "_tmp").iterdir())


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("severity", 5, "5"),
        ("severity", {"a": 1}, '{"a":1}'),
        ("schema_version", 2**70, None),
        ("schema_version", "x", None),
        ("created_at", "yesterday", None),
    ],
)
def test_a_value_that_its_column_cannot_hold_does_not_stop_the_rest(column: str, value: Any, expected: Any) -> None:
    odd = json.dumps(json.loads(event(2)) | {column: value}, separators=(",", ":")).encode()
    table = pq.read_table(io.BytesIO(written([event(1), odd, event(3)])))
    assert table["position"].to_pylist() == [1, 2, 3]
    assert table[column].to_pylist()[1] == expected
    assert table[column].to_pylist()[0] is not None
