"""cancel, resume, migrate, doctor: asking for something to be done, and looking after the store."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

import workledger
from workledger.model.change import Packer, record_event


def test_cancel_asks_a_workflow_to_stop(cli, ledger):
    with pytest.raises(workledger.errors.WorkflowCancelled), ledger.start_workflow("long", workflow_id="long-1") as run:
        answer = cli("cancel", "long-1", "--reason", "enough")
        assert answer.out == "Workflow long-1 was asked to stop; it ends before its next task.\n"
        with run.task("next"):
            pass
    assert ledger.get_workflow("long-1").status == "cancelled"


def test_cancel_of_what_is_over_or_unknown_says_so(cli, ledger):
    with ledger.start_workflow("over", workflow_id="over-1"):
        pass
    answer = cli("cancel", "over-1")
    assert (answer.code, "is completed" in answer.err) == (1, True)
    assert cli("cancel", "nothing-1").code == 1


PROGRAM = """
import workledger

ledger = workledger.open()

@ledger.task
def first(n):
    print("first runs")
    return n + 1

@ledger.task
def second(n):
    assert {mended}, "not mended yet"
    return n * 10

@ledger.workflow
def job(n):
    return second(first(n))
"""


def test_resume_goes_on_where_a_workflow_stopped(shell, environment, database_url):
    (environment / "job.py").write_text(PROGRAM.format(mended=False))
    with workledger.open(database_url, home=environment / "home"):
        pass
    run = "import job; job.job.options(workflow_id='job-1')(1)"
    subprocess.run([sys.executable, "-c", run], capture_output=True, check=False, timeout=200)
    again = shell("resume", "job-1", "--app", "job")
    assert again.code == 1
    assert re.search(
        r"error: workflow 'job-1' failed again: AssertionError: not mended yet.*`workledger show job-1`", again.err
    )
    (environment / "job.py").write_text(PROGRAM.format(mended=True))
    done = shell("resume", "job-1", "--app", "job:ledger")
    assert (done.code, done.document) == (0, {"workflow_id": "job-1", "output": 20})
    assert "first runs" not in done.out
    assert "resuming job-1" in done.err


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("nowhere", "module 'nowhere' cannot be imported"),
        ("json", "module 'json' has no ledger"),
        ("json:ledger", "module 'json' has no ledger named 'ledger'"),
    ],
)
def test_resume_without_the_code_says_what_is_missing(cli, app, message):
    answer = cli("resume", "job-1", "--app", app)
    assert answer.code in {1, 2}
    assert message in answer.err


def test_migrate_makes_the_schema_and_then_has_nothing_to_do(cli, database_url):
    assert cli("migrate", "--check").code == 1
    first = cli("migrate")
    assert re.fullmatch(r"Applied \d+ migrations\. The schema 'workledger' is up to date\.\n", first.out)
    assert "applied 0001_state" in first.err
    assert cli("migrate").out == "Nothing to do. The schema 'workledger' is up to date.\n"
    assert cli("migrate", "--check", "--json").document == {"schema": "workledger", "pending": [], "applied": []}


def test_migrate_check_names_what_is_missing_and_touches_nothing(cli, database_url):
    document = cli("migrate", "--check", "--json").document
    assert document["pending"][0] == "0001_state"
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT to_regnamespace('workledger')").fetchone() == (None,)


def test_migrate_sql_is_a_script_that_makes_the_schema(cli, database_url):
    script = cli("migrate", "--sql").out
    assert script.startswith("\\set ON_ERROR_STOP on\nBEGIN;\n")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(script.partition("\n")[2])
    assert cli("migrate", "--check").code == 0


def test_a_store_that_lacks_migrations_is_refused_with_the_way_out(cli, ledger, database_url):
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "DELETE FROM workledger.migrations WHERE version = (SELECT max(version) FROM workledger.migrations)"
        )
    answer = cli("ps")
    assert answer.code == 3
    assert re.fullmatch(r"error: the schema 'workledger' lacks \d+_\w+; run `workledger migrate`\n", answer.err)
    assert cli("doctor").code == 1


def test_doctor_of_a_sound_store_finds_nothing_wrong(cli, ledger):
    with ledger.start_workflow("one"):
        pass
    document = cli("doctor", "--json").document
    assert document["ok"] is True
    areas = {finding["area"]: finding for finding in document["findings"]}
    assert areas["schema"]["state"] == "ok"
    assert areas["workflows"]["what"] == "1 completed"
    assert areas["workers"]["what"] == "1 alive"
    assert {finding["state"] for finding in document["findings"]} <= {"ok", "info"}


def test_doctor_tells_of_seals_and_of_what_is_not_archived(cli, ledger, monkeypatch):
    monkeypatch.setenv("WORKLEDGER_ARCHIVE_AFTER_DAYS", "90")
    monkeypatch.setenv("WORKLEDGER_SEAL_AFTER_S", "0.5")

    def finding(area):
        (found,) = [one for one in cli("doctor", "--json").document["findings"] if one["area"] == area]
        return found

    with ledger.start_workflow("one"):
        pass
    assert finding("seals")["what"].startswith("none yet")
    cli("seals", "make")
    assert re.fullmatch(r"seal 1 up to position \d+, [\dms ]+ ago, not signed", finding("seals")["what"])
    archive = finding("archive")
    assert (archive["state"], archive["way_out"]) == ("info", None)
    assert archive["what"].startswith("the oldest event that is not archived is ")
    event = record_event(
        at=datetime.now(UTC) - timedelta(days=200),
        packer=Packer(),
        event_type="thing.done",
        entity_type="thing",
        entity_id="1",
        payload={},
    )
    ledger.record(event)
    archive = finding("archive")
    assert archive["state"] == "warning"
    assert archive["way_out"] == "`workledger archive --older-than 90d --dry-run` says what holds it"


def test_doctor_says_where_each_setting_comes_from_and_hides_passwords(cli, monkeypatch, environment):
    (environment / "workledger.toml").write_text("lease_s = 12\n")
    monkeypatch.setenv("WORKLEDGER_SYNAPSE_URL", "rediss://me:secret@cache:6379/0")
    found = {one["name"]: one for one in cli("--project", "other", "doctor", "--json").document["settings"]}
    assert (found["project"]["value"], found["project"]["source"]) == ("other", "command line")
    assert (found["lease_s"]["value"], found["lease_s"]["source"]) == (12.0, "file")
    assert (found["synapse_url"]["value"], found["synapse_url"]["source"]) == (
        "rediss://me:***@cache:6379/0",
        "WORKLEDGER_SYNAPSE_URL",
    )
    assert found["flush_s"]["source"] == "default"


def test_doctor_of_a_database_that_is_away_looks_at_the_rest_all_the_same(cli):
    answer = cli("--database-url", "postgresql://nobody@127.0.0.1:1/none", "doctor")
    assert answer.code == 1
    assert re.search(r"fault +database +PostgreSQL cannot be reached", answer.out)
    assert re.search(r"ok +training ", answer.out)
    assert answer.err.startswith("error: 1 fault: database: ")


def test_doctor_starts_nothing(cli, monkeypatch, environment):
    monkeypatch.delenv("WORKLEDGER_DATABASE_URL")
    monkeypatch.setenv("WORKLEDGER_SYNAPSE_URL", "embedded:")
    answer = cli("doctor")
    assert answer.code == 0
    assert re.search(r"info +embedded postgres +not made yet", answer.out)
    assert not (environment / "home").exists()


def test_doctor_finds_work_left_by_the_dead_and_consumers_that_stand_still(cli, ledger, database_url):
    with ledger.start_workflow("left", workflow_id="left-1"):
        with psycopg.connect(database_url) as connection:
            connection.execute("SET search_path = workledger")
            connection.execute("UPDATE workers SET heartbeat_at = now() - interval '1 hour'")
            connection.execute("UPDATE log_head SET position = 5")
            connection.execute(
                "INSERT INTO consumers (name, position, updated_at) VALUES ('metrics', 1, now() - interval '1 hour')"
            )
        out = cli("doctor").out
    assert re.search(
        r"warning +consumer +metrics at 1, behind by 4, not moved for 1h 00m\n.*→ run `workledger up`", out
    )
    assert re.search(r"warning +workers +1 executions and workflows of processes that died", out)
