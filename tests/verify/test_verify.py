"""What is altered behind the ledger's back is found, and named; what is sound is not accused."""

from __future__ import annotations

import threading
from contextvars import copy_context

import psycopg
import pytest

import workledger
from support import wait_until
from workledger.flows.import_lines import import_items
from workledger.flows.import_tau_bench import import_tau_bench, read_lines
from workledger.flows.replay import STATE_TABLES, shadow_name
from workledger.flows.verify import DATABASE_CHECKS, check_database
from workledger.log.sequencer import sequence
from workledger.postgres.connection import connect


@pytest.fixture
def ledger(database_url, tmp_path):
    with workledger.open(database_url, home=tmp_path, lease_s=60) as ledger:
        yield ledger


def live_a_little(ledger):
    """Something of everything: ends of all kinds, retries, a resume, messages taken back, events, feedback."""
    flaky = iter([ValueError("not yet"), None])

    @ledger.task(retries=1, backoff_s=0.001)
    def sometimes():
        if error := next(flaky):
            raise error
        return {"big": "x" * 10_000}

    @ledger.tool
    def look(what):
        return {"found": what, "n": 1.0, "many": 2**70, "nul": "\x00"}

    @ledger.workflow(version="1", steps=["sometimes"])
    def work(topic):
        sometimes()
        return look(topic)

    work.options(workflow_id="work-1", subject="mia", tags=["a"], metadata={"k": 1.50})("seats")
    with ledger.start_workflow("talk", workflow_id="talk-1") as run:
        for n in range(3):
            run.message("user", f"question {n}")
            run.message({"role": "assistant", "content": None, "tool_calls": [{"id": "c", "n": n}]})
        ledger.conversation("talk-1").pop()
        run.event("cache.hit", {"key": "k", "rate": 0.50})
        run.feedback("helpful", score=1, comment="yes")
        with run.agent("plan") as agent, agent.tool("grep", input={"q": "x"}) as tool:
            tool.output = ["a", "b"]
    with pytest.raises(ZeroDivisionError), ledger.start_workflow("break", workflow_id="break-1"):
        _ = 1 / 0
    with ledger.start_workflow("break", workflow_id="break-1") as run, run.task("again") as task:
        task.output = "fine now"
    copy_context().run(ledger.start_workflow("asked", workflow_id="asked-1").__enter__)  # begun and never ended
    ledger.cancel("asked-1", reason="enough")


@pytest.fixture
def store(ledger, tau_airline_file):
    """A ledger with six real runs and something of everything, sequenced."""
    lines = tau_airline_file.read_bytes().splitlines()[:6]
    with ledger.pool.connection() as connection:
        items = read_lines(lines, name="airline", clock=ledger.clock)
        import_items(items, connection=connection, recorder=ledger.recorder)
        live_a_little(ledger)
        sequence(connection, schema="workledger")
    return ledger


def verify(url, names=DATABASE_CHECKS):
    with connect(url, recording=True) as connection:
        checks = list(check_database(connection, schema="workledger", names=names))
    return {check.name: check for check in checks}


def faults(url):
    return [str(fault) for check in verify(url).values() for fault in check.faults]


@pytest.fixture
def alter(database_url):
    """Runs SQL as a superuser with every trigger of the log turned off."""

    def run(statement, *parameters):
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SET search_path = workledger")
            guarded = "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE 'append_only%%'"
            for (table,) in connection.execute(guarded).fetchall():
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
            assert connection.execute(statement, parameters).rowcount != 0, "nothing was altered"

    return run


def test_a_sound_store_passes_and_says_what_was_checked(store, database_url):
    checks = verify(database_url)
    assert [str(fault) for check in checks.values() for fault in check.faults] == []
    assert all(check.ok for check in checks.values())
    with psycopg.connect(database_url) as connection:
        for table in STATE_TABLES:
            count = connection.execute(f"SELECT count(*) FROM workledger.{table}").fetchone()[0]
            assert checks["state"].counts[table] == count
            assert (count > 0) != table.startswith("archived_"), table
        events = connection.execute("SELECT count(*) FROM workledger.events").fetchone()[0]
    assert checks["log"].counts == {"head": events, "positions": events, "events": events, "not sequenced yet": 0}
    assert checks["payloads"].counts["payloads"] > 0


