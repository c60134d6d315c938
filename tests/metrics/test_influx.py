"""What InfluxDB and VictoriaMetrics hold, compared with SQL."""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.parse
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from support.processes import free_port, responds, running
from support.requirements import require_program
from workledger.errors import ConfigurationError, Unavailable, WorkledgerError
from workledger.flows import log_to_influx
from workledger.log import consumers
from workledger.log.sequencer import sequence
from workledger.metrics.influx import InfluxWriter, target_of
from workledger.metrics.instruments import WORKFLOWS
from workledger.metrics.points import point, timestamp_ns

HOSTILE = [
    'say "hi"',
    "back\\slash",
    "snow ☃ 🦄",
    "a,b=c d{e}",
    "=x,",
    "\\,",
    "\\ \\=",
    "'; DROP SERIES",
    "%s {0}",
    "#no",
]


class Influx:
    """A database of this test's own in an InfluxDB 1."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.name = f"test_{uuid.uuid4().hex[:12]}"
        self.url = f"influx+{base_url}/?db={self.name}"
        self.query(f"CREATE DATABASE {self.name}")

    def query(self, statement):
        data = urllib.parse.urlencode({"q": statement, "db": self.name, "epoch": "ns"}).encode()
        with urllib.request.urlopen(f"{self.base_url}/query", data=data, timeout=60) as response:
            (result,) = json.load(response)["results"]
        assert "error" not in result, result
        return result.get("series", [])

    def rows(self, statement):
        """The rows of a statement that is not grouped, without their time."""
        return [tuple(row[1:]) for series in self.query(statement) for row in series["values"]]

    def groups(self, statement):
        """The first row of each group, without its time, by the values of its tags."""
        return {tuple(series["tags"].values()): tuple(series["values"][0][1:]) for series in self.query(statement)}


@pytest.fixture
def influx(influxdb_url):
    return Influx(influxdb_url)


def write(project, url, **options):
    sequence(project.connection, schema=project.schema)
    return log_to_influx.catch_up(project.connection, InfluxWriter(target_of(url)), **options)


def counted(project, query):
    return {tuple(labels): (count,) for labels, count in project.sql(query)}


def test_influxdb_holds_the_counts_of_sql(project, influx):
    project.mixed_work()
    assert write(project, influx.url, batch=300) == project.one("SELECT position FROM log_head")
    finished = "status IN ('completed', 'failed', 'cancelled')"
    assert influx.groups("SELECT count(position) FROM workledger_event GROUP BY event_type, severity") == counted(
        project, "SELECT ARRAY[event_type, severity], count(*) FROM events GROUP BY 1"
    )
    assert influx.groups(
        "SELECT count(position), sum(retry_count) FROM workledger_task GROUP BY kind, status, task_name"
    ) == {
        tuple(labels): (count, retries)
        for labels, count, retries in project.sql(
            f"""SELECT ARRAY[kind, status, task_name], count(*), sum(retry_count)::int
                FROM task_executions WHERE {finished} GROUP BY 1"""
        )
    }
    # A failed workflow was resumed, so its point is in the log and no longer in the state.
    assert influx.groups("SELECT count(duration_seconds) FROM workledger_workflow GROUP BY status") == counted(
        project,
        """SELECT ARRAY[split_part(event_type, '.', 2)], count(*) FROM events
           WHERE event_type IN ('workflow.completed', 'workflow.failed', 'workflow.cancelled') GROUP BY 1""",
    )
    assert influx.groups("SELECT count(position) FROM workledger_message GROUP BY role") == counted(
        project, "SELECT ARRAY[role], count(*) FROM messages GROUP BY 1"
    )
    (influx_sums,) = influx.rows("SELECT sum(input_tokens), sum(cost_usd), sum(duration_seconds) FROM workledger_task")
    (sql_sums,) = project.sql(
        f"""SELECT sum(input_tokens)::int, sum(cost_usd)::float8, sum(execution_time_ms) / 1000
            FROM task_executions WHERE {finished}"""
    )
    assert influx_sums == pytest.approx(sql_sums, rel=1e-12)
    assert influx.rows("SELECT sum(score) FROM workledger_feedback") == [
        (project.one("SELECT sum(score) FROM feedback"),)
    ]


def test_victoriametrics_holds_the_counts_of_sql(project, victoriametrics_url):
    mark = f"mark {uuid.uuid4().hex}"
    project.now = datetime.now(UTC) - timedelta(hours=1)
    workflow_id = project.running_workflow()
    for outcome in ("completed", "failed", "failed"):
        project.record(project.workflow(mark, outcome=outcome))
        project.record(project.execution(workflow_id, mark, outcome=outcome, took_ms=250))
    project.record([project.event(mark, {}) for _ in range(500)])
    write(project, f"influx+{victoriametrics_url}/?org=o&bucket=b&token=t", batch=100)
    with urllib.request.urlopen(f"{victoriametrics_url}/internal/force_flush", timeout=20):
        pass

    def ask(query):
        url = f"{victoriametrics_url}/api/v1/query?{urllib.parse.urlencode({'query': query, 'time': time.time()})}"
        with urllib.request.urlopen(url, timeout=20) as response:
            result = json.load(response)["data"]["result"]
        return {row["metric"].get("status"): float(row["value"][1]) for row in result}

    counts = dict(project.sql("SELECT status, count(*) FROM workflows WHERE name = %s GROUP BY 1", mark))
    select = "sum(count_over_time(workledger_workflow_position{name='%s'}[1d])) by (status)"
    assert ask(select % mark) == counts == {"completed": 1, "failed": 2}
    assert ask(f"sum(sum_over_time(workledger_task_duration_seconds{{task_name='{mark}'}}[1d]))") == {None: 0.75}
    assert ask(f"sum(count_over_time(workledger_event_position{{event_type='{mark}'}}[1d]))") == {None: 500}


def test_writing_everything_again_changes_nothing(project, influx):
    project.mixed_work(workflows=10)
    assert write(project, influx.url) > 0
    before = influx.query("SELECT * FROM /.*/")
    project.sql("UPDATE consumers SET position = 0 WHERE name LIKE 'influx:%%' RETURNING 1")
    assert write(project, influx.url, batch=17) > 0
    assert influx.query("SELECT * FROM /.*/") == before


def test_events_that_share_one_clock_reading_all_have_their_point(project, influx):
    project.record([project.event("cache.hit") for _ in range(3000)])
    write(project, influx.url)
    assert influx.rows("SELECT count(position) FROM workledger_event") == [(3000,)]


def test_names_come_back_as_they_were_recorded(project, influx):
    for name in HOSTILE:
        project.record(project.workflow(name))
    write(project, influx.url)
    assert set(influx.groups('SELECT count(position) FROM workledger_workflow GROUP BY "name"')) == {
        (n,) for n in HOSTILE
    }


def test_a_backslash_at_the_end_does_not_swallow_what_follows(project, influx):
    project.record(project.workflow("ends\\"))
    write(project, influx.url)
    assert influx.groups('SELECT count(position) FROM workledger_workflow GROUP BY "name", status') == {
        ("ends\\ ", "completed"): (1,)
    }


def test_tags_are_bounded_as_the_labels_of_the_counters_are(project, influx):
    bound = WORKFLOWS.labels[0].bound
    for n in range(bound + 5):
        project.record(project.workflow(f"run of {n}"))
    write(project, influx.url)
    groups = influx.groups('SELECT count(position) FROM workledger_workflow GROUP BY "name"')
    assert len(groups) == bound + 1
    assert groups["other",] == (5,)


def test_points_are_at_the_time_of_their_event(project, influx):
    project.record([project.event("cache.hit")])
    write(project, influx.url)
    ((at_ns, position),) = influx.query("SELECT position FROM workledger_event")[0]["values"]
    assert at_ns == int(project.now.timestamp()) * 1_000_000_000 + position


def test_a_second_copy_leaves_the_writing_to_the_first(project, influx):
    project.record([project.event("cache.hit")])
    assert write(project, influx.url) == 1
    project.record([project.event("cache.hit")])
    with project.connect() as first:
        first.execute("BEGIN")
        first.execute("SELECT 1 FROM consumers WHERE name LIKE 'influx:%' FOR UPDATE")
        assert write(project, influx.url) == 0
    assert write(project, influx.url) == 1


def test_what_could_not_be_written_is_written_when_the_server_is_back(project, influxdb_url, influx):
    project.mixed_work(workflows=3)
    nowhere = f"influx+http://127.0.0.1:{free_port()}/?db={influx.name}"
    with pytest.raises(Unavailable, match="cannot be reached"):
        write(project, nowhere, attempts=3, first_pause_s=0.01)
    assert consumers.position_of(project.connection, target_of(nowhere).consumer) == 0
    head = write(project, influx.url)
    assert influx.rows("SELECT count(position) FROM workledger_event") == [(head,)]


def test_an_unknown_database_is_a_setting_to_correct(project, influxdb_url):
    project.record([project.event("cache.hit")])
    with pytest.raises(ConfigurationError, match="create the database"):
        write(project, f"influx+{influxdb_url}/?db=nobody_made_me")


def test_wrong_credentials_are_said_at_once_and_without_the_secret(project, tmp_path):
    program = require_program("victoria-metrics", "victoria-metrics")
    port = free_port()
    argv = (
        program, f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={tmp_path}/data",
        "-httpAuth.username=reader", "-httpAuth.password=right",
    )  # fmt: skip
    project.record([project.event("cache.hit")])
    with running(argv, directory=tmp_path, is_ready=lambda: responds(f"http://127.0.0.1:{port}/health")):
        started = time.monotonic()
        for url in (
            f"influx+http://reader:sesame@127.0.0.1:{port}/?db=x",
            f"influx+http://127.0.0.1:{port}/?org=o&bucket=b&token=sesame",
        ):
            with pytest.raises(ConfigurationError, match="refused the credentials") as caught:
                write(project, url, first_pause_s=1000)
            assert "sesame" not in f"{caught.value} {caught.value.details}"
        assert time.monotonic() - started < 100  # it did not wait
        assert write(project, f"influx+http://reader:right@127.0.0.1:{port}/?db=x") == 1


def test_points_older_than_the_server_keeps_do_not_stop_the_rest(project, influx, caplog):
    influx.query(f"CREATE RETENTION POLICY short ON {influx.name} DURATION 1h REPLICATION 1 DEFAULT")
    project.now = datetime.now(UTC) - timedelta(days=2)
    project.record([project.event("old")])
    project.now = datetime.now(UTC)
    project.record([project.event("new")])
    with caplog.at_level(logging.WARNING):
        assert write(project, influx.url) == 2
    assert influx.groups("SELECT count(position) FROM workledger_event GROUP BY event_type") == {("new",): (1,)}
    assert "influx.points_dropped" in caplog.text


class _Elsewhere(BaseHTTPRequestHandler):
    """A web server that is no InfluxDB: it sends writers to its front page, and readers are welcome."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(302 if self.path.startswith("/moved/") else 200)
        self.send_header("Location", "/")
        self.end_headers()

    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize("path", ["/moved", "/friendly"])
