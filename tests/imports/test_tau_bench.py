"""Real agent runs go in whole, once, and come back as they were."""

from __future__ import annotations

import json
import multiprocessing
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

import workledger
from workledger.errors import InvalidInput
from workledger.flows.import_lines import import_items
from workledger.flows.import_tau_bench import import_tau_bench, read_lines, workflow_of
from workledger.log.sequencer import sequence

AT = datetime(2026, 1, 2, tzinfo=UTC)

RUN = {
    "task_id": 7,
    "trial": 1,
    "reward": 1.0,
    "info": {"task": {"user_id": "mia", "instruction": "change my seat"}, "source": "user"},
    "traj": [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": "Seat 4A, please."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "change", "arguments": '{"seat": "4A"}'}},
                {"id": "call_1", "type": "function", "function": {"name": "tell", "arguments": "{not json"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "name": "change", "content": "done"},
        {"role": "tool", "tool_call_id": "call_1", "name": "tell", "content": "told"},
        {"role": "assistant", "content": "Seat 4A is yours."},
    ],
}


@pytest.fixture
def run_file(tmp_path):
    def write(*lines, name="runs.jsonl"):
        path = tmp_path / name
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
        return path

    return write


def imported(ledger, path, **options):
    with ledger.pool.connection() as connection:
        return import_tau_bench(path, connection=connection, recorder=ledger.recorder, clock=ledger.clock, **options)


def table_counts(ledger):
    tables = ("workflows", "conversations", "messages", "task_executions", "feedback", "payloads", "events")
    with ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


def test_the_airline_runs_go_in_whole_and_come_back_object_for_object(ledger, tau_airline_file):
    heard = []
    report = imported(ledger, tau_airline_file, name="airline", on_line=heard.append)
    assert (report.lines, report.imported, report.already_there, report.refused) == (200, 200, 0, [])
    assert heard == sorted(heard)
    assert heard[-1] == 200
    counts = table_counts(ledger)
    assert (counts["workflows"], counts["conversations"], counts["messages"]) == (200, 200, 5308)
    assert (counts["task_executions"], counts["feedback"]) == (1164, 200)
    runs = [json.loads(line) for line in tau_airline_file.read_bytes().splitlines()]
    for run in runs:
        workflow = ledger.get_workflow(f"tau-bench/airline/{run['task_id']}/{run['trial']}")
        assert (workflow.status, workflow.name, workflow.workflow_type) == ("completed", "tau-bench", "agent")
        assert workflow.input_data == run["info"].pop("task")
        assert workflow.subject == workflow.input_data["user_id"]
        assert workflow.metadata["info"] == run["info"]
        assert {key: workflow.metadata[key] for key in ("task_id", "trial", "reward")} == {
            key: run[key] for key in ("task_id", "trial", "reward")
        }
        assert [message.body for message in ledger.messages(workflow.conversation_id)] == run["traj"]
    with ledger.pool.connection() as connection:
        query = "SELECT score, count(*) FROM feedback WHERE name = 'reward' GROUP BY score ORDER BY score"
        assert connection.execute(query).fetchall() == [(0.0, 116), (1.0, 84)]


def test_each_tool_call_of_the_airline_runs_has_its_input_and_its_output(ledger, tau_airline_file):
    imported(ledger, tau_airline_file)
    for line in tau_airline_file.read_bytes().splitlines():
        run = json.loads(line)
        asked = [call for message in run["traj"] for call in message.get("tool_calls") or ()]
        answers = [message["content"] for message in run["traj"] if message["role"] == "tool"]
        found = ledger.executions(f"tau-bench/gpt-4o/{run['task_id']}/{run['trial']}")
        assert [execution.task_name for execution in found] == [call["function"]["name"] for call in asked]
        assert [execution.input_data for execution in found] == [json.loads(c["function"]["arguments"]) for c in asked]
        assert [execution.output_data for execution in found] == answers
        assert {(execution.kind, execution.status) for execution in found} <= {("tool", "completed")}


def test_importing_again_changes_nothing(ledger, tau_airline_file):
    imported(ledger, tau_airline_file)
    before = table_counts(ledger)
    report = imported(ledger, tau_airline_file)
    assert (report.imported, report.already_there, report.refused, report.recorded) == (0, 200, [], {})
    assert table_counts(ledger) == before


def test_the_log_has_a_run_in_the_order_of_its_messages(ledger, run_file):
    imported(ledger, run_file(RUN))
    with ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")
        rows = connection.execute(
            "SELECT event_type, e.created_at, e.payload ->> 'seq' FROM event_positions JOIN events e USING (event_id)"
            " WHERE workflow_id IS NOT NULL ORDER BY position"
        ).fetchall()
    assert [row[0] for row in rows] == [
        "workflow.started",
        "conversation.started",
        *["message.added"] * 3,
        *["task.started"] * 2,
        *["task.completed", "message.added"] * 2,
        "message.added",
        "feedback.recorded",
        "workflow.completed",
    ]
    times = [row[1] for row in rows]
    assert times == sorted(set(times))
    assert [row[2] for row in rows if row[2]] == list("123456")


def test_tool_calls_that_share_an_id_get_their_own_results(ledger, run_file):
    imported(ledger, run_file(RUN))
    first, second = ledger.executions("tau-bench/runs/7/1")
    assert (first.task_name, first.input_data, first.output_data) == ("change", {"seat": "4A"}, "done")
    assert (second.task_name, second.input_data, second.output_data) == ("tell", "{not json", "told")
    assert first.metadata == {"tool_call_id": "call_1"}
    answers = [message for message in ledger.messages("tau-bench/runs/7/1") if message.role == "tool"]
    assert [message.execution_id for message in answers] == [first.execution_id, second.execution_id]


def test_a_call_without_a_result_is_cancelled_and_a_result_without_a_call_is_a_message(ledger, run_file):
    run = {**RUN, "traj": [*RUN["traj"][:3], {"role": "tool", "tool_call_id": "other", "content": "?"}]}
    imported(ledger, run_file(run))
    executions = ledger.executions("tau-bench/runs/7/1")
    assert [(e.status, e.error) for e in executions] == [
        ("cancelled", "the trajectory has no result for this call")
    ] * 2
    assert [message.body for message in ledger.messages("tau-bench/runs/7/1")] == run["traj"]


BAD_LINES = {
    "not valid JSON": b'{"task_id": 1, "traj": [',
    "not a JSON object but an array": b"[1, 2]",
    "not a JSON object but the value null": b"null",
    "not valid JSON: .*utf-8": b'{"task_id": "\xff"}',
    "missing required field `traj`": {"task_id": 1, "reward": 0.0},
    "missing required field `reward`": {"task_id": 1, "traj": []},
    r"Expected `array`, got `str` - at `\$.traj`": {**RUN, "traj": "hello"},
    "traj is empty": {**RUN, "traj": []},
    r"traj\[0\]: message.role must be text": {**RUN, "traj": [{"content": "x"}]},
    r"traj\[1\]: .*required field `function`": {
        **RUN,
        "traj": [{"role": "user"}, {"role": "assistant", "tool_calls": [{}]}],
    },
    r"traj\[0\]: task_name is empty": {
        **RUN,
        "traj": [{"role": "assistant", "tool_calls": [{"function": {"name": ""}}]}],
    },
    "workflow_id .* has the control character": {**RUN, "task_id": "a\x00b"},
    "workflow_id has .* the limit is 255": {**RUN, "task_id": "x" * 300},
    "nan is not a finite number": b'{"task_id": 1, "reward": NaN, "traj": [{"role": "user", "content": "x"}]}',
    "nested too deeply|not valid JSON": b'{"task_id": ' + b"[" * 100_000,
    r"traj\[0\]: message.content has .* the limit is": {**RUN, "traj": [{"role": "user", "content": "x" * 17_000_000}]},
}


@pytest.mark.parametrize("reason", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_malformed_line_is_refused_with_its_number_and_the_reason_and_the_rest_goes_in(ledger, run_file, reason):
    report = imported(ledger, run_file({**RUN, "trial": 1}, b"", BAD_LINES[reason], {**RUN, "trial": 2}))
    (refusal,) = report.refused
    assert refusal.line == 3
    assert re.search(reason, refusal.reason)
    assert (report.lines, report.imported) == (3, 2)
    assert table_counts(ledger)["workflows"] == 2


def test_the_same_run_with_other_content_is_refused_and_what_stands_is_unchanged(ledger, run_file):
    imported(ledger, run_file(RUN))
    before = table_counts(ledger)
    report = imported(ledger, run_file({**RUN, "reward": 0.0}, RUN))
    assert [(refusal.line, "other content" in refusal.reason) for refusal in report.refused] == [(1, True)]
    assert report.already_there == 1
    assert table_counts(ledger) == before


def test_a_run_that_stands_twice_in_a_file_is_imported_once(ledger, run_file):
    report = imported(ledger, run_file(RUN, RUN, {**RUN, "reward": 0.5}))
    assert (report.imported, report.already_there, [refusal.line for refusal in report.refused]) == (1, 1, [3])


def test_an_id_that_a_program_recorded_itself_is_left_alone(ledger, run_file):
    with ledger.start_workflow("mine", workflow_id="tau-bench/runs/7/1"):
        pass
    report = imported(ledger, run_file(RUN, {**RUN, "trial": 2}))
    assert ([refusal.line for refusal in report.refused], report.imported) == ([1], 1)
    assert ledger.get_workflow("tau-bench/runs/7/1").name == "mine"


def test_a_run_whose_parts_are_taken_is_refused_alone(ledger, run_file):
    ledger.conversation("tau-bench/runs/7/2")
    report = imported(ledger, run_file(RUN, {**RUN, "trial": 2}, {**RUN, "trial": 3}))
    assert ([refusal.line for refusal in report.refused], report.imported) == ([2], 2)


def test_what_models_really_write_is_kept_unchanged(ledger, run_file):
    said = {
        "role": "assistant",
        "content": "nul \x00, half a pair \ud83d, \ufdd0",
        "name": "Ünï",
        "n": 2**70,
        "x": [1.0],
    }
    imported(ledger, run_file({**RUN, "traj": [said], "note": {"kept": True}}))
    assert ledger.messages("tau-bench/runs/7/1")[0].body == said
    assert ledger.get_workflow("tau-bench/runs/7/1").metadata["extra"] == {"note": {"kept": True}}


def test_a_shared_system_prompt_is_stored_once(ledger, tau_airline_file):
    imported(ledger, tau_airline_file)
    with ledger.pool.connection() as connection:
        rows = connection.execute(
            "SELECT count(*), count(DISTINCT content) FROM messages WHERE role = 'system'"
        ).fetchone()
    assert rows == (200, 1)


def test_two_names_import_one_file_twice(ledger, run_file):
    path = run_file(RUN)
    assert imported(ledger, path, name="first").imported == 1
    assert imported(ledger, path, name="second").imported == 1


def test_a_missing_file_and_a_name_too_long_say_so(ledger, tmp_path, run_file):
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        imported(ledger, tmp_path / "none.jsonl")
    with pytest.raises(InvalidInput, match="cannot be read: Is a directory"):
        imported(ledger, tmp_path)
    with pytest.raises(InvalidInput, match="name has 101 characters"):
        imported(ledger, run_file(RUN), name="x" * 101)


def test_ids_depend_on_nothing_but_the_name_and_the_line():
    text = json.dumps(RUN).encode()
    first, second = (workflow_of(text, line=n, name="runs", at=AT) for n in (1, 900))
    assert [change.entity_id for change in first.changes] == [change.entity_id for change in second.changes]
    assert Counter(change.entity_id for change in first.changes if change.event_type == "task.started") == {
        "tau-bench/runs/7/1/2/0": 1,
        "tau-bench/runs/7/1/2/1": 1,
    }


def import_in_a_process(database_url, home, path, results):
    with workledger.open(database_url, home=home) as ledger:
        report = imported(ledger, Path(path))
    results.put((report.imported, report.already_there, len(report.refused)))


def test_four_imports_of_one_file_at_once_give_what_one_gives(ledger, database_url, tau_airline_file, tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=import_in_a_process, args=(database_url, tmp_path, str(tau_airline_file), results))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    reports = [results.get(timeout=200) for _ in processes]
    for process in processes:
        process.join()
    assert sum(imported for imported, _, _ in reports) == 200
    assert {imported + there for imported, there, _ in reports} == {200}
    assert {refused for _, _, refused in reports} == {0}
    counts = table_counts(ledger)
    assert (counts["workflows"], counts["messages"], counts["task_executions"]) == (200, 5308, 1164)


def test_a_transaction_that_outlives_its_importer_is_no_conflict(ledger, database_url, run_file):
    path = run_file(RUN, {**RUN, "trial": 2})

    class Late:
        """Before it writes for the first time, what a killed importer had under way is committed."""

        def __init__(self):
            self.others = [
                item.changes for item in read_lines(path.read_bytes().splitlines(), name="runs", clock=ledger.clock)
            ]

        def record_all(self, changes):
            while self.others:
                ledger.recorder.record_all(self.others.pop())
            return ledger.recorder.record_all(changes)

    with ledger.pool.connection() as connection:
        items = read_lines(path.read_bytes().splitlines(), name="runs", clock=ledger.clock)
        report = import_items(items, connection=connection, recorder=Late())
    assert (report.imported, report.already_there, report.refused) == (0, 2, [])
