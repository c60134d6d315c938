"""Runs in, training data out, by the command line."""

from __future__ import annotations

import json
import re

import psycopg
import pytest

GOOD = {"task_id": 1, "trial": 0, "reward": 1.0, "info": {}, "traj": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def runs(environment):
    def write(*lines):
        path = environment / "runs.jsonl"
        path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
        return str(path)

    return write


def test_an_import_says_what_went_in_and_a_second_one_that_it_was_there(cli, runs):
    path = runs(GOOD, {**GOOD, "trial": 1})
    first = cli("import", "tau-bench", path)
    assert first.code == 0
    assert re.fullmatch(
        r"Imported 2 runs in [\d.]+ s: 2 workflows, 2 conversations, 2 messages, 2 feedback rows\.\n", first.out
    )
    second = cli("import", "tau-bench", path)
    assert re.fullmatch(r"Imported 0 runs in [\d.]+ s\. 2 runs already there\.\n", second.out)


def test_refused_lines_are_named_and_the_exit_code_is_1(cli, runs):
    answer = cli("import", "tau-bench", runs(GOOD, "{broken\n", {**GOOD, "trial": 1, "reward": "high"}), "--name", "x")
    assert answer.code == 1
    assert answer.out.startswith("Imported 1 run in ")
    lines = answer.err.splitlines()
    assert re.match(r"refused: line 2: not valid JSON: ", lines[0])
    assert re.match(r"refused: line 3: not a τ-bench run: Expected `float`, got `str` - at `\$\.reward`", lines[1])
    assert lines[2] == "error: 2 lines of 3 refused; mend them and import again"


def test_an_import_as_json_is_one_document(cli, runs):
    document = cli("import", "tau-bench", runs(GOOD, "[]\n"), "--json").document
    assert (document["lines"], document["imported"], document["already_there"]) == (2, 1, 0)
    assert document["refused"][0]["line"] == 2
    assert document["recorded"]["message.added"] == 1


def test_a_file_that_is_not_there_is_one_line_and_exit_2(cli):
    answer = cli("import", "tau-bench", "nowhere.jsonl")
    assert (answer.code, answer.err) == (2, "error: nowhere.jsonl cannot be read: No such file or directory\n")


def test_what_was_imported_is_exported_as_records(cli, runs, environment):
    cli("import", "tau-bench", runs(GOOD, {**GOOD, "trial": 1}))
    answer = cli("export", "--to", "out", "--json")
    assert answer.document["rows"]["workflows"] == 2
    lines = (environment / "out" / "workflows.jsonl").read_text().splitlines()
    assert {json.loads(line)["workflow_id"] for line in lines} == {"tau-bench/runs/1/0", "tau-bench/runs/1/1"}
    assert cli("export", "--format", "csv", "--to", "out").code == 0
    assert (environment / "out" / "workflows.csv").exists()


def test_an_export_without_waiting_has_what_was_landed(cli, runs):
    cli("import", "tau-bench", runs(GOOD))
    assert cli("export", "--no-wait", "--to", "out", "--json").document["position"] == 0


def test_conversations_are_exported_as_chat_examples_by_their_score(cli, runs, environment):
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    cli("import", "tau-bench", runs({**GOOD, "traj": talk}, {**GOOD, "traj": talk, "trial": 1, "reward": 0.0}))
    answer = cli("export", "--format", "chat", "--min-score", "1", "--to", "out")
    assert answer.out == "1 example in out/chat.jsonl.\nLeft out 1: score below 1.\n"
    (line,) = (environment / "out" / "chat.jsonl").read_text().splitlines()
    assert json.loads(line) == {"messages": talk}
    assert cli("export", "--format", "chat", "--to", "all.jsonl", "--json").document["written"] == 2


def test_a_score_without_chat_is_refused(cli):
    answer = cli("export", "--min-score", "1")
    assert (answer.code, answer.err) == (2, "error: --min-score goes with --format chat\n")


def test_what_was_imported_is_sealed_at_once_and_an_alteration_of_its_order_shows(cli, runs, database_url):
    assert cli("import", "tau-bench", runs(GOOD, {**GOOD, "trial": 1})).code == 0
    assert cli("verify", "--seals", "--json").document["checks"][0]["lag"] == 0
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET search_path = workledger")
        connection.execute("ALTER TABLE event_positions DISABLE TRIGGER append_only_rows")
        for old, new in ((1, 99), (2, 1), (99, 2)):
            connection.execute("UPDATE event_positions SET position = %s WHERE position = %s", (new, old))
        connection.execute("ALTER TABLE event_positions ENABLE ALWAYS TRIGGER append_only_rows")
    answer = cli("verify")
    assert answer.code == 1
    assert re.search(r"event_positions\[1.*\]|position 1", answer.out)


def test_an_import_without_the_key_that_signs_goes_in_all_the_same(cli, runs, environment):
    cli("import", "tau-bench", runs(GOOD), "--name", "a")
    assert cli("keys", "new").code == 0
    assert cli("import", "tau-bench", runs(GOOD), "--name", "b").code == 0
    (environment / "home/keys").rename(environment / "elsewhere")
    answer = cli("import", "tau-bench", runs(GOOD), "--name", "c")
    assert (answer.code, answer.err) == (0, "")
    assert cli("verify", "--seals", "--json").document["checks"][0]["lag"] > 0


def test_long_work_tells_on_stderr_how_far_it_is(cli, runs, monkeypatch):
    monkeypatch.setattr("workledger.cli._output._PLAIN_PROGRESS_S", 0.0)
    answer = cli("import", "tau-bench", runs(*({**GOOD, "trial": n} for n in range(3))))
    assert answer.err == "importing runs.jsonl: 3 of 3\n"
    assert answer.out.startswith("Imported 3 runs")
    assert cli("import", "tau-bench", runs(GOOD), "--json").err == ""