def test_an_answer_that_is_no_acknowledgement_is_not_taken_for_one(path):
    with HTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        writer = InfluxWriter(target_of(f"influx+http://127.0.0.1:{server.server_port}{path}?db=x"))
        with pytest.raises(WorkledgerError, match="refused points"):
            writer.write(["a b=1i 1"])
        server.shutdown()


def test_gauges_and_the_process_are_written_as_points_of_now(project, influx):
    project.running_workflow()
    at = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
    writer = InfluxWriter(target_of(influx.url))
    for _ in range(2):
        assert log_to_influx.write_gauges(project.connection, writer, at=at) > 8
    assert influx.groups("SELECT count(value), sum(value) FROM workledger_workflows_open GROUP BY status") == {
        ("pending",): (1, 0),
        ("running",): (1, 1),
    }
    ((cpu, memory),) = influx.rows("SELECT cpu_seconds, resident_memory_bytes FROM workledger_process")
    assert cpu > 0
    assert memory > 1_000_000


@pytest.mark.parametrize(
    ("url", "write_url", "consumer"),
    [
        ("influx+http://host/?db=w", "http://host:8086/write?db=w&precision=ns", "influx:host:8086/w"),
        ("influx+http://h:1/?db=w&rp=r", "http://h:1/write?db=w&rp=r&precision=ns", "influx:h:1/w"),
        (
            "influx+https://host/prefix/?org=o%20o&bucket=b/c&token=t",
            "https://host:443/prefix/api/v2/write?org=o+o&bucket=b%2Fc&precision=ns",
            "influx:host:443/prefix/b/c",
        ),
        ("influx+http://[::1]:8086/?db=w", "http://[::1]:8086/write?db=w&precision=ns", "influx:[::1]:8086/w"),
    ],
)
def test_a_url_names_a_place_and_a_cursor(url, write_url, consumer):
    target = target_of(url)
    assert (target.write_url, target.consumer) == (write_url, consumer)


