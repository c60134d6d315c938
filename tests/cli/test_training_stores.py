"""Several training stores at once: each lands, lags, is verified and repaired on its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import workledger
from support import wait_until
from workledger.assembly import open_connection, training_stores
from workledger.flows.log_to_synapse import bring_up_to_date
from workledger.settings import load_settings


@pytest.fixture
def stores(environment, monkeypatch):
    """A folder, and tables of both kinds of lake."""
    urls = [
        f"file:{environment}/training?format=jsonl,parquet",
        f"delta+file:{environment}/delta?flush=100ms",
        f"iceberg+file:{environment}/iceberg?flush=100ms",
    ]
    monkeypatch.setenv("WORKLEDGER_TRAINING_URL", " ".join(urls))
    return urls


@pytest.fixture
def recorded(stores, environment):
    with workledger.open() as ledger:
        for n in range(3):
            with ledger.start_workflow("import", workflow_id=f"w{n}") as run, run.task("load", input=n) as task:
                task.output = {"rows": n}


def training_checks(answer):
    return {check["store"]: check for check in answer.document["checks"] if check["name"] == "training"}


def test_every_store_is_landed_and_verified(cli, recorded, environment):
    answer = cli("verify", "--training", "--wait", "--json")
    assert answer.code == 0
    checks = training_checks(answer)
    assert [name.removeprefix(f"{environment}") for name in checks] == [
        "/training",
        f"delta+file:{environment}/delta",
        f"iceberg+file:{environment}/iceberg",
    ]
    counts = [check["counts"] for check in checks.values()]
    assert len({count["position"] for count in counts}) == 1
    for count in counts:
        assert count["workflows lines"] == count["tasks lines"] == 3
    assert counts[0]["position"] == counts[0]["events lines"] > 9
    assert [check["lag"] for check in checks.values()] == [0, 0, 0]


def test_repair_refills_each_store_with_what_it_lacks(cli, recorded, environment, database_url):
    assert cli("verify", "--training", "--wait").code == 0
    (path,) = (environment / "training/events").glob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"load"', b'"lost"', 1))
    lake = training_stores(load_settings()).open_all()[1]
    tasks = lake.table("tasks")
    tasks.position()
    tasks.replace(iter(()), first=1, last=10**6)
    answer = cli("verify", "--training", "--json")
    assert answer.code == 1
    assert [check["ok"] for check in training_checks(answer).values()] == [False, False, True]
    answer = cli("verify", "--training", "--repair")
    assert answer.code == 0, answer.err
    assert "put right: files 1" in answer.out
    assert "put right: stretches of a table 1" in answer.out
    assert path.read_bytes() == whole
    assert cli("verify", "--training").code == 0


def test_repair_goes_with_training(cli):
    answer = cli("verify", "--repair")
    assert (answer.code, "--repair goes with --training" in answer.err) == (2, True)


def test_doctor_names_each_store_and_one_that_cannot_be_reached(cli, recorded, stores, environment, monkeypatch):
    assert cli("verify", "--training", "--wait").code == 0
    blocked = environment / "blocked"
    blocked.mkdir()
    (blocked / "_manifest").mkdir()
    for name in ("1-2", "5-6"):
        first, last = (int(n) for n in name.split("-"))
        (blocked / "_manifest" / f"{first:012d}-{last:012d}.json").write_text("{}")
    monkeypatch.setenv("WORKLEDGER_TRAINING_URL", " ".join([f"file:{blocked}", *stores]))
    answer = cli("doctor", "--json")
    found = [
        (finding["state"], finding["what"]) for finding in answer.document["findings"] if finding["area"] == "training"
    ]
    assert [state for state, _ in found] == ["fault", "ok", "ok", "ok"]
    assert "leave a gap" in found[0][1]
    assert "range up to position" in found[1][1]
    assert found[2][1].startswith(f"delta+file:{environment}/delta: tables up to position")


def test_the_lag_of_each_store_is_a_metric(cli, recorded, environment):
    from workledger.metrics import prometheus

    assert cli("verify", "--training", "--wait").code == 0
    with workledger.open() as ledger:
        for n in range(2):
            ledger.event("cache.hit", entity_type="cache", entity_id=f"c{n}")
    assert cli("ps").code == 0
    with open_connection(load_settings()) as connection:
        from workledger.log.sequencer import sequence

        sequence(connection, schema="workledger")
        page = prometheus.render(connection).decode()
    lags = [line for line in page.splitlines() if line.startswith("workledger_training_lag_positions{")]
    assert sorted(line.rpartition("} ")[2] for line in lags) == ["2.0"] * 3
    assert any(f'store="delta+file:{environment}/delta"' in line for line in lags)


def test_up_runs_a_loop_for_each_store(recorded, stores, environment, monkeypatch):
    from workledger.flows.up import Supervisor

    settings = load_settings()
    loops = training_stores(settings).loops()
    assert [loop.title for loop in loops] == [
        f"{name} {url.partition('?')[0]}" for name in ("training", "maintenance") for url in stores
    ]
    with Supervisor(loops) as supervisor:
        opened = training_stores(settings).open_all()
        with workledger.open() as ledger:
            with ledger.start_workflow("later"):
                pass
        with open_connection(settings) as connection:
            head = bring_up_to_date(connection, schema=settings.project)
        wait_until(lambda: {store.position() for store in opened} == {head}, timeout_s=120)
        wait_until(
            lambda: all(supervisor.steps().get(loop.title) for loop in loops if loop.name == "maintenance"),
            timeout_s=120,
        )
        assert supervisor.errors() == {}


def test_a_store_that_fails_does_not_hold_up_the_others(recorded, environment, monkeypatch):
    from workledger.flows.up import Supervisor

    (environment / "taken").write_text("a file where a folder should be")
    monkeypatch.setenv("WORKLEDGER_TRAINING_URL", f"file:{environment}/taken file:{environment}/training?flush=50ms")
    settings = load_settings()
    good = training_stores(settings).open_all()[1]
    with Supervisor(training_stores(settings).loops()):
        wait_until(lambda: good.position() > 9, timeout_s=60)


def test_one_store_may_not_be_named_twice(cli, environment, monkeypatch):
    monkeypatch.setenv("WORKLEDGER_TRAINING_URL", f"file:{environment}/x file:{environment}/x?format=csv")
    answer = cli("verify", "--training")
    assert (answer.code, "names the same store twice" in answer.err) == (2, True)


def test_show_names_the_store_where_there_are_several(cli, recorded, environment, monkeypatch):
    monkeypatch.setenv("WORKLEDGER_TRAINING_URL", f"file:{environment}/a file:{environment}/b")
    assert cli("verify", "--training", "--wait").code == 0
    answer = cli("show", "w1", "--json")
    assert {line["store"] for line in answer.document["training"]} == {f"{environment}/a", f"{environment}/b"}
    assert f"{environment}/b/workflows/" in cli("show", "w1").out


@pytest.mark.parametrize("landed", ["jsonl,csv,parquet", "parquet"])
def test_export_reads_whatever_format_there_is(cli, recorded, environment, monkeypatch, landed):
    monkeypatch.setenv(
        "WORKLEDGER_TRAINING_URL", f"delta+file:{environment}/delta file:{environment}/x?format={landed}"
    )
    for form in ("jsonl", "csv", "parquet"):
        answer = cli("export", "--format", form, "--to", f"out-{form}", "--json")
        assert answer.code == 0, answer.err
    import polars as pl

    lines = [json.loads(line) for line in Path("out-jsonl/tasks.jsonl").read_text().splitlines()]
    assert [json.dumps(line["output_data"]) for line in lines] == ['{"rows": 0}', '{"rows": 1}', '{"rows": 2}']
    table = pl.read_parquet("out-parquet/tasks.parquet")
    assert table["output_data"].to_list() == ['{"rows": 0}', '{"rows": 1}', '{"rows": 2}']
    flat = pl.read_csv("out-csv/tasks.csv")
    assert flat["execution_id"].to_list() == table["execution_id"].to_list() == [line["execution_id"] for line in lines]
    assert cli("export", "--to", "again", "--no-wait").code == 0
