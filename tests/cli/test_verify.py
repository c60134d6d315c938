"""`workledger verify`: passes after real work, fails after any alteration, and says which row."""

from __future__ import annotations

import json
import re

import psycopg
import pytest

FIRST = "tau-bench/airline/0/0"


@pytest.fixture
def store(cli, ledger, tau_airline_file, tmp_path):
    """Eight real runs and an event of the application's own: imported, landed, counted, sealed."""
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"".join(tau_airline_file.read_bytes().splitlines(keepends=True)[:8]))
    assert cli("import", "tau-bench", str(path), "--name", "airline").code == 0
    ledger.event("cache.hit", entity_type="cache", entity_id="c", payload={"rate": 0.5})
    assert cli("verify", "--wait").code == 0


@pytest.fixture
def alter(database_url):
    """Runs SQL as a superuser with every guard turned off."""

    def run(*statements):
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SET search_path = workledger")
            guarded = "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE tgname LIKE 'append_only%%'"
            guards = connection.execute(guarded).fetchall()
            for table, guard in guards:
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {guard}")
            for statement in statements:
                assert connection.execute(statement).rowcount != 0, "nothing was altered"
            for table, guard in guards:
                connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {guard}")

    return run


def test_everything_agrees_and_is_counted(cli, store):
    answer = cli("verify")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    names = ["log", "events", "payloads", "state", "training", "metrics", "seals"]
    assert [re.split(r"\s+", line)[:2] for line in lines[:-1]] == [["ok", name] for name in names]
    assert lines[-1] == "Everything that was checked agrees."
    checks = {check["name"]: check for check in cli("verify", "--json").document["checks"]}
    head = checks["log"]["counts"]["head"]
    assert checks["log"]["counts"]["events"] == head > 0
    assert checks["training"]["counts"]["events lines"] == head
    assert checks["training"]["counts"]["workflows lines"] == checks["state"]["counts"]["workflows"] == 8
    assert checks["metrics"]["counts"]["positions counted"] == head
    assert checks["seals"]["counts"]["events"] == head
    assert {check["lag"] for check in checks.values()} <= {0, None}


@pytest.mark.parametrize(
    ("option", "name"), [("--rebuild", "state"), ("--training",) * 2, ("--metrics",) * 2, ("--seals",) * 2]
)
def test_one_check_can_be_asked_for(cli, store, option, name):
    document = cli("verify", option, "--json").document
    assert [check["name"] for check in document["checks"]] == [name.removeprefix("--")]


def test_a_lag_is_told_and_is_no_fault_and_wait_makes_it_go_away(cli, store, ledger):
    ledger.event("late", entity_type="thing", entity_id="1")
    ledger.event("late", entity_type="thing", entity_id="2")
    with ledger.pool.connection() as connection:
        from workledger.log.sequencer import sequence

        sequence(connection, schema="workledger")
    answer = cli("verify")
    assert answer.code == 0
    assert answer.out.count("behind the log by 2 positions (no fault; --wait lets it catch up)") == 3
    assert "behind" not in cli("verify", "--wait").out


ALTERATIONS = {
    "a row": (
        [f"UPDATE workflows SET status = 'failed' WHERE workflow_id = '{FIRST}'"],
        rf"workflows\[{FIRST}\]\.status",
    ),
    "a message gone": ([f"DELETE FROM messages WHERE message_id = '{FIRST}/3'"], rf"messages\[{FIRST}/3\]: is missing"),
    "a forged row": (
        [f"INSERT INTO feedback (feedback_id, workflow_id, name, score) VALUES ('forged', '{FIRST}', 'reward', 1)"],
        r"feedback\[forged\]: is not explained",
    ),
    "a payload of an event": (
        [
            f"UPDATE events SET payload = payload || '{{\"score\": 0.25}}' WHERE payload ->> 'feedback_id' = '{FIRST}/reward'"
        ],
        rf"feedback\[{FIRST}/reward\]\.score: is 0; the log says 0\.25",
    ),
    "an event of the application": (
        ["UPDATE events SET payload = '{\"rate\": 0.6}' WHERE event_type = 'cache.hit'"],
        r"events-\d+-\d+\.jsonl",
    ),
    "a severity of the application": (
        ["UPDATE events SET severity = 'debug' WHERE event_type = 'cache.hit'"],
        r"position \d+: .*severity|altered",
    ),
    "a position gone": (["DELETE FROM event_positions WHERE position = 7"], r"event_positions\[7\]: missing positions"),
    "two positions of strangers swapped": (
        [
            "UPDATE event_positions SET position = 900000 WHERE position = 1",
            "UPDATE event_positions SET position = 1 WHERE position = (SELECT max(position) FROM event_positions"
            " WHERE position < 900000)",
            "UPDATE event_positions SET position = (SELECT position FROM log_head) WHERE position = 900000",
        ],
        r"events-000000000001-\d+\.jsonl",
    ),
    "a forged event": (
        [
            "WITH e AS (INSERT INTO events (event_id, event_type, entity_type, entity_id, payload)"
            " VALUES (uuid_floor(now()), 'cache.hit', 'cache', 'forged', '{}') RETURNING event_id)"
            " INSERT INTO event_positions SELECT position + 1, event_id FROM log_head, e",
        ],
        r"head is not the last position",
    ),
    "a counter": (
        ["UPDATE metric_counters SET value = value + 1 WHERE name = 'workledger_workflows_total'"],
        r"metrics\[workledger_workflows_total",
    ),
    "a seal": (["UPDATE seals SET root = decode(repeat('00', 32), 'hex')"], r"seals\[1\]"),
    "a stored payload": (["UPDATE payloads SET body = substr(body, 1, 50)"], r"payloads\["),
}


