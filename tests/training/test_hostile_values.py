"""What models and programs really write, on its way into files, read back by the readers people use."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest

from training.journal import Journal
from training.reading import assert_agrees_with_sql, records
from workledger.model import change
from workledger.model.jsonvalue import decode
from workledger.model.status import Kind
from workledger.training.records import SCHEMAS, RecordType
from workledger.training.store import LocalStore

Land = Callable[..., int]

VALUES: dict[str, Any] = {
    "nul": "a\x00b",
    "lone surrogate": "x\ud83dy",
    "noncharacter": "\ufdd00000",
    "emoji": "🦉👩‍👩‍👧",
    "newlines": "a\nb\r\nc\u2028d\u0085e",
    "commas and quotes": 'say "hi", then, ""',
    "backslashes": "C:\\new\\table \\u0041",
    "nan": math.nan,
    "infinity": [math.inf, -math.inf],
    "past 2^53": 2**53 + 1,
    "past 2^64": 2**70 + 1,
    "negative zero": -0.0,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "empty text": "",
    "none": None,
    "empty containers": [{}, [], ""],
    "keys": {"": 1, "a,b": 2, 'q"q': 3, "\x00": 4},
    "csv injection": "=1+1",
    "spaces": "  both  ",
    "null as text": "null",
}


@pytest.fixture
def landed(journal: Journal, land: Land, store: LocalStore) -> LocalStore:
    journal.start("w", input=VALUES)
    for name, value in VALUES.items():
        journal.execution(f"w/{name}", "w", kind=Kind.TOOL, task_name=name, input=value, output=[value], model=None)
    journal.fail("w")
    land()
    return store


def shard(store: LocalStore, record_type: RecordType, form: str) -> Path:
    (entry,) = store.entries()
    return store.folder / entry.files_of(form)[record_type].path


def test_every_value_comes_back_as_it_was(landed: LocalStore) -> None:
    lines = records(landed, RecordType.TOOL_EXECUTIONS)
    assert [line["task_name"] for line in lines] == list(VALUES)
    for line in lines:
        expected = VALUES[line["task_name"]]
        for found in (decode(json.dumps(line["input_data"])), decode(json.dumps(line["output_data"]))[0]):
            if line["task_name"] == "nan":
                assert math.isnan(found)
            else:
                assert found == expected
                assert repr(found) == repr(expected)


def test_every_value_is_what_sql_has(journal: Journal, landed: LocalStore) -> None:
    assert_agrees_with_sql(journal, landed)


@pytest.mark.parametrize("record_type", [RecordType.EVENTS, RecordType.TOOL_EXECUTIONS, RecordType.WORKFLOWS])
def test_csv_says_what_jsonl_says(landed: LocalStore, record_type: RecordType) -> None:
    columns = SCHEMAS[record_type].columns
    rows = rfc4180(shard(landed, record_type, "csv").read_bytes().decode())
    assert rows[0] == [column.name for column in columns]
    lines = records(landed, record_type)
    assert len(rows) == len(lines) + 1
    for row, line in zip(rows[1:], lines, strict=True):
        for field, column in zip(row, columns, strict=True):
            if field is None:
                assert line[column.name] is None
            elif column.type in {"text", "timestamp"}:
                assert field == line[column.name]
            else:
                assert json.loads(field) == line[column.name]


def rfc4180(text: str) -> list[list[str | None]]:
    """A reader that knows nothing but the RFC, and that an empty field without quotes is null."""
    rows: list[list[str | None]] = [[]]
    at = 0
    while at < len(text):
        if text[at] == '"':
            field, at = "", at + 1
            while text[at] != '"' or text[at : at + 2] == '""':
                step = 2 if text[at] == '"' else 1
                field, at = field + text[at], at + step
            rows[-1].append(field)
            at += 1
        else:
            end = min(position for position in (text.find(",", at), text.find("\r\n", at)) if position >= 0)
            rows[-1].append(text[at:end] or None)
            at = end
        if text[at] == ",":
            at += 1
            if text[at : at + 2] == "\r\n":
                rows[-1].append(None)
        if text[at : at + 2] == "\r\n":
            rows.append([])
            at += 2
    return rows[:-1]


def test_duckdb_reads_jsonl_and_csv_alike(landed: LocalStore) -> None:
    columns = {column.name: "VARCHAR" for column in SCHEMAS[RecordType.TOOL_EXECUTIONS].columns}
    csv = duckdb.sql(
        f"SELECT * FROM read_csv('{shard(landed, RecordType.TOOL_EXECUTIONS, 'csv')}', header = true, delim = ',',"
        f" quote = '\"', escape = '\"', nullstr = '', allow_quoted_nulls = false, auto_detect = false,"
        f" columns = {columns}, strict_mode = true) ORDER BY position::bigint"
    ).fetchall()
    types = {name: "JSON" if name in {"input_data", "output_data", "metadata"} else "VARCHAR" for name in columns}
    jsonl = duckdb.sql(
        f"SELECT * FROM read_json('{shard(landed, RecordType.TOOL_EXECUTIONS, 'jsonl')}',"
        f" format = 'newline_delimited', columns = {types}) ORDER BY position::bigint"
    ).fetchall()
    assert len(csv) == len(jsonl) == len(VALUES)
    for ours, theirs in zip(csv, jsonl, strict=True):
        for name, left, right in zip(columns, ours, theirs, strict=True):
            if name in {"input_data", "output_data", "metadata"}:
                assert (None if left is None else decode(left).__repr__()) == (
                    None if right in {None, "null"} else decode(right).__repr__()
                )
            else:
                assert left == right


def test_pandas_and_polars_read_every_line(landed: LocalStore) -> None:
    path = shard(landed, RecordType.TOOL_EXECUTIONS, "csv")
    assert list(pd.read_csv(path, keep_default_na=False, na_values=[""])["task_name"]) == list(VALUES)
    frame = pl.read_csv(path, infer_schema=False)
    assert frame["task_name"].to_list() == list(VALUES)
    events = shard(landed, RecordType.EVENTS, "csv")
    assert len(pd.read_csv(events)) == len(records(landed, RecordType.EVENTS))


def test_null_and_empty_text_stay_apart_in_csv(journal: Journal, land: Land, store: LocalStore) -> None:
    journal.start("w", subject=None)
    journal.record(change.cancel_workflow, workflow_id="w", reason="")
    land()
    (row,) = rfc4180(shard(store, RecordType.WORKFLOWS, "csv").read_bytes().decode())[1:]
    found = dict(zip([column.name for column in SCHEMAS[RecordType.WORKFLOWS].columns], row, strict=True))
    assert (found["error"], found["error_type"], found["subject"]) == ("", None, None)
