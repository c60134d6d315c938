"""Checkpoints outside the database: in folders and in buckets, kept once, never written over, missed by no rewrite."""

from __future__ import annotations

import pytest

from support import wait_until
from workledger.assembly import make_loops, open_ledger
from workledger.errors import ConfigurationError, StoreCorrupted
from workledger.flows.checkpoints import keep_newest, open_checkpoints
from workledger.flows.up import Supervisor
from workledger.log import reader
from workledger.log import seal as seals
from workledger.settings import Settings


@pytest.fixture(params=["path", "file:", "seaweedfs", "azurite", "fake-gcs"])
def place(request, tmp_path):
    """A place for checkpoints, of each kind; buckets are real servers'."""
    match request.param:
        case "path":
            return str(tmp_path / "kept")
        case "file:":
            return f"file:{tmp_path}/kept"
        case name:
            cloud = request.getfixturevalue(f"_{name.replace('-', '_')}_server")
            patch = request.getfixturevalue("monkeypatch")
            for key, value in cloud.environ.items():
                patch.setenv(key, value)
            return cloud.url(cloud.new_bucket(), prefix="auditors/ledger")


def test_a_checkpoint_is_kept_once_and_never_written_over(place):
    store = open_checkpoints(place)
    assert (store.names(), store.read_all()) == ([], {})
    store.keep("00000000000000000012.checkpoint", "twelve — ä\n")
    store.keep("00000000000000000007.checkpoint", "seven\n")
    store.keep("00000000000000000012.checkpoint", "twelve — ä\n")
    with pytest.raises(StoreCorrupted, match="holds another checkpoint for this position"):
        store.keep("00000000000000000012.checkpoint", "another\n")
    again = open_checkpoints(place)
    assert again.names() == ["00000000000000000007.checkpoint", "00000000000000000012.checkpoint"]
    assert list(again.read_all().values()) == ["seven\n", "twelve — ä\n"]


def test_what_the_stolen_key_rewrites_differs_from_what_is_kept_in_a_bucket(log, seaweedfs_cloud):
    log.fill()
    log.make_key()
    log.seal(size=7)
    place = seaweedfs_cloud.url(seaweedfs_cloud.new_bucket(), prefix="")
    name = keep_newest(log.connection, open_checkpoints(place))
    assert name == f"{seals.newest(log.connection).last_position:020d}.checkpoint"
    kept = open_checkpoints(place).read_all()
    assert log.verify(checkpoints=kept).ok
    log.alter("UPDATE events SET severity = 'debug'")
    log.alter("DELETE FROM seals")
    log.seal(size=7)
    assert log.kinds(keys=log.keys.public_keys()) == []
    assert log.kinds(checkpoints=kept) == [("checkpoint.differs", name)]


def test_what_is_not_signed_is_no_checkpoint(log, tmp_path):
    store = open_checkpoints(str(tmp_path / "kept"))
    assert keep_newest(log.connection, store) is None
    log.fill()
    log.seal(sign=False)
    with pytest.raises(ConfigurationError, match="workledger keys new"):
        keep_newest(log.connection, store)
    assert store.names() == []


@pytest.mark.parametrize("place", ["", "http://x/y", "s3://", "s3://b/x?format=jsonl", "file:", "file:/x?y=1"])
def test_what_is_no_place_is_refused(place):
    with pytest.raises(ConfigurationError, match="is no place for checkpoints"):
        open_checkpoints(place)


def test_up_seals_when_it_is_told_to_and_keeps_checkpoints(database_url, tmp_path):
    from workledger.assembly import connect_to
    from workledger.flows.seal import make_key
    from workledger.log.keys import KeyFolder

    settings = Settings(
        database_url=database_url,
        home=tmp_path / "home",
        synapse_url="postgres:",
        checkpoints_url=f"file:{tmp_path}/kept",
        seal_after_s=0.05,
        checkpoint_every_s=0.05,
    )
    store = open_checkpoints(settings.checkpoints_url)
    with open_ledger(settings) as ledger:
        with connect_to(settings) as connection:
            make_key(connection, schema="workledger", folder=KeyFolder(settings.home / "keys"))
        wanted = {"sequencer", "sealer", "checkpoints"}
        loops = [loop for loop in make_loops(settings, ledger) if loop.name in wanted]
        assert {loop.name for loop in loops} == wanted

        def has_everything():
            with connect_to(settings) as connection:
                return f"{sum(reader.head(connection)):020d}.checkpoint" in store.names()

        with Supervisor(loops) as running:
            for entity_id in ("1", "2"):
                ledger.event("thing.done", entity_type="thing", entity_id=entity_id)
                wait_until(has_everything, timeout_s=60)
            assert running.errors() == {}
        assert len(store.names()) > 1
        with connect_to(settings) as connection:
            assert seals.newest(connection).last_position == int(store.names()[-1].partition(".")[0])
