"""`archive`, and how the other commands see what is archived."""

from __future__ import annotations

import pytest

from support import wait_until
from training.journal import SCHEMA
from workledger.flows.seal import seal_all
from workledger.log.sequencer import sequence

#: Later than now: everything that is finished is old.
LATER = "2999-01-01T00:00Z"


@pytest.fixture
def finished(ledger):
    """A run with a conversation, a retry, feedback, and a value too large for a row."""

    @ledger.tool
    def look(what):
        return {"found": what * 2000}

    with ledger.start_workflow("talk", workflow_id="talk-1", input={"topic": "owls"}) as run:
        run.message("user", "what about owls?")
        run.message("assistant", "they are awake")
        with run.task("think") as task:
            task.output = "x" * 6000
        look("owl")
        run.feedback("helpful", score=1, comment="yes")
        run.event("cache.hit", {"key": "k"})
    with ledger.pool.connection() as connection:
        sequence(connection, schema=SCHEMA)
        seal_all(connection, schema=SCHEMA)
    return ledger


def test_archive_says_what_it_would_do_and_does_it(cli, finished):
    answer = cli("archive", "--older-than", LATER, "--dry-run")
    assert (answer.code, answer.err) == (0, "")
    assert "1 finished workflow would leave the state tables" in answer.out
    before = cli("show", "talk-1", "--json").document
    year, month, _ = before["events"][0]["recorded_at"].split("-", 2)
    assert f"events_{year}_{month}" in answer.out
    answer = cli("archive", "--older-than", LATER, "--wait")
    assert answer.code == 0, answer.err
    assert "1 finished workflow left the state tables" in answer.out
    assert "recorded state/" in answer.err
    after = cli("show", "talk-1", "--json").document
    assert after.pop("archive").endswith("/workflows.parquet")
    assert [event["event_type"] for event in after["events"]][-1] == "workflow.archived"
    for name in ("workflow", "executions", "messages", "feedback"):
        assert after[name] == before[name], name
    assert after["events"][: len(before["events"])] == before["events"]
    assert "archived in" in cli("show", "talk-1").out


def test_verify_covers_the_archive(cli, finished):
    cli("archive", "--older-than", LATER, "--wait")
    answer = cli("verify", "--wait", "--json")
    assert answer.code == 0, answer.out
    names = {check["name"] for check in answer.document["checks"]}
    assert names == {"archives", "log", "events", "payloads", "state", "training", "metrics", "seals"}


def test_archive_in_json_names_every_file(cli, finished, tmp_path):
    answer = cli("archive", "--older-than", LATER, "--wait", "--json", "--to", f"file:{tmp_path}/elsewhere")
    document = answer.document
    assert document["workflows"] == 1
    assert document["dry_run"] is False
    assert all(url.startswith(f"file://{tmp_path}/elsewhere/state/") for url in document["state_files"])
    again = cli("archive", "--older-than", "30d", "--json").document
    assert (again["workflows"], again["partitions"], again["dropped"]) == (0, [], 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--older-than", "soon"], "--older-than 'soon' is no time"),
        (["--older-than", "90d", "--to", "ftp://x"], "'ftp://x' is no place for an archive"),
        ([], "Missing option '--older-than'"),
    ],
)
def test_what_archive_cannot_understand_is_said_on_one_line(cli, arguments, said):
    answer = cli("archive", *arguments)
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_up_archives_by_schedule_where_it_is_asked_to(environment, finished, monkeypatch):
    from workledger.assembly import make_loops
    from workledger.flows.up import Supervisor
    from workledger.settings import load_settings

    names = [loop.name for loop in make_loops(load_settings(), finished)]
    assert "partitions" in names
    assert "archiver" not in names
    monkeypatch.setenv("WORKLEDGER_ARCHIVE_AFTER_DAYS", "0.000000001")
    loops = [loop for loop in make_loops(load_settings(), finished) if loop.name in {"archiver", "partitions"}]
    assert [loop.name for loop in loops] == ["partitions", "archiver"]
    with Supervisor(loops) as supervisor:
        wait_until(lambda: supervisor.steps().get("archiver"), timeout_s=60)
        assert supervisor.errors() == {}
    with finished.pool.connection() as connection:
        assert connection.execute("SELECT count(*) FROM archived_workflows").fetchone() == (1,)