def test_credentials_go_into_a_header_and_are_never_shown():
    for url, header in (
        ("influx+http://u%40x:s%3Acret@host/?db=w", "Basic dUB4OnM6Y3JldA=="),
        ("influx+http://host/?org=o&bucket=b&token=s%3Acret", "Token s:cret"),
    ):
        target = target_of(url)
        assert target.headers == {"Authorization": header}
        assert "cret" not in f"{target!r} {target.place} {target.consumer}"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://host/?db=w", "must begin with"),
        ("influx+ftp://host/?db=w", "must begin with"),
        ("influx+http:///?db=w", "must begin with"),
        ("influx+http://host:port/?db=w", "valid host and port"),
        ("influx+http://host/", "names no place"),
        ("influx+http://host/?db=w&bucket=b", "names no place"),
        ("influx+http://host/?db=w&dp=x", "unknown parameter 'dp'"),
        ("influx+http://host/?bucket=b&token=sesame%0Aopen", "token with characters"),
        ("influx+http://user:sesame@host/?token=sesame", "names no place"),
    ],
)
def test_a_malformed_url_is_refused_without_showing_its_secrets(url, problem):
    with pytest.raises(ConfigurationError, match=problem) as caught:
        target_of(url)
    assert "sesame" not in f"{caught.value} {caught.value.details}"


def test_a_point_is_one_line_whatever_its_tags_hold():
    tags = (("name", 'a b,c=d"e\nf\r\t\\'), ("status", ""))
    line = point("workledger_workflow", tags, (("position", 3), ("cost", 0.25), ("tokens", None)), 12)
    assert line == 'workledger_workflow,name=a\\ b\\,c\\=d"e\\nf\\r\\t\\\\  position=3i,cost=0.25 12'.replace(
        "\\\\ ", "\\\\ "
    )


def test_neighbours_in_the_log_have_different_times_within_their_millisecond():
    times = {timestamp_ns(5, position) for position in range(999_990, 1_000_020)}
    assert len(times) == 30
    assert {at_ns // 1_000_000 for at_ns in times} == {5}
