"""The commands of the log: keys, seals, prove, replay, as-of."""

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest
import typer
from typer.testing import CliRunner

import workledger
from support.changes import now
from workledger.cli import keys, main, prove, replay, seals


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    error: BaseException | None

    @property
    def document(self):
        return json.loads(self.out)


@pytest.fixture
def cli(database_url, tmp_path):
    """Runs one of the commands of the log."""
    app = typer.Typer()
    app.callback()(main._options)
    for group in (keys, seals, prove, replay):
        group.add_to(app)

    def run(*arguments: str) -> Answer:
        options = ["--database-url", database_url, "--home", str(tmp_path / "home"), *map(str, arguments)]
        result = CliRunner().invoke(app, options)
        return Answer(result.exit_code, result.stdout, result.exception)

    return run


@pytest.fixture
def recorded(ledger):
    """A workflow with a task, and a talk about it."""
    with ledger.start_workflow("research", workflow_id="w1", input={"topic": "x"}) as run:
        with run.task("search", input="q") as task:
            task.output = ["hit"]
        run.message("user", "hello\x1b[31m")
        run.feedback("helpful", score=1)
    with pytest.raises(ValueError, match="oh"), ledger.start_workflow("failing", workflow_id="w2"):
        raise ValueError("oh")
    ledger.flush()
    return ledger


def test_a_key_is_made_listed_and_rotated(cli, tmp_path):
    assert "no keys" in cli("keys", "list").out
    made = cli("keys", "new", "--json").document
    assert (tmp_path / "home" / "keys" / f"{made['key_id']}.pem").exists()
    (listed,) = cli("keys", "list", "--json").document
    assert listed == {
        "key_id": made["key_id"],
        "verifier_key": made["verifier_key"],
        "created_at": listed["created_at"],
        "endorsed_by": None,
        "replaced": False,
        "secret_here": True,
    }
    new = cli("keys", "rotate").out.split("+")[1]
    one, two = cli("keys", "list", "--json").document
    assert (one["replaced"], one["secret_here"]) == (True, False)
    assert (two["key_id"], two["endorsed_by"]) == (new, made["key_id"])
    assert "replaced" in cli("keys", "list").out


def test_a_log_is_sealed_and_its_seals_listed(cli, recorded):
    assert cli("seals", "list").out == "There are no seals.\n"
    assert "not signed" in cli("seals", "make").out
    cli("keys", "new")
    recorded.event("cache.hit", entity_type="cache", entity_id="c")
    answer = cli("seals", "make", "--json").document
    assert answer["made"] == 1
    assert answer["newest"]["key_id"]
    one, two = cli("seals", "list", "--json").document
    assert two["previous"] == one["hash"]
    assert cli("seals", "list", "--after", "1").out.splitlines()[1].split()[0] == "2"


def test_a_checkpoint_is_kept_where_it_is_asked_to(cli, recorded, tmp_path):
    cli("seals", "make")
    assert "not signed" in str(cli("seals", "checkpoint", tmp_path / "kept").error)
    cli("keys", "new")
    recorded.event("cache.hit", entity_type="cache", entity_id="c")
    cli("seals", "make")
    answer = cli("seals", "checkpoint", tmp_path / "kept", "--json").document
    assert cli("seals", "checkpoint", tmp_path / "kept").out.strip() == answer["checkpoint"]
    kept = (tmp_path / "kept").glob("*.checkpoint")
    assert [str(path) for path in kept] == [answer["checkpoint"]]
    proof = cli("prove", "1", "--checkpoint", answer["checkpoint"]).document
    assert proof["event"]["position"] == 1


def test_an_event_is_proved_by_position_or_id(cli, recorded):
    cli("keys", "new")
    cli("seals", "make")
    proof = cli("prove", "3").document
    assert cli("prove", proof["event"]["event_id"]).document == proof
    assert "no position" in str(cli("prove", "0198c0de-77aa-7c85-95da-d5a16d6f3f8c").error)
    assert "cannot be read" in str(cli("prove", "3", "--checkpoint", "nowhere").error)


def test_a_workflow_is_shown_as_it_stood_at_a_position(cli, recorded):
    events = recorded_events(recorded)
    started = next(event.position for event in events if event.event_type == "task.started")
    then = cli("replay", "w1", "--at", started, "--json").document
    assert (then["position"], then["workflow"]["status"], then["workflow"]["current_step"]) == (
        started,
        "running",
        "search",
    )
    assert [one["status"] for one in then["executions"]] == ["running"]
    assert (then["messages"], then["feedback"]) == ([], [])
    now_ = cli("replay", "w1", "--json").document
    assert now_["workflow"]["status"] == "completed"
    assert [one["body"]["content"] for one in now_["messages"]] == ["hello\x1b[31m"]
    text = cli("replay", "w1").out
    assert "completed" in text
    assert "\x1b" not in text


def recorded_events(ledger):
    from workledger.log import reader
    from workledger.log.sequencer import sequence

    with ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")
        return reader.read(connection, after=0)


def test_a_workflow_is_shown_as_it_stood_at_a_time(cli, recorded):
    events = recorded_events(recorded)
    first = next(event for event in events if event.event_type == "workflow.started")
    then = cli("replay", "w1", "--at", first.recorded_at.isoformat(), "--json").document
    assert then["position"] == first.position
    assert cli("replay", "w1", "--at", now().isoformat(), "--json").document["workflow"]["status"] == "completed"
    assert "no workflow 'w1'" in str(cli("replay", "w1", "--at", "1h").error)
    assert "is no moment" in str(cli("replay", "w1", "--at", "yesterday").error)
    assert "positions up to" in str(cli("replay", "w1", "--at", "100000").error)


def test_everything_is_shown_as_it_stood(cli, recorded):
    events = recorded_events(recorded)
    started = next(event.position for event in events if event.entity_id == "w2")
    then = cli("as-of", started, "--json").document
    assert then["counts"]["workflow"] == {"completed": 1, "running": 1}
    assert [one["workflow_id"] for one in then["running"]] == ["w2"]
    end = events[-1].position
    assert [one["workflow_id"] for one in cli("as-of", end, "--json").document["failed"]] == ["w2"]
    text = cli("as-of", end).out
    assert "1 completed, 1 failed" in text
    assert "oh" in text


def test_a_workflow_that_had_not_begun_is_not_there(cli, recorded):
    assert "no workflow" in str(cli("replay", "w2", "--at", "1").error)


def test_keys_of_another_machine_are_told_apart(cli, database_url, tmp_path):
    cli("keys", "new")
    code = "from workledger.cli.main import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--database-url", database_url, "--home", tmp_path / "other", "keys", "list"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "secret elsewhere" in done.stdout
    assert workledger.__version__
