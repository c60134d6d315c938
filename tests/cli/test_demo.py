"""The demo is real work, and it is found in every store."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from support.processes import kill_all_in


def test_the_demo_records_what_it_says_and_every_store_agrees(cli, environment):
    answer = cli("demo", "--json")
    assert (answer.code, answer.err) == (0, "")
    document = answer.document
    assert document["ok"] is True
    assert sorted(document["workflows"].values()) == ["completed"] * 4 + ["failed"]
    assert document["training"]["rows"]["workflows"] == 5
    assert document["training"]["rows"]["events"] >= document["events"]
    assert document["bus"].startswith("none: ")
    failed = cli("failed", "--json").document
    errors = {execution["error_type"].rpartition(".")[2] for execution in failed["executions"]}
    assert errors == {"CatalogueBusy", "NoSource"}
    assert all(
        execution["task_name"] == "consult_catalogue" for execution in failed["executions"] if execution["retry_count"]
    )
    assert cli("verify").code == 0


def test_an_agent_of_the_demo_retries_finds_another_way_and_is_judged(cli, ledger):
    document = cli("demo", "--json").document
    study = next(name for name in document["workflows"] if name.startswith("study-json.decoder"))
    shown = cli("show", study, "--json").document
    attempts = [execution for execution in shown["executions"] if execution["task_name"] == "consult_catalogue"]
    assert [execution["status"] for execution in attempts] == ["failed"] * (len(attempts) - 1) + ["completed"]
    assert len(attempts) > 1
    outlines = [execution["status"] for execution in shown["executions"] if execution["task_name"] == "outline"]
    assert outlines == ["failed", "completed"]
    agent = next(execution for execution in shown["executions"] if execution["kind"] == "agent")
    tools = [execution for execution in shown["executions"] if execution["kind"] == "tool"]
    assert {execution["parent_execution_id"] for execution in tools} == {agent["execution_id"]}
    roles = [message["role"] for message in shown["messages"]]
    assert roles[:3] == ["system", "user", "assistant"]
    assert roles.count("tool") == 6
    assert [(one["name"], one["score"]) for one in shown["feedback"]] == [("recount", 1.0)]
    assert "# json.decoder" in Path(shown["workflow"]["output_data"]["written_to"]).read_text()


def test_the_demo_can_be_run_again(cli):
    first, second = (cli("demo", "--json").document for _ in range(2))
    assert first["workflows"].keys().isdisjoint(second["workflows"])
    assert second["training"]["rows"]["workflows"] == 10


@pytest.fixture
def nothing_but_a_folder(monkeypatch, servers_dir, tmp_path):
    for name in ("DATABASE_URL", "SYNAPSE_URL", "TRAINING_URL"):
        monkeypatch.delenv(f"WORKLEDGER_{name}")
    home = servers_dir / f"demo-{tmp_path.name}"
    home.mkdir(mode=0o711)
    monkeypatch.setenv("WORKLEDGER_HOME", str(home))
    yield home
    kill_all_in(home)


def test_from_nothing_but_a_folder_every_command_the_demo_names_works(cli, shell, environment, nothing_but_a_folder):
    answer = shell("demo")
    assert answer.code == 0, answer.err
    assert "bus       embedded Valkey, stream workledger:{workledger}:events" in answer.out
    assert "verify    every store agrees" in answer.out
    assert answer.err.splitlines()[0].startswith("1/3  ")
    commands = re.findall(r"^(\S+ .+?)  ", answer.out.partition("COMMAND ")[2], flags=re.MULTILINE)
    assert len(commands) == 8
    for command in commands:
        if not command.endswith(" up"):
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=200)
            assert (done.returncode, done.stdout != "") == (0, True), (command, done.stderr)
    shards = sorted((environment / "data/training/workflows").glob("*.jsonl"))
    assert {json.loads(line)["name"] for line in shards[0].read_text().splitlines()} == {
        "study-library",
        "index-library",
    }
    stopped = cli("stop")
    assert stopped.out == "Stopped embedded valkey, embedded postgres.\n"
    assert cli("stop").out.startswith("Nothing was running")