def test_nothing_is_left_behind(store, database_url):
    verify(database_url)
    with psycopg.connect(database_url) as connection:
        names = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE '%%rebuild%%'").fetchall()
    assert names == []


def test_events_that_wait_for_a_position_are_replayed_too(store, database_url):
    with store.start_workflow("late", workflow_id="late-1") as run:
        run.message("user", "not sequenced")
    checks = verify(database_url)
    assert checks["log"].counts["not sequenced yet"] > 0
    assert all(check.ok for check in checks.values())


ROWS = {
    "a status": ("UPDATE workflows SET status = 'failed' WHERE workflow_id = 'work-1'", "workflows[work-1].status"),
    "a timestamp": (
        "UPDATE task_executions SET started_at = started_at + interval '1 microsecond' WHERE task_name = 'look'",
        ".started_at",
    ),
    "a number in JSON": (
        "UPDATE workflows SET metadata = '{\"k\": 1.500}' WHERE workflow_id = 'work-1'",
        'workflows[work-1].metadata: is {"k": 1.500}; the log says {"k": 1.5}',
    ),
    "what was said": (
        "UPDATE messages SET content = '\"answer\"' WHERE message_id = 'tau-bench/airline/0/0/3'",
        "messages[tau-bench/airline/0/0/3].content",
    ),
    "a score": ("UPDATE feedback SET score = 0 WHERE feedback_id <> 'x' AND name = 'helpful'", ".score"),
    "a key that is null": (
        "UPDATE messages SET tool_call_id = '' WHERE seq = 1 AND conversation_id = 'talk-1'",
        ".tool_call_id",
    ),
    "a removal": ("UPDATE messages SET removed_at = NULL WHERE removed_at IS NOT NULL", ".removed_at"),
    "a worker": ("UPDATE workers SET hostname = 'elsewhere'", ".hostname"),
    "a definition": ("UPDATE definitions SET steps = '[]'", "definitions[work, 1].steps"),
    "a message gone": (
        "DELETE FROM messages WHERE message_id = 'tau-bench/airline/0/0/3'",
        "messages[tau-bench/airline/0/0/3]: is missing; the log says that it exists",
    ),
    "an execution gone": ("DELETE FROM task_executions WHERE task_name = 'grep'", "is missing"),
    "a row nobody recorded": (
        "INSERT INTO feedback (feedback_id, workflow_id, name, score) VALUES ('made-up', 'work-1', 'reward', 1)",
        "feedback[made-up]: is not explained by any event",
    ),
    "two messages swapped": (
        "UPDATE messages m SET content = o.content FROM messages o WHERE m.conversation_id = o.conversation_id"
        " AND m.conversation_id = 'talk-1' AND m.seq IN (1, 3) AND o.seq = 4 - m.seq",
        ".content",
    ),
}
EVENTS = {
    "a payload": (
        "UPDATE events SET payload = jsonb_set(payload, '{output}', '\"other\"') WHERE event_type = 'task.completed'"
        " AND entity_id = 'tau-bench/airline/0/0/8/0'",
        "task_executions[tau-bench/airline/0/0/8/0].output_data",
    ),
    "a payload of the wrong type": (
        "UPDATE events SET payload = jsonb_set(payload, '{score}', '\"x\"') WHERE event_type = 'feedback.recorded'"
        " AND entity_id = 'talk-1'",
        "cannot be replayed: invalid input syntax",
    ),
    "a type": (
        "UPDATE events SET event_type = 'task.failed' WHERE entity_id = 'tau-bench/airline/0/0/8/0' AND event_type = 'task.completed'",
        "severity is info",
    ),
    "a severity": ("UPDATE events SET severity = 'debug' WHERE event_type = 'workflow.failed'", "severity is debug"),
    "an entity": (
        "UPDATE events SET entity_id = 'talk-1' WHERE event_type = 'workflow.completed' AND entity_id = 'work-1'",
        "follows workflow.completed",
    ),
    "a time": (
        "UPDATE events SET created_at = created_at + interval '1 hour' WHERE event_type = 'workflow.cancel_requested'",
        "created_at is not the time that its id carries",
    ),
    "an event gone": (
        "DELETE FROM events WHERE event_type = 'message.added' AND payload ->> 'message_id' = 'tau-bench/airline/0/0/3'",
        "position without an event",
    ),
    "an event of the application gone": (
        "DELETE FROM events WHERE event_type = 'cache.hit'",
        "position without an event",
    ),
    "an event nobody recorded": (
        "INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, payload)"
        " VALUES (uuid_floor(now()), 'task.completed', 'task', 'tau-bench/airline/0/0/8/0', NULL, '{}')",
        "event without a position",
    ),
    "an event nobody recorded, in the inbox": (
        "WITH e AS (INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, payload)"
        " VALUES (uuid_floor(now()), 'task.completed', 'task', 'tau-bench/airline/0/0/8/0', NULL, '{}') RETURNING event_id)"
        " INSERT INTO event_inbox (event_id) SELECT event_id FROM e",
        "follows task.completed",
    ),
    "a second beginning": (
        "WITH e AS (INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, payload)"
        " VALUES (uuid_floor(now()), 'workflow.started', 'workflow', 'work-1', 'work-1', '{\"name\": \"forged\"}') RETURNING event_id)"
        " INSERT INTO event_inbox (event_id) SELECT event_id FROM e",
        "follows workflow.completed",
    ),
}
POSITIONS = {
    "a position gone": ("DELETE FROM event_positions WHERE position = 7", "event_positions[7]: missing positions"),
    "several positions gone": (
        "DELETE FROM event_positions WHERE position BETWEEN 7 AND 9",
        "event_positions[7 to 9]: missing",
    ),
    "the first position gone": ("DELETE FROM event_positions WHERE position = 1", "event_positions[1]: missing"),
    "the last position gone": (
        "DELETE FROM event_positions WHERE position = (SELECT position FROM log_head)",
        "head is not the last position",
    ),
    "the head moved": ("UPDATE log_head SET position = position + 1", "head is not the last position"),
    "an event at another's position": (
        "UPDATE event_positions SET event_id = uuid_floor(now()) WHERE position = 9",
        "position without an event",
    ),
    "a position given, the inbox kept": (
        "INSERT INTO event_inbox (event_id) SELECT event_id FROM event_positions WHERE position = 5",
        "waiting for a position it has already",
    ),
    "a key in the inbox without an event": (
        "INSERT INTO event_inbox (event_id) VALUES (uuid_floor(now()))",
        "waiting for a position without an event",
    ),
}
PAYLOADS = {
    "a payload gone": (
        "DELETE FROM payloads WHERE digest = (SELECT decode(content ->> 'digest', 'hex') FROM messages"
        " WHERE message_id = 'tau-bench/airline/0/0/0')",
        "which is missing",
    ),
    "a payload cut short": ("UPDATE payloads SET body = substr(body, 1, 100)", "payloads["),
    "a payload exchanged": (
        "UPDATE payloads p SET body = o.body, codec = o.codec, size_bytes = o.size_bytes FROM (SELECT * FROM payloads"
        " ORDER BY digest LIMIT 1) o WHERE p.digest <> o.digest",
        "does not have the content its digest names",
    ),
}
ALTERATIONS = {**ROWS, **EVENTS, **POSITIONS, **PAYLOADS}


