"""Spark reads our tables: the same columns, the same rows, every value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.spark import spark_rows
from training.journal import SCHEMA, Journal
from training.reading import derived
from training.test_hostile_values import VALUES
from workledger.model.status import Kind
from workledger.training.lake import lake_schema
from workledger.training.records import SCHEMAS, ColumnType, RecordType
from workledger.training.urls import open_lake


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_spark_reads_every_row_and_value(journal: Journal, land: Callable[..., int], tmp_path: Path, kind: str) -> None:
    journal.start("w", input=VALUES, subject="")
    for name, value in VALUES.items():
        journal.execution(f"w/{name}", "w", kind=Kind.TOOL, task_name=name, input=value, output=[value])
    journal.fail("w")
    store = open_lake(f"{kind}+file:{tmp_path}/lake", database_url=lambda: journal.url, project=SCHEMA)
    for upto in (9, 20):
        land(store, upto=upto)
    journal.workflow("later")
    head = land(store)
    expected = derived(journal, [head])
    found = spark_rows(kind, {record_type: place(tmp_path, kind, record_type, journal) for record_type in RecordType})
    for record_type, lines in expected.items():
        assert found[record_type]["columns"] == lake_schema(record_type).names
        assert len(found[record_type]["rows"]) == len(lines)
        for row, line in zip(found[record_type]["rows"], map(json.loads, lines), strict=True):
            for column, value in zip(SCHEMAS[record_type].columns, row, strict=False):
                assert_same(value, line[column.name], column.type)


def assert_same(found: Any, wanted: Any, kind: ColumnType) -> None:
    if found is None or wanted is None:
        assert found is wanted
    elif kind is ColumnType.JSON:
        assert json.loads(found) == wanted
    elif kind is ColumnType.TIMESTAMP:
        # Spark leaves out zeros at the end of a fraction.
        assert found.ljust(26, "0") == wanted[:-1].replace("T", " ")
    elif kind in {ColumnType.NUMBER, ColumnType.INTEGER}:
        assert type(wanted)(found) == wanted
    else:
        assert found == wanted


def place(folder: Path, kind: str, record_type: RecordType, journal: Journal) -> str:
    """Where a table is; of Iceberg the file that the catalogue names."""
    if kind == "delta":
        return f"{folder}/lake/{record_type}"
    statement = "SELECT metadata_location FROM public.iceberg_tables WHERE table_namespace = %s AND table_name = %s"
    ((location,),) = journal.sql(statement, SCHEMA, str(record_type))
    return urlsplit(location).path
