"""What leaves the stores is what was recorded, in the forms that trainers read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.conftest import Road
from training.journal import Journal
from training.reading import lines
from workledger.errors import ConfigurationError, StoreCorrupted, Unavailable
from workledger.flows.export import export_chat, export_records
from workledger.flows.import_tau_bench import import_tau_bench
from workledger.model import change
from workledger.model.clock import SystemClock
from workledger.training.records import RecordType
from workledger.training.store import open_store


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# -- records -------------------------------------------------------------------------------------------------------


@pytest.fixture
def landed(redis_road: Road) -> Road:
    for n in range(4):
        redis_road.journal.workflow(f"w{n}")
        redis_road.publish()
        redis_road.land(shard_rows=9)
    return redis_road


def test_shards_are_joined_into_one_file_for_each_record_type(landed: Road, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = export_records(
        [landed.store], tmp_path / "out", on_progress=lambda done, total: told.append((done, total))
    )
    assert report.position == landed.store.position()
    assert report.rows == {"events": report.position, "tasks": 12, "tool_executions": 4, "workflows": 4}
    for record_type in RecordType:
        path = tmp_path / "out" / f"{record_type}.jsonl"
        assert report.files[record_type] == path
        assert path.read_bytes().splitlines() == lines(landed.store, record_type)
    assert told[-1] == (sum(report.rows.values()), sum(report.rows.values()))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"{name}.jsonl" for name in RecordType)


def test_csv_is_joined_under_one_header(landed: Road, tmp_path: Path) -> None:
    export_records([landed.store], tmp_path, file_format="csv")
    for record_type in RecordType:
        rows = (tmp_path / f"{record_type}.csv").read_bytes().split(b"\r\n")
        assert rows[0].startswith(b"position,")
        assert [row for row in rows if row.startswith(b"position,")] == rows[:1]
        assert len(rows) == 2 + len(lines(landed.store, record_type))


def test_a_store_without_anything_gives_empty_files(tmp_path: Path) -> None:
    report = export_records([open_store(f"file:{tmp_path}/none")], tmp_path / "out")
    assert report.position == 0
    assert [path.read_bytes() for path in report.files.values()] == [b""] * 4


def test_an_altered_shard_is_named_and_not_exported(landed: Road, tmp_path: Path) -> None:
    entry = landed.store.entries()[2]
    path = landed.store.folder / entry.files_of("jsonl")[RecordType.EVENTS].path
    path.write_bytes(path.read_bytes().replace(b"owls", b"cats", 1) + b"")
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(StoreCorrupted, match=path.name):
        export_records([landed.store], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_format_that_was_not_landed_is_refused(landed: Road, tmp_path: Path) -> None:
    only = open_store(f"file:{tmp_path}/only?format=csv")
    landed.store = only
    landed.land()
    with pytest.raises(ConfigurationError, match="not landed as jsonl; export one of csv"):
        export_records([only], tmp_path / "out")
    with pytest.raises(ConfigurationError, match="'xml'"):
        export_records([only], tmp_path / "out", file_format="xml")


def test_a_folder_that_cannot_be_written_is_named(landed: Road, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(Unavailable, match="out"):
        export_records([landed.store], tmp_path / "out")


# -- conversations -------------------------------------------------------------------------------------------------


Say = Callable[..., None]


@pytest.fixture
def say(journal: Journal) -> Say:
    """Record a conversation of a workflow with a score: `say("c", messages, score=1.0)`."""

    def say(name: str, messages: list[dict[str, Any]], *, score: float | None = None, **workflow: Any) -> None:
        journal.start(f"wf-{name}", conversation_id=name, **workflow)
        journal.record(change.start_conversation, conversation_id=name, workflow_id=f"wf-{name}")
        for n, message in enumerate(messages):
            journal.record(change.add_message, message_id=f"{name}/{n}", conversation_id=name, message=message)
        if score is not None:
            feedback = {"feedback_id": f"f-{name}", "name": "helpful", "score": score}
            journal.record(change.record_feedback, workflow_id=f"wf-{name}", **feedback)

    return say


def chat(journal: Journal, tmp_path: Path, **options: Any) -> tuple[list[dict[str, Any]], Any]:
    report = export_chat(journal.connection, tmp_path / "chat.jsonl", **options)
    return read(report.file), report


USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "ho"}


def call(name: str, arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


def test_the_runs_of_tau_bench_come_out_as_they_went_in(
    journal: Journal, tau_airline_file: Path, tmp_path: Path
) -> None:
    import_tau_bench(
        tau_airline_file, connection=journal.connection, recorder=journal.recorder, clock=SystemClock(), name="airline"
    )
    runs = read(tau_airline_file)
    examples, report = chat(journal, tmp_path)
    assert (report.written, report.left_out, report.repaired) == (200, {}, 0)
    key = lambda messages: json.dumps(messages, sort_keys=True)  # noqa: E731
    assert sorted(key(one["messages"]) for one in examples) == sorted(key(run["traj"]) for run in runs)
    called = {c["function"]["name"] for run in runs for m in run["traj"] for c in m.get("tool_calls") or ()}
    assert {tool["function"]["name"] for one in examples for tool in one.get("tools", ())} == called
    good, report = chat(journal, tmp_path, min_score=1.0)
    assert (len(good), report.left_out) == (84, {"score below 1": 116})
    good_runs = [key(run["traj"]) for run in runs if run["reward"] == 1.0]
    assert sorted(key(one["messages"]) for one in good) == sorted(good_runs)


def test_an_export_of_the_same_state_is_the_same_file(journal: Journal, say: Say, tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        say(name, [USER, ASSISTANT])
    export_chat(journal.connection, tmp_path / "one")
    export_chat(journal.connection, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_message_keeps_every_key_and_the_difference_between_null_and_absent(
    journal: Journal, say: Say, tmp_path: Path
) -> None:
    messages = [
        {"role": "system", "content": "be an owl " * 1000, "name": "boss"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "custom": {"a": [1]}},
        {"role": "assistant", "tool_calls": [], "refusal": None, "weight": 0},
        call("f", '{"x": 1}'),
        {"role": "tool", "tool_call_id": "c1", "content": ""},
        {"role": "assistant", "content": None},
    ]
    say("c", messages)
    ((example,), _) = chat(journal, tmp_path)
    assert example["messages"] == messages


def test_arguments_that_were_recorded_as_an_object_become_text(journal: Journal, say: Say, tmp_path: Path) -> None:
    say("c", [USER, call("f", {"q": "ü", "n": 1})])
    ((example,), _) = chat(journal, tmp_path)
    arguments = example["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"q": "ü", "n": 1}


def test_tools_are_made_up_from_the_calls_that_were_seen(journal: Journal, say: Say, tmp_path: Path) -> None:
    say("c", [USER, call("g", '{"a": 1}'), call("f", '{"q": "x", "n": 1}'), call("f", '{"q": null}'), call("h", "no")])
    ((example,), _) = chat(journal, tmp_path)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "q": {"type": ["null", "string"]}}}
    assert example["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": schema}},
        {
            "type": "function",
            "function": {"name": "g", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        },
        {"type": "function", "function": {"name": "h", "parameters": {"type": "object", "properties": {}}}},
    ]


def test_tools_that_were_recorded_are_given_in_the_form_of_the_format(
    journal: Journal, say: Say, tmp_path: Path
) -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    whole = {"type": "function", "function": {"name": "a", "parameters": schema, "strict": True}}
    tools = [whole, {"name": "b", "description": "B", "parameters": schema}, {"name": "c", "input_schema": schema}, 5]
    say("c", [USER, call("a", "{}")], metadata={"tools": tools})
    ((example,), _) = chat(journal, tmp_path)
    assert example["tools"] == [
        whole,
        {"type": "function", "function": {"name": "b", "description": "B", "parameters": schema}},
        {"type": "function", "function": {"name": "c", "parameters": schema}},
    ]


def test_a_conversation_without_tools_has_no_such_key(journal: Journal, say: Say, tmp_path: Path) -> None:
    say("c", [USER, ASSISTANT])
    ((example,), _) = chat(journal, tmp_path)
    assert list(example) == ["messages"]


def test_what_is_left_out_is_counted_with_the_reason(journal: Journal, say: Say, tmp_path: Path) -> None:
    say("good", [USER, ASSISTANT], score=0.75)
    say("poor", [USER, ASSISTANT], score=0.25)
    say("unjudged", [USER, ASSISTANT])
    say("silent", [USER], score=1.0)
    say("empty", [], score=1.0)
    say("bytes", [{"role": "user", "content": b"\0"}, ASSISTANT], score=1.0)
    say("nan", [USER, {"role": "assistant", "content": float("nan")}], score=1.0)
    say("object", [USER, {"role": "assistant", "content": [object()]}], score=1.0)
    examples, report = chat(journal, tmp_path, min_score=0.5)
    assert len(examples) == report.written == 1
    assert report.left_out == {
        "score below 0.5": 1,
        "no score": 1,
        "no message of the assistant": 1,
        "no messages": 1,
        "a value that JSON lacks": 2,
        "a value that could not be recorded": 1,
    }
    assert len(chat(journal, tmp_path)[0]) == 3


def test_messages_that_were_taken_out_are_not_exported(journal: Journal, say: Say, tmp_path: Path) -> None:
    say("c", [USER, {"role": "assistant", "content": "wrong"}, ASSISTANT])
    journal.record(change.remove_messages, conversation_id="c", seqs=[2])
    ((example,), _) = chat(journal, tmp_path)
    assert example["messages"] == [USER, ASSISTANT]


def test_of_a_conversation_that_was_edited_the_newest_branch_is_exported(
    journal: Journal, say: Say, tmp_path: Path
) -> None:
    say("c", [USER, {"role": "assistant", "content": "old"}])
    again = {"role": "assistant", "content": "new"}
    journal.record(change.add_message, message_id="x", conversation_id="c", message=again, parent_seq=1)
    ((example,), _) = chat(journal, tmp_path)
    assert example["messages"] == [USER, again]


def test_text_that_utf8_cannot_hold_is_repaired_and_counted(journal: Journal, say: Say, tmp_path: Path) -> None:
    say("c", [{"role": "user", "content": "nul \x00 half \ud83d owl 🦉"}, ASSISTANT])
    ((example,), report) = chat(journal, tmp_path)
    assert example["messages"][0]["content"] == "nul \x00 half \ufffd owl 🦉"
    assert report.repaired == 1


def test_a_conversation_is_judged_by_any_workflow_that_spoke_in_it(journal: Journal, tmp_path: Path) -> None:
    journal.record(change.start_conversation, conversation_id="c")
    for turn in ("one", "two"):
        journal.start(turn)
        for message in (USER, ASSISTANT):
            values = {"message_id": f"{turn}/{message['role']}", "conversation_id": "c", "message": message}
            journal.record(change.add_message, workflow_id=turn, **values)
    journal.record(change.record_feedback, feedback_id="f", name="x", workflow_id="two", score=1.0)
    journal.record(change.record_feedback, feedback_id="g", name="x", workflow_id="one", score=0.0)
    examples, _ = chat(journal, tmp_path, min_score=1)
    assert [len(one["messages"]) for one in examples] == [4]


def test_an_export_that_fails_leaves_the_old_file(journal: Journal, say: Say, tmp_path: Path) -> None:
    say("c", [{"role": "user", "content": "x" * 10_000}, ASSISTANT])
    chat(journal, tmp_path)
    before = (tmp_path / "chat.jsonl").read_bytes()
    journal.connection.execute("UPDATE payloads SET body = 'x', codec = 'json'")
    with pytest.raises(StoreCorrupted):
        chat(journal, tmp_path)
    assert (tmp_path / "chat.jsonl").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