@pytest.mark.parametrize("what", ALTERATIONS)
def test_an_alteration_is_found_and_named(store, database_url, alter, what):
    statement, named = ALTERATIONS[what]
    alter(statement)
    found = faults(database_url)
    assert any(named in fault for fault in found), found[:10]


def test_two_positions_swapped_are_found(store, database_url, alter):
    two = "SELECT array_agg(position ORDER BY position) FROM event_positions JOIN events USING (event_id) WHERE {}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET search_path = workledger")
        where = "payload ->> 'message_id' IN ('tau-bench/airline/0/0/3', 'tau-bench/airline/0/0/4')"
        ((first, second),) = connection.execute(two.format(where)).fetchone()
    alter("UPDATE event_positions SET position = 1000000 WHERE position = %s", first)
    alter("UPDATE event_positions SET position = %s WHERE position = %s", first, second)
    alter("UPDATE event_positions SET position = %s WHERE position = 1000000", second)
    found = faults(database_url)
    assert any("messages[tau-bench/airline/0/0/3].seq: is 4; the log says 5" in fault for fault in found), found


def test_an_event_that_cannot_be_replayed_is_named_and_the_rest_is_replayed(store, database_url, alter):
    alter(
        "UPDATE events SET payload = payload || '{\"total_steps\": \"x\"}' WHERE event_type = 'workflow.started' AND entity_id = 'talk-1'"
    )
    found = faults(database_url)
    assert any("workflow.started of workflow 'talk-1'" in fault and "cannot be replayed" in fault for fault in found)
    assert not any("work-1" in fault for fault in found)


