"""Every statement of bus, training store, export and verification, on the oldest and the newest PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from training.journal import SCHEMA, Journal
from training.reading import assert_agrees_with_sql
from workledger.flows.export import export_chat, export_records
from workledger.flows.log_to_synapse import DatabaseTail
from workledger.flows.synapse_to_training import land_once
from workledger.flows.verify_training import verify_training
from workledger.model import change
from workledger.synapse.postgres import PostgresBus
from workledger.training.store import open_store


def test_a_run_is_landed_verified_and_exported(any_postgres_url: str, tmp_path: Path) -> None:
    journal = Journal(any_postgres_url)
    store = open_store(f"file:{tmp_path}/training?format=jsonl,csv")
    bus = PostgresBus(DatabaseTail(connect=journal.connect, schema=SCHEMA))
    journal.start("late", pending=True)
    for name in ("one", "two"):
        journal.workflow(name)
        journal.event({"big": "y" * 9000})
        land_once(journal.connection, bus=bus, store=store, schema=SCHEMA)
    journal.record(change.start_workflow, workflow_id="late", name="late")
    journal.execution("late/1", "late")
    journal.fail("late")
    land_once(journal.connection, bus=bus, store=store, schema=SCHEMA)
    assert verify_training(journal.connection, store).findings == []
    assert_agrees_with_sql(journal, store)
    assert export_records([store], tmp_path / "out").rows["workflows"] == 3
    assert export_chat(journal.connection, tmp_path / "chat.jsonl").written == 2
    bus.close()
    journal.close()
