"""`workledger train-store`: stores made again from the log, and kept in order."""

from __future__ import annotations

import pytest

import workledger
from training.reading import tree
from workledger.assembly import open_connection, training_stores
from workledger.settings import load_settings


@pytest.fixture
def record(environment, monkeypatch):
    """Records a workflow and lands it, in as many ranges as there are calls."""
    monkeypatch.setenv("WORKLEDGER_SHARD_ROWS", "60")

    def record(name):
        with workledger.open() as ledger, ledger.start_workflow("import", workflow_id=name) as run:
            with run.task("load", input=name) as task:
                task.output = name
        with open_connection(load_settings()) as connection:
            training_stores(load_settings()).land(connection)

    return record


@pytest.fixture
def landed(record):
    for n in range(12):
        record(f"w{n}")


def test_a_store_made_again_is_the_old_one_byte_for_byte(cli, landed, environment):
    answer = cli("train-store", "rebuild", "--to", f"file:{environment}/again", "--json")
    assert answer.code == 0, answer.err
    assert answer.document == {"store": f"{environment}/again", "position": 72}
    assert tree(environment / "again") == tree(environment / "training")


def test_what_lies_before_is_copied(cli, landed, environment):
    answer = cli("train-store", "rebuild", "--to", f"file:{environment}/again", "--from", "7")
    assert answer.code == 0, answer.err
    assert "holds everything up to position 72" in answer.out
    assert tree(environment / "again") == tree(environment / "training")


def test_a_lake_is_made_of_the_log_that_files_were_made_of(cli, landed, environment, monkeypatch):
    url = f"delta+file:{environment}/lake"
    assert cli("train-store", "rebuild", "--to", url).code == 0
    monkeypatch.setenv("WORKLEDGER_TRAINING_URL", url)
    answer = cli("verify", "--training", "--json")
    (check,) = answer.document["checks"]
    assert (answer.code, check["counts"]["position"], check["counts"]["workflows lines"]) == (0, 72, 12)


def test_what_cannot_be_made_again_is_refused_with_the_way_out(cli, landed, environment):
    for arguments, told in [
        (("--to", "file:training"), "is a training store that is in use"),
        (("--to", "delta+file:lake", "--from", "7"), "can be copied only from files to files"),
        (("--to", "file:again", "--from", "10"), "begins at position 10"),
        (("--to", "file:again", "--store", "file:nowhere"), "'file:nowhere' is none of the training stores"),
        (("--to", "ftp:again"), "is not a training store"),
    ]:
        answer = cli("train-store", "rebuild", *arguments)
        assert (answer.code, told in answer.err) == (2, True), answer.err


def test_compaction_joins_what_is_small(cli, landed, environment):
    before = cli("export", "--to", "before").code
    answer = cli("train-store", "compact", "--json")
    (store,) = answer.document["stores"]
    assert (before, answer.code, store["joined"], store["made"]) == (0, 0, 10, 1)
    assert "joined 2 ranges into 1" in cli("train-store", "compact", "--whole").out
    assert cli("export", "--to", "after").code == 0
    assert tree(environment / "after") == tree(environment / "before")
    assert cli("verify", "--training").code == 0


def test_maintenance_goes_over_every_store(cli, record, environment, monkeypatch):
    urls = [f"file:{environment}/training", f"delta+file:{environment}/delta"]
    monkeypatch.setenv("WORKLEDGER_TRAINING_URL", " ".join(urls))
    for n in range(10):
        record(f"w{n}")
    answer = cli("train-store", "maintain", "--keep-hours", "0", "--json")
    assert answer.code == 0, answer.err
    shards, lake = answer.document["stores"]
    assert (shards["joined"], shards["made"]) == (10, 1)
    assert (lake["tables"]["events"]["joined"], lake["tables"]["events"]["made"]) == (10, 1)
    table = cli("train-store", "maintain", "--store", urls[1])
    assert "TABLE" in table.out
    assert f"{environment}/training" not in table.out
    answer = cli("verify", "--training", "--json")
    assert [check["ok"] for check in answer.document["checks"]] == [True] * 2


def test_without_files_there_is_nothing_to_compact(cli, environment, monkeypatch):
    monkeypatch.setenv("WORKLEDGER_TRAINING_URL", f"delta+file:{environment}/delta")
    answer = cli("train-store", "compact")
    assert (answer.code, "maintain` is for lake tables" in answer.err) == (0, True)
