"""Hugging Face's `datasets` reads what is landed, and agrees on every value with the lines (and they do with SQL)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from training.journal import Journal
from training.reading import assert_agrees_with_sql, records
from training.test_hostile_values import VALUES
from workledger.model.status import Kind
from workledger.training.records import SCHEMAS, Column, ColumnType, RecordType
from workledger.training.store import LocalStore, open_store

BUILDERS = {"jsonl": "json", "csv": "csv", "parquet": "parquet"}
#: An empty field is null to it, as it is meant; that a quoted one is not, it cannot know: it reads with pandas.
OPTIONS: dict[str, dict[str, Any]] = {"csv": {"keep_default_na": False, "na_values": [""]}}
#: Its reader of JSON refuses integers past 64 bits, rounds at the ends of what a double can hold, and takes the text
#: "null", where it is a whole value, for a null.
BEYOND = {"past 2^64", "tiny", "huge", "null as text"}


@pytest.fixture
def landed(journal: Journal, land: Callable[..., int], tmp_path: Path) -> LocalStore:
    values = {name: value for name, value in VALUES.items() if name not in BEYOND}
    journal.workflow("plain", tags=["a", "b"], metadata={"k": 1}, subject="ada")
    journal.start("w", input=values, subject="")
    for name, value in values.items():
        journal.execution(f"w/{name}", "w", kind=Kind.TOOL, task_name=name, input=value, output=[value])
    journal.fail("w")
    store = open_store(f"file:{tmp_path}/training?format=jsonl,csv,parquet")
    land(store)
    return store


def test_datasets_reads_what_sql_says(
    journal: Journal, landed: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    datasets.disable_progress_bars()
    assert_agrees_with_sql(journal, landed)
    (entry,) = landed.entries()
    for record_type in RecordType:
        lines = records(landed, record_type)
        for form, builder in BUILDERS.items():
            path = str(landed.folder / entry.files_of(form)[record_type].path)
            options = {"cache_dir": str(tmp_path / "cache"), **OPTIONS.get(form, {})}
            rows = datasets.load_dataset(builder, data_files=path, split="train", **options)
            assert rows.column_names == [column.name for column in SCHEMAS[record_type].columns]
            for row, line in zip(rows, lines, strict=True):
                for column in SCHEMAS[record_type].columns:
                    found = plain(row[column.name], column, form)
                    wanted = line[column.name]
                    if form == "csv" and wanted == "" and column.type is ColumnType.TEXT:
                        wanted = None
                    assert (found, column.name, form) == (wanted, column.name, form)


def plain(value: Any, column: Column, form: str) -> Any:
    if value is None:
        return None
    if column.type is ColumnType.JSON and form != "jsonl":
        return json.loads(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value
