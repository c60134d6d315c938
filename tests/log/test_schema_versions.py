"""Events of every version that was ever released are read as if they had been recorded today."""

import json
from importlib import util
from pathlib import Path

import msgspec
import pytest

from workledger.errors import SchemaError
from workledger.flows.as_of import as_of
from workledger.log import reader
from workledger.log.follow_lines import lines
from workledger.model.records import Event
from workledger.model.upcast import SCHEMA_VERSION, Upcasters, upcast
from workledger.operational import apply
from workledger.operational.apply import statement_name

CORPUS = Path(__file__).with_name("corpus")
VERSIONS = sorted(path.stem for path in CORPUS.glob("v*.jsonl"))
_spec = util.spec_from_file_location("corpus_make", CORPUS / "make.py")
make = util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def written(version: str) -> list[str]:
    """The lines of a corpus."""
    return (CORPUS / f"{version}.jsonl").read_text("utf-8").split("\n")[:-1]


def load(log, version: str) -> None:
    """Put a corpus into an empty log, as it was."""
    for line in written(version):
        log.connection.execute("SELECT ensure_event_partition(%s)", (json.loads(line)["created_at"],))
        log.connection.execute(
            "WITH e AS (INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, severity,"
            " created_at, recorded_at, schema_version, payload) SELECT event_id, event_type, entity_type, entity_id,"
            " workflow_id, severity, created_at, recorded_at, schema_version, payload"
            " FROM jsonb_populate_record(NULL::events, %s::jsonb) RETURNING event_id)"
            " INSERT INTO event_inbox (event_id) SELECT event_id FROM e",
            (line,),
        )
    log.sequence()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_state_made_of_old_events_is_what_it_was(any_log, version):
    load(any_log, version)
    expected = json.loads((CORPUS / f"{version}.state.json").read_text("utf-8"))
    with any_log.connect() as connection, as_of(connection, any_log.head, schema=any_log.schema):
        for table, key in make.TABLES.items():
            rows = [json.loads(row) for (row,) in connection.execute(make.ROWS.format(table=table, key=key)).fetchall()]
            # A later version may have columns that this one had not.
            assert [{name: row[name] for name in old} for row, old in zip(rows, expected[table], strict=True)] == (
                expected[table]
            )


@pytest.mark.parametrize("version", VERSIONS)
def test_old_events_are_given_back_as_they_were_written(any_log, version):
    load(any_log, version)
    assert [line.decode().rstrip("\n") for line in lines(any_log.connection)] == written(version)


def test_the_present_version_is_in_the_corpus_with_every_type_of_event():
    assert f"v{SCHEMA_VERSION}" in VERSIONS
    found = {json.loads(line)["event_type"] for line in written(f"v{SCHEMA_VERSION}")}
    own = {name for name in apply._STATEMENT if statement_name(name) != "record_event"}
    assert own - found == {"worker.lost"}  # nothing but a passed lease makes one


def test_events_are_recorded_with_the_present_version(log):
    log.fill(5)
    assert {event.schema_version for event in reader.read(log.connection, after=0)} == {SCHEMA_VERSION}


def event(**fields) -> Event:
    columns = dict.fromkeys(Event.__struct_fields__) | {"schema_version": 1, "payload_json": "{}"}
    return Event(**columns | {"event_id": "e1", "event_type": "task.completed"} | fields)


def test_an_event_of_the_present_version_is_left_alone():
    one = event()
    assert upcast(one) is one


def test_an_old_event_goes_through_every_version_up_to_the_present_one():
    upcasters = Upcasters(current=3)

    @upcasters.register("task.completed", version=1)
    def rename(payload):
        return {"output": payload["result"]}

    @upcasters.register("task.completed", version=2)
    def wrap(payload):
        return {"output": [payload["output"]]}

    old = event(payload_json='{"result": 12345678901234567890123}')
    new = upcasters.upcast(old)
    assert (new.schema_version, new.payload) == (3, {"output": [12345678901234567890123]})
    assert upcasters.upcast(event(schema_version=2, payload_json='{"output": 1}')).payload == {"output": [1]}
    assert old.payload == {"result": 12345678901234567890123}


def test_a_type_whose_shape_never_changed_keeps_its_payload():
    old = event(event_type="cache.hit", payload_json='{"n": 1.50}')
    assert Upcasters(current=4).upcast(old) == msgspec.structs.replace(old, schema_version=4)


def test_an_event_of_a_later_version_is_not_guessed_at():
    with pytest.raises(SchemaError, match="schema version 2; this Workledger knows up to 1"):
        upcast(event(schema_version=2))


def test_one_step_has_one_function():
    upcasters = Upcasters(current=2)
    upcasters.register("task.completed", version=1)(dict)
    with pytest.raises(SchemaError, match="two functions"):
        upcasters.register("task.completed", version=1)(list)
