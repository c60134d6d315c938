"""The fixtures give what they promise: real servers, each test on clean ground."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import psycopg
import pytest
import redis

from support import require, wait_until


@pytest.mark.parametrize("turn", range(2))
def test_every_test_gets_an_empty_database_on_both_postgresql_versions(any_postgres_url: str, turn: int) -> None:
    with psycopg.connect(any_postgres_url) as connection:
        assert connection.info.server_version // 10000 in {15, 18}
        connection.execute("CREATE TABLE mine ()")


@pytest.mark.parametrize("turn", range(2))
def test_every_test_gets_an_empty_redis_on_both_kinds(any_redis_url: str, turn: int) -> None:
    with redis.Redis.from_url(any_redis_url) as client:
        assert client.dbsize() == 0
        client.set("mine", turn)


def test_influxdb_takes_points_and_answers(influxdb_url: str) -> None:
    def query(text: str) -> dict:
        url = f"{influxdb_url}/query?{urlencode({'q': text, 'db': 'points'})}"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as response:
            return json.load(response)

    query("CREATE DATABASE points")
    urllib.request.urlopen(f"{influxdb_url}/write?db=points", data=b"runs value=1 1700000000000000000").close()
    assert query("SELECT value FROM runs")["results"][0]["series"][0]["values"] == [["2023-11-14T22:13:20Z", 1]]


def test_victoriametrics_takes_influxdb_2_writes_and_answers(victoriametrics_url: str) -> None:
    urllib.request.urlopen(f"{victoriametrics_url}/api/v2/write", data=b"support_check value=7").close()
    urllib.request.urlopen(f"{victoriametrics_url}/internal/force_flush").close()

    def value() -> list:
        url = f"{victoriametrics_url}/api/v1/query?query=support_check_value"
        with urllib.request.urlopen(url) as response:
            return json.load(response)["data"]["result"]

    assert wait_until(value)[0]["value"][1] == "7"


def test_programs_are_there(
    prometheus_binary: Path, promtool_binary: Path, chromium_path: Path, pgbouncer_binary: Path
) -> None:
    for program in (prometheus_binary, promtool_binary, chromium_path, pgbouncer_binary):
        subprocess.run([program, "--version"], check=True, capture_output=True)


def test_the_real_runs_are_200(tau_airline_file: Path) -> None:
    assert len(tau_airline_file.read_text().splitlines()) == 200


def test_a_requirement_skips_and_ci_turns_the_skip_into_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKLEDGER_TEST_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="kurrentdb: no server"):
        require("kurrentdb", "no server")
    for wanted in ("all", "redis, kurrentdb"):
        monkeypatch.setenv("WORKLEDGER_TEST_REQUIRE", wanted)
        with pytest.raises(pytest.fail.Exception, match="no server"):
            require("kurrentdb", "no server")


def test_waiting_ends_with_the_value_or_with_a_failure() -> None:
    values = iter([0, None, 3])
    assert wait_until(lambda: next(values)) == 3
    with pytest.raises(AssertionError, match="False"):
        wait_until(lambda: False, timeout_s=0.02)
