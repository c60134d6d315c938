"""A digest is made of nothing but the event: the same in SQL, in Python, and on every PostgreSQL."""

import uuid
from importlib import util
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.changes import now
from workledger.log import digests, seal
from workledger.log.digests import SealedEvent, commitment

_spec = util.spec_from_file_location("jsonb_text", Path(__file__).with_name("jsonb_text.py"))
_module = util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
jsonb_text = _module.jsonb_text

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBER = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30) | st.integers()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
NASTY = [
    '{"b": 1, "a": 2, "aa": 3, "B": 4, "ä": 5, "": 6}',
    '{"same": 1, "same": 2}',
    "[1.0, 1.00, 1e5, 1.5e-3, -0, -0.0, 0e10, 12345678901234567890123456789.5, 1E+2]",
    r'["\u0001\u001f\b\f\n\r\t\"\\\/", "\u2028\u007f\u0080", "\ud83d\ude00 €"]',
    '{"deep": [[[[{"x": [null, true, false, "null"]}]]]]}',
    "null",
    '"only text"',
    "7",
]


def to_json(value) -> str:
    import json

    match value:
        case dict():
            return "{" + ",".join(f"{json.dumps(key)}:{to_json(item)}" for key, item in value.items()) + "}"
        case list():
            return f"[{','.join(map(to_json, value))}]"
        case None | bool() | str():
            return json.dumps(value)
        case _:
            return str(value)


def insert(log, payload: str | None, *, entity_type="cache", entity_id="c1", workflow_id=None, severity="info"):
    """An event as foreign programs may write one, with its position."""
    log.connection.execute(
        "WITH e AS (INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, severity, payload)"
        " VALUES (uuid_floor(now()) , 'cache.hit', %s, %s, %s, %s, %s::jsonb) RETURNING event_id)"
        " INSERT INTO event_inbox (event_id) SELECT event_id FROM e".replace(
            "uuid_floor(now())", f"'{uuid.UUID(int=uuid_floor() | uuid.uuid4().int >> 64)}'"
        ),
        (entity_type, entity_id, workflow_id, severity, payload),
    )
    log.sequence()


def uuid_floor() -> int:
    return int(now().timestamp() * 1000) << 80


def check_last(log, payload: str | None) -> None:
    """The last event has one digest, however it is made, and its commitment can be made without PostgreSQL."""
    (event,) = digests.read(log.connection, first=log.head, last=log.head)
    assert event.leaf == seal.leaves_of(log.connection, first=log.head, last=log.head)
    text = None if payload is None else jsonb_text(payload)
    assert event.payload_json == text
    assert event.committed == commitment(event.salt, text)


@pytest.mark.parametrize("payload", [*NASTY, None])
def test_sql_and_python_make_the_same_digest_of_any_payload(any_log, payload):
    insert(any_log, payload)
    check_last(any_log, payload)


@pytest.mark.parametrize(
    "columns",
    [
        {"entity_type": None, "entity_id": None, "severity": None},
        {"entity_id": '"\\\t\x01\x1f\x7f\x80/ é\u2028\ufdd0\U0001f600'},
        {"workflow_id": "naïve \\u0041 id", "severity": "critical"},
    ],
)
def test_sql_and_python_make_the_same_digest_of_any_envelope(any_log, columns):
    insert(any_log, "{}", **columns)
    check_last(any_log, "{}")


@pytest.mark.parametrize(
    "at", ["infinity", "-infinity", "0044-03-15 12:00+00", "12026-01-01 00:00+00", "2026-01-01 00:00:00.000001+00"]
)
def test_a_time_that_python_has_no_name_for_can_be_sealed_all_the_same(any_log, at):
    any_log.fill(5)
    any_log.alter("UPDATE events SET created_at = %s WHERE event_type = 'cache.hit'", at)
    leaves = b"".join(event.leaf for event in digests.read(any_log.connection, first=1, last=any_log.head))
    assert leaves == seal.leaves_of(any_log.connection, first=1, last=any_log.head)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON)
def test_the_committed_bytes_of_any_json_can_be_made_without_postgresql(any_log, value):
    insert(any_log, to_json(value))
    check_last(any_log, to_json(value))


def test_a_digest_is_what_it_was_when_this_format_was_made():
    event = SealedEvent(
        position=7,
        event_id="0198c0de-0000-7000-8000-000000000007",
        event_type="task.completed",
        entity_type="task",
        entity_id='é"\n',
        workflow_id=None,
        severity="info",
        created_at="2026-01-02T03:04:05.000006Z",
        recorded_at="2026-01-02T03:04:05.100000Z",
        schema_version=1,
        payload_json='{"a": 1.50, "output": "ü"}',
        salt=uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
    )
    assert event.leaf.hex() == "262c4a53c2433a675949ab5dee2abd9d45f995f4e5b81622f6ed76e58745288a"


def test_a_commitment_says_nothing_without_its_salt(log):
    log.record(log.own_event(payload={"guess": "me"}), log.own_event(payload={"guess": "me"}))
    log.sequence()
    one, two = digests.read(log.connection, first=1, last=2)
    assert one.payload_json == two.payload_json
    assert one.committed != two.committed
