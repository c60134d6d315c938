"""The bus on KurrentDB. No package brings its server: where one is given, these and the conformance suite run on it."""

from __future__ import annotations

import uuid
from contextlib import closing

import orjson
import pytest
from kurrentdbclient import KurrentDBClient

from synapse.kafka_publisher import event
from training.journal import SCHEMA
from workledger.errors import ConfigurationError, SynapseUnavailable
from workledger.synapse.kurrentdb import KurrentBus


def test_a_server_that_is_away_is_reported_without_its_password() -> None:
    url = "kurrentdb://user:secret@127.0.0.1:1?tls=false"
    with (
        closing(KurrentBus(url, project=SCHEMA)) as bus,
        pytest.raises(SynapseUnavailable, match="postgres:") as caught,
    ):
        bus.last_position()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["kurrentdb://", "kurrentdb://host", "kurrentdb://user:secret@host?tls=perhaps&x=1"])
def test_a_url_that_means_nothing_is_refused_without_its_password(url: str) -> None:
    with closing(KurrentBus(url, project=SCHEMA)) as bus, pytest.raises(ConfigurationError) as caught:
        bus.last_position()
    assert "secret" not in str(caught.value)


def test_an_event_keeps_its_id_and_its_attributes(kurrentdb_url: str) -> None:
    stream = f"workledger-{uuid.uuid4().hex}"
    with closing(KurrentBus(kurrentdb_url, project=SCHEMA, stream=stream)) as bus:
        bus.publish([event(1), event(2)])
    client = KurrentDBClient(kurrentdb_url)
    first, second = client.get_stream(stream)
    client.close()
    assert (str(first.id), first.type) == ("00000000-0000-7000-8000-000000000001", "cache.hit")
    assert (second.stream_position, second.data) == (1, event(2).data)
    assert orjson.loads(first.metadata)["source"] == f"urn:workledger:{SCHEMA}"


def test_positions_that_were_left_out_are_a_gap_to_a_reader(kurrentdb_url: str) -> None:
    there = [*range(5, 20), *range(40, 90), 200]
    with closing(KurrentBus(kurrentdb_url, project=SCHEMA, stream=f"workledger-{uuid.uuid4().hex}")) as bus:
        bus.publish([event(n) for n in there])
        for after in (0, 4, 10, 19, 25, 60, 89, 150, 199):
            expected = [n for n in there if n > after][:7]
            assert [each.position for each in bus.read(after=after, limit=7)] == expected


def test_the_stream_is_cut_but_for_its_last_event(kurrentdb_url: str) -> None:
    stream = f"workledger-{uuid.uuid4().hex}"
    with closing(KurrentBus(kurrentdb_url, project=SCHEMA, stream=stream, trim_every_s=0)) as bus:
        bus.publish([event(n) for n in range(1, 31)])
        bus.trim(below=21)
        assert [each.position for each in bus.read(after=0, limit=99)] == list(range(21, 31))
        bus.trim(below=31)
        assert (bus.last_position(), len(bus.read(after=0, limit=99))) == (30, 1)
