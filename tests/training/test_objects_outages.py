"""A bucket in trouble: errors, silence, lost answers, a server that is killed. Nothing is lost, nothing is twice."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from support import wait_until
from support.object_stores import Cloud, Faulty, Gateway, use, weed_server
from support.processes import free_port
from training.journal import SCHEMA, Journal
from training.test_objects import contents, opened
from workledger.flows.log_to_synapse import DatabaseTail
from workledger.flows.synapse_to_training import Landing
from workledger.flows.up import Loop, Supervisor
from workledger.flows.verify_training import verify_training
from workledger.synapse.postgres import PostgresBus
from workledger.training import bucket as bucket_module
from workledger.training.compaction import compact
from workledger.training.objects import ObjectStore

Land = Callable[..., int]
BLOCK = 24


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs and pauses of tests."""
    backoff = {"init_backoff": timedelta(milliseconds=5), "max_backoff": timedelta(milliseconds=50), "base": 2}
    monkeypatch.setitem(bucket_module._RETRY, "backoff", backoff)
    monkeypatch.setitem(bucket_module._TIMEOUTS, "timeout", timedelta(seconds=1))
    monkeypatch.setattr("workledger.flows.synapse_to_training._STANDBY_S", 0.05)
    monkeypatch.setattr("workledger.flows.synapse_to_training._MAX_BACKOFF_S", 0.5)


def landing_of(journal: Journal, store: ObjectStore) -> tuple[Landing, PostgresBus]:
    bus = PostgresBus(DatabaseTail(connect=journal.connect, schema=SCHEMA))
    return Landing(connect=journal.connect, bus=bus, store=store, schema=SCHEMA, shard_rows=BLOCK, flush_s=0.1), bus


@pytest.mark.parametrize(
    ("seed", "rate"),
    [
        pytest.param(0, 0.1, id="short"),
        *(pytest.param(n, 0.25, id=f"long-{n}", marks=pytest.mark.chaos) for n in range(3)),
    ],
)
def test_errors_silence_and_lost_answers_cost_nothing_but_time(
    seaweedfs_cloud: Cloud,
    journal: Journal,
    land: Land,
    hurried: None,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    rate: float,
) -> None:
    monkeypatch.setattr(Faulty, "rng", random.Random(seed))
    monkeypatch.setattr(Faulty, "rate", rate)
    bucket = seaweedfs_cloud.new_bucket()
    with Gateway(Faulty, seaweedfs_cloud.endpoint) as gateway:
        store = opened(Cloud(scheme="s3", endpoint=gateway.url), bucket, prefix="troubled", format="jsonl,csv")
        landing, bus = landing_of(journal, store)
        stop = threading.Event()
        thread = threading.Thread(target=landing.run, args=(stop,), daemon=True)
        thread.start()
        for n in range(4):
            journal.workflow(f"w{n}")
        head = journal.sequence()
        sound = opened(seaweedfs_cloud, bucket, prefix="troubled", format="jsonl,csv")
        try:
            wait_until(lambda: sound.position() == head, timeout_s=120)
        finally:
            stop.set()
            thread.join(60)
            bus.close()
    assert verify_training(journal.connection, sound).findings == []
    compact(sound, block_rows=BLOCK, whole=True, grace_s=0)
    once = opened(seaweedfs_cloud, bucket, prefix="once", format="jsonl,csv")
    land(once, shard_rows=BLOCK)
    assert contents(once).items() - contents(sound).items() == set()


def test_a_server_that_is_killed_and_comes_back_has_every_position_once(
    journal: Journal, servers_dir: Path, hurried: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = free_port()
    directory = tmp_path / "seaweedfs"
    stop = threading.Event()
    with weed_server(directory, port=port) as (cloud, _):
        use(cloud, monkeypatch)
        store = opened(cloud, cloud.new_bucket())
        landing, bus = landing_of(journal, store)
        thread = threading.Thread(target=landing.run, args=(stop,), daemon=True)
        thread.start()
        journal.workflow("w0")
        wait_until(lambda: store.position() > 0, timeout_s=120)
        journal.workflow("w1")
    journal.workflow("w2")
    with weed_server(directory, port=port):
        journal.workflow("w3")
        head = journal.sequence()
        wait_until(lambda: store.position() == head, timeout_s=120)
        stop.set()
        thread.join(60)
        bus.close()
        assert verify_training(journal.connection, store).findings == []


def test_credentials_that_expire_are_said_once_and_landing_goes_on_with_new_ones(
    seaweedfs_cloud: Cloud, journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = seaweedfs_cloud.new_bucket()
    journal.workflow("w")
    head = journal.sequence()
    rounds = [0]

    def open_landing(stop: threading.Event):
        from contextlib import contextmanager

        @contextmanager
        def opening():
            rounds[0] += 1
            landing, bus = landing_of(journal, opened(seaweedfs_cloud, bucket))

            def step() -> int:
                landing.run(stop)
                return 0

            yield step
            bus.close()

        return opening()

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")
    monkeypatch.setattr("workledger.flows.up._FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("workledger.flows.up._MAX_PAUSE_S", 0.1)
    with caplog.at_level(logging.WARNING), Supervisor([Loop(name="training", open=open_landing)]) as supervisor:
        wait_until(lambda: rounds[0] >= 4, timeout_s=120)
        assert "credentials are refused" in supervisor.errors()["training"]
        said = [record for record in caplog.records if "credentials are refused" in record.getMessage()]
        assert len(said) == 1
        use(seaweedfs_cloud, monkeypatch)
        sound = opened(seaweedfs_cloud, bucket)
        wait_until(lambda: sound.position() == head, timeout_s=120)