def test_many_faults_are_counted_and_the_first_are_named(store, database_url, alter):
    alter("UPDATE messages SET content = '\"altered\"'")
    check = verify(database_url, ["state"])["state"]
    assert len(check.faults) == 100
    assert check.fault_count == check.counts["messages"] > 100


def test_verifying_while_others_record_accuses_nobody(store, database_url, tmp_path):
    stop = threading.Event()

    def record():
        with workledger.open(database_url, home=tmp_path) as other:
            while not stop.is_set():
                with other.start_workflow("busy") as run:
                    run.message("user", "hello")
                    with run.task("step"):
                        pass

    threads = [threading.Thread(target=record) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert faults(database_url) == []
            with store.pool.connection() as connection:
                sequence(connection, schema="workledger")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert faults(database_url) == []


def test_two_verifications_at_once_do_not_disturb_each_other(store, database_url):
    results = []
    threads = [threading.Thread(target=lambda: results.append(faults(database_url))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[], []]


def test_a_verification_that_is_killed_leaves_nothing_behind(store, database_url):
    with connect(database_url, recording=True) as connection:
        checks = check_database(connection, schema="workledger", names=["state", "log"])
        next(checks)
        there = connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", (shadow_name("workledger"),)).fetchone()
        assert there == (True,)
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        with pytest.raises(workledger.errors.DatabaseUnavailable):
            next(checks)
    with psycopg.connect(database_url, autocommit=True) as other:
        query = "SELECT to_regnamespace(%s) IS NULL"
        assert wait_until(lambda: other.execute(query, (shadow_name("workledger"),)).fetchone() == (True,), 60)


def test_the_airline_runs_verify_after_their_import(ledger, database_url, tau_airline_file):
    with ledger.pool.connection() as connection:
        import_tau_bench(tau_airline_file, connection=connection, recorder=ledger.recorder, clock=ledger.clock)
        sequence(connection, schema="workledger")
    checks = verify(database_url)
    assert [str(fault) for check in checks.values() for fault in check.faults] == []
    assert checks["state"].counts["messages"] == 5308


def test_the_oldest_supported_server_verifies_too(database15_url, tmp_path):
    with workledger.open(database15_url, home=tmp_path) as ledger:
        live_a_little(ledger)
        with ledger.pool.connection() as connection:
            sequence(connection, schema="workledger")
    assert faults(database15_url) == []


def test_an_exotic_project_name_verifies(database_url, tmp_path):
    project = "p" * 63
    with workledger.open(database_url, home=tmp_path, project=project) as ledger, ledger.start_workflow("one"):
        pass
    with connect(database_url, schema=project, recording=True) as connection:
        assert all(check.ok for check in check_database(connection, schema=project, names=DATABASE_CHECKS))