def test_seals_are_compared_with_the_key_and_the_checkpoints_that_were_kept(cli, store, ledger, alter, environment):
    key = cli("keys", "new").out.strip().splitlines()[-1]
    ledger.event("signed", entity_type="thing", entity_id="1")
    assert cli("seals", "make").code == 0
    assert cli("seals", "checkpoint", "kept").code == 0
    sound = cli("verify", "--seals", "--key", key, "--checkpoints", "kept", "--json").document
    assert sound["ok"] is True
    assert sound["checks"][0]["counts"]["checkpoints"] == 1
    alter("DELETE FROM seals WHERE number = (SELECT max(number) FROM seals)")
    assert cli("verify", "--seals", "--key", key, "--checkpoints", "kept").code == 1


def test_checkpoints_are_kept_and_found_where_the_settings_say(cli, store, ledger, alter, environment, monkeypatch):
    cli("keys", "new")
    assert cli("seals", "checkpoint").err.startswith("error: say where to keep the checkpoint, or set checkpoints_url")
    monkeypatch.setenv("WORKLEDGER_CHECKPOINTS_URL", f"file:{environment}/kept")
    ledger.event("signed", entity_type="thing", entity_id="1")
    cli("seals", "make")
    (finding,) = [one for one in cli("doctor", "--json").document["findings"] if one["area"] == "checkpoints"]
    assert (finding["state"], finding["way_out"]) == ("warning", "run `workledger up`")
    kept = cli("seals", "checkpoint", "--json").document["checkpoint"]
    (path,) = (environment / "kept").iterdir()
    assert kept == f"file:{path}"
    (finding,) = [one for one in cli("doctor", "--json").document["findings"] if one["area"] == "checkpoints"]
    last = int(path.stem)
    assert (finding["state"], finding["what"]) == ("ok", f"1 checkpoint, the last at position {last}, 0 behind")
    assert cli("verify", "--seals", "--json").document["checks"][0]["counts"]["checkpoints"] == 1
    alter("DELETE FROM seals WHERE number = (SELECT max(number) FROM seals)")
    assert cli("verify", "--seals").code == 1


def test_a_key_that_is_none_is_refused(cli, store):
    answer = cli("verify", "--seals", "--key", "nonsense")
    assert (answer.code, answer.err.count("\n")) == (2, 1)


def test_guards_that_are_off_are_named_too(cli, store, database_url):
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE workledger.seals DISABLE TRIGGER ALL")
    answer = cli("verify", "--seals")
    assert answer.code == 1
    assert "seals: could be changed: a trigger that refuses it is missing or off" in answer.out


@pytest.mark.parametrize("what", ALTERATIONS)
def test_any_one_alteration_is_named_and_the_exit_code_is_1(cli, store, alter, what):
    statements, named = ALTERATIONS[what]
    alter(*statements)
    answer = cli("verify")
    assert answer.code == 1
    assert re.search(named, answer.out), answer.out
    assert re.fullmatch(r"error: \d+ faults? found; the stores do not agree\n", answer.err)
    document = cli("verify", "--json").document
    assert document["ok"] is False
    assert document["faults"] > 0


@pytest.mark.parametrize("record_type", ["events", "workflows", "tool_executions"])
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_altered_line_of_a_shard_is_named(cli, store, environment, record_type, form):
    (path,) = (environment / "training" / record_type).glob(f"*.{form}")
    path.chmod(0o644)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"airline", b"airport", 1)
    path.write_bytes(b"".join(lines))
    answer = cli("verify", "--training")
    assert answer.code == 1
    assert re.search(rf"{record_type}/{path.name}", answer.out)


def test_a_line_removed_and_a_shard_removed_are_named(cli, store, environment):
    (path,) = (environment / "training/workflows").glob("*.jsonl")
    path.chmod(0o644)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert path.name in cli("verify", "--training").out
    path.unlink()
    answer = cli("verify", "--training")
    assert (answer.code, path.name in answer.out) == (1, True)


def test_many_faults_are_counted_and_the_first_named(cli, store, alter):
    alter("UPDATE messages SET name = 'x'")
    answer = cli("verify", "--rebuild")
    assert answer.out.count(".name: is ") == 20
    assert re.search(r"… \d+ more faults; --json lists more", answer.out)
    assert len(json.loads(cli("verify", "--rebuild", "--json").out)["checks"][0]["faults"]) == 100
