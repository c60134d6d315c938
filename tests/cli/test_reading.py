"""ps, failed, show, events: what people ask all day."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from support import wait_until
from workledger.log.sequencer import sequence


@pytest.fixture
def busy(ledger):
    """One workflow running with a tool at work, one failed after a retry, one completed with a talk."""

    @ledger.task(retries=1, backoff_s=0.001)
    def doomed():
        raise RuntimeError("no such luck\nsecond line")

    @ledger.workflow(version="1", steps=["doomed"])
    def fails():
        doomed()

    with pytest.raises(RuntimeError):
        fails.options(workflow_id="failed-1")()
    with ledger.start_workflow("talks", workflow_id="talk-1", workflow_type="agent", subject="mia") as run:
        run.message("user", "What is \x1b[31mred\x1b[0m?")
        with run.agent("think") as agent:
            with agent.tool("look", input={"q": "red"}) as tool:
                tool.output = ["a colour"]
            agent.output = "A colour."
        run.message(
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
        )
        run.feedback("helpful", score=1, comment="yes")
        run.output = {"answer": "A colour.", "nan": float("nan"), "nul": "\x00"}
    run = ledger.start_workflow("works", workflow_id="running-1", total_steps=2)
    with run, run.task("step one", input={"n": 1}) as task, task.tool("dig"):
        yield ledger


# -- ps -----------------------------------------------------------------------------------------------------------


def test_ps_of_an_idle_store_says_so(cli):
    assert cli("ps").out == "Nothing is running.\n"
    assert cli("ps", "--json").document == {"workflows": [], "executions": []}


def test_ps_lists_workflows_with_their_step_and_the_executions_at_work(cli, busy):
    lines = cli("ps").out.splitlines()
    assert re.split(r"\s{2,}", lines[0]) == ["WORKFLOW / EXECUTION", "NAME", "STEP", "AGE", "WORKER"]
    assert re.match(rf"running-1 +works +step one \(0 of 2 done\) +\d+s +\S+:{os.getpid()}$", lines[1])
    assert re.match(r"└ \S+ +step one +task +\d+s", lines[2])
    assert re.match(r"└ \S+ +dig +tool +\d+s", lines[3])
    assert len(lines) == 4


def test_ps_as_json_has_ages_in_seconds_and_workers(cli, busy):
    document = cli("ps", "--json").document
    (workflow,) = document["workflows"]
    assert (workflow["workflow_id"], workflow["current_step"]) == ("running-1", "step one")
    assert 0 <= workflow["age_s"] < 60
    assert workflow["worker"]["pid"] == os.getpid()
    assert [execution["task_name"] for execution in document["executions"]] == ["step one", "dig"]


def test_ps_says_when_a_workflow_was_asked_to_stop(cli, busy):
    busy.cancel("running-1")
    assert "(asked to stop)" in cli("ps").out


def test_ps_does_not_list_what_belongs_to_a_dead_process(cli, shell, database_url, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal, workledger\n"
        "ledger = workledger.open(lease_s=0.5)\n"
        "ledger.start_workflow('doomed', workflow_id='dead-1').__enter__()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, script], check=False, timeout=200)
    assert wait_until(lambda: cli("ps", "--json").document["workflows"] == [], timeout_s=60)


# -- failed -------------------------------------------------------------------------------------------------------


def test_failed_of_a_clean_store_says_so(cli):
    assert cli("failed").out == "Nothing has failed.\n"
    assert cli("failed", "--since", "1h").out == "Nothing has failed since 1h.\n"
    assert cli("failed", "--json").document == {"workflows": [], "executions": []}


def test_failed_lists_workflows_and_attempts_newest_first(cli, busy):
    lines = cli("failed").out.splitlines()
    assert re.match(r"\d+s ago +workflow +fails +failed-1 +RuntimeError: no such luck$", lines[1])
    assert re.match(r"\d+s ago +task +doomed \(attempt 2\) +\S+ +RuntimeError: no such luck$", lines[2])
    assert re.match(r"\d+s ago +task +doomed +\S+ +RuntimeError: no such luck$", lines[3])
    assert lines[4] == "1 workflow and 2 executions. `workledger show ID` has the traceback."


def test_failed_as_json_has_the_whole_error(cli, busy):
    document = cli("failed", "--json").document
    assert document["workflows"][0]["error"] == "no such luck\nsecond line"
    assert [execution["retry_count"] for execution in document["executions"]] == [1, 0]


@pytest.mark.parametrize("since", ["90s", "15m", "1.5h", "7d", "2w", "2020-01-01T00:00Z"])
def test_since_takes_ages_and_times(cli, busy, since):
    assert len(cli("failed", "--since", since, "--json").document["workflows"]) == 1


def test_since_leaves_out_what_is_older(cli, busy):
    assert cli("failed", "--since", "2100-01-01T00:00Z", "--json").document["workflows"] == []


@pytest.mark.parametrize("since", ["yesterday", "5", "2020-01-01", "2020-01-01T00:00", "-1h"])
def test_a_time_that_means_nothing_is_refused_with_examples(cli, since):
    answer = cli("failed", f"--since={since}")
    assert answer.code == 2
    assert f"--since {since!r} is no time; give an age (90s, 15m, 1h, 7d, 2w)" in answer.err


# -- show ---------------------------------------------------------------------------------------------------------


def test_show_prints_a_workflow_whole(cli, busy):
    out = cli("show", "talk-1").out
    assert out.startswith("workflow talk-1\n")
    for line in (
        r"  name +talks \(agent\)",
        r"  status +completed",
        r"  subject +mia",
        r"2 executions",
        r"think +agent  completed +[\d.]+ m?s",
        r"  └ look +tool +completed",
        r"conversation talk-1: 2 messages \(1 user, 1 assistant\)",
        r"     2 assistant  → f\({}\)",
        r"helpful +1.0 +yes",
        r"\d+ events \(\d+ not sequenced yet\)",
    ):
        assert re.search(line, out), line


def test_show_cannot_be_used_to_control_the_terminal(cli, busy):
    out = cli("show", "talk-1").out
    assert "\x1b" not in out
    assert r"What is \x1b[31mred\x1b[0m?" in out


def test_show_prints_the_traceback_of_a_failure(cli, busy):
    out = cli("show", "failed-1").out
    assert "RuntimeError: no such luck" in out
    assert "Traceback (most recent call last):" in out
    assert re.search(r"doomed \(attempt 2\) +task +failed", out)


def test_show_as_json_is_whole_and_exact(cli, busy):
    document = cli("show", "talk-1", "--json").document
    assert document["workflow"]["output_data"]["answer"] == "A colour."
    assert document["workflow"]["output_data"]["nan"] == {"$workledger": "float", "value": "NaN"}
    assert document["workflow"]["output_data"]["nul"] == "\x00"
    assert [message["role"] for message in document["messages"]] == ["user", "assistant"]
    assert document["messages"][0]["body"]["content"] == "What is \x1b[31mred\x1b[0m?"
    assert [execution["task_name"] for execution in document["executions"]] == ["think", "look"]
    assert {event["event_type"] for event in document["events"]} >= {"workflow.started", "message.added"}
    assert document["training"] == []


def test_show_tells_the_newest_branch_of_a_conversation(cli, ledger):
    with ledger.start_workflow("w", workflow_id="branched") as run:
        first = run.message("user", "one")
        run.message("assistant", "two")
        ledger.conversation("branched").edit(first, "one, said again")
    shown = cli("show", "branched", "--json").document["messages"]
    assert [message["body"]["content"] for message in shown] == ["one, said again"]


def test_show_of_an_execution_prints_its_input_output_and_error(cli, busy):
    document = cli("failed", "--json").document
    execution_id = document["executions"][0]["execution_id"]
    out = cli("show", execution_id).out
    assert out.startswith(f"execution {execution_id}\n")
    assert "failed-1 (fails, failed)" in out
    assert "Traceback" in out
    assert cli("show", execution_id, "--json").document["execution"]["error_type"] == "RuntimeError"


def test_show_of_nothing_says_so_and_exits_1(cli, busy):
    answer = cli("show", "nothing-1")
    assert (answer.code, answer.out) == (1, "")
    assert re.fullmatch(r"error: no workflow and no execution has the id 'nothing-1'; .*\n", answer.err)


def test_show_says_where_the_training_lines_are(cli, busy, environment):
    assert cli("verify", "--wait").code == 0
    training = cli("show", "talk-1", "--json").document["training"]
    assert {line["records"] for line in training} == {"events", "tasks", "tool_executions", "workflows"}
    for found in training:
        (path,) = [path for path in found["files"] if path.endswith(".jsonl")]
        lines = [json.loads(line) for line in (environment / "training" / path).read_text().splitlines()]
        there = {line["position"]: line for line in lines}
        assert all(there[position]["workflow_id"] == "talk-1" for position in found["positions"])
    assert re.search(r"workflows +workflows/\S+\.jsonl +\d+", cli("show", "talk-1").out)


# -- events -------------------------------------------------------------------------------------------------------


def test_events_are_the_newest_in_the_order_of_the_log(cli, busy):
    lines = cli("events", "-n", "3").out.splitlines()
    positions = [int(line.split()[0]) for line in lines]
    assert positions == sorted(positions)
    assert len(lines) == 3
    assert "task.started" in lines[-1]


def test_events_as_json_have_their_payload(cli, busy):
    document = cli("events", "--json", "-n", "1000").document
    assert [event["position"] for event in document["events"]] == list(range(1, document["head"] + 1))
    assert document["events"][-1]["payload"]["task_name"] == "dig"


def test_all_events_are_printed_a_line_each_as_the_training_store_has_them(cli, busy):
    lines = [json.loads(line) for line in cli("events", "--all").out.splitlines()]
    assert [line["position"] for line in lines] == list(range(1, len(lines) + 1))
    assert cli("events", "--json", "-n", "1").document["head"] == len(lines)
    assert [json.loads(line)["position"] for line in cli("events", "--all", "--after", "3").out.splitlines()][:1] == [4]
    refused = cli("events", "--all", "--type", "x")
    assert refused.code == 2
    assert "leave out" in refused.err


@pytest.mark.parametrize(
    ("options", "types"),
    [
        (["--type", "workflow.failed"], {"workflow.failed"}),
        (["--entity", "workflow/talk-1", "--type", "workflow.completed"], {"workflow.completed"}),
        (["--workflow", "failed-1", "--type", "task.failed"], {"task.failed"}),
        (["--after", "0", "--type", "workflow.failed"], {"workflow.failed"}),
    ],
)
def test_events_are_filtered(cli, busy, options, types):
    events = cli("events", *options, "--json").document["events"]
    assert {event["event_type"] for event in events} == types


def test_events_of_an_entity_named_wrongly_are_refused(cli):
    answer = cli("events", "--entity", "workflow")
    assert (answer.code, "is not TYPE/ID" in answer.err) == (2, True)


def test_events_follow_the_log_as_it_grows_whoever_sequences(environment, busy):
    command = [sys.executable, "-m", "workledger.cli.main", "events", "-f", "-n", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")), daemon=True)
        reader.start()
        recorded = []

        def record_until_heard():
            recorded.append(busy.event("ping", entity_type="thing", entity_id="1"))
            if len(recorded) % 2:
                with busy.pool.connection() as connection:
                    sequence(connection, schema="workledger")
            return len(lines) >= 3

        wait_until(record_until_heard, timeout_s=100)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=100) == 130
        reader.join(60)
        assert process.stderr.read() == ""
    events = [json.loads(line) for line in lines]
    positions = [event["position"] for event in events]
    assert positions == list(range(positions[0], positions[0] + len(positions)))
    assert {event["event_type"] for event in events} == {"ping"}
