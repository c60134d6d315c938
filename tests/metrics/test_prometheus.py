"""What Prometheus sees, judged by promtool and by a real Prometheus."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from support import wait_until
from support.processes import free_port, responds, running
from support.requirements import REPOSITORY
from workledger.errors import ConfigurationError
from workledger.metrics import prometheus
from workledger.model import change
from workledger.model.ids import new_id
from workledger.model.status import Kind

HOSTILE = ['say "hi"', "back\\slash\\", "snow ☃ 🦄", "a,b=c d{e}", "' OR 1=1 --", "%s {0} $1", "U+2028\u2028end", "=x"]


@pytest.fixture
def server(project):
    with prometheus.serve(project.connect, port=0) as made:
        yield made


def fetch(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read().decode(), response.headers["Content-Type"]


def samples(page, parse=parse_text):
    """Every sample of a page: its value by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(page)
        for sample in family.samples
    }


def value_of(page, name, /, **labels):
    return samples(page)[name, *sorted(labels.items())]


def test_promtool_accepts_the_page(project, promtool_binary):
    project.mixed_work(workflows=10)
    for name in HOSTILE:
        project.record(project.workflow(name, outcome="failed"))
    project.settle()
    page = prometheus.render(project.connection)
    result = subprocess.run([promtool_binary, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_promtool_accepts_the_page_of_an_empty_project(project, promtool_binary):
    page = prometheus.render(project.connection)
    result = subprocess.run([promtool_binary, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def test_names_are_shown_as_they_were_recorded(project):
    for name in HOSTILE:
        project.record(project.workflow(name))
    project.settle()
    page = prometheus.render(project.connection).decode()
    shown = {labels["name"] for name, *pairs in samples(page) if name == "workledger_workflows_total"
             for labels in [dict(pairs)]}  # fmt: skip
    assert shown == set(HOSTILE)


def test_a_status_that_nobody_came_into_is_shown_as_zero_so_that_the_first_failure_is_an_increase(project):
    project.record(project.workflow("research", outcome="running"))
    project.settle()
    page = prometheus.render(project.connection).decode()
    assert value_of(page, "workledger_workflows_total", name="research", status="running") == 1
    assert value_of(page, "workledger_workflows_total", name="research", status="failed") == 0


def test_histograms_are_cumulative_and_their_sum_and_count_are_those_of_the_executions(project):
    workflow_id = project.running_workflow()
    for took_ms in (1, 4, 300, 7_200_000):
        project.record(project.execution(workflow_id, kind=Kind.TOOL, took_ms=took_ms))
    project.settle()
    page = prometheus.render(project.connection).decode()
    name, labels = "workledger_task_duration_seconds", {"kind": "tool", "task_name": "search"}
    buckets = {
        dict(pairs)["le"]: value for (found, *pairs), value in samples(page).items() if found == f"{name}_bucket"
    }
    assert [buckets[bound] for bound in ("0.001", "0.005", "0.25", "0.5", "3600.0", "+Inf")] == [1, 2, 2, 3, 3, 4]
    assert value_of(page, f"{name}_count", **labels) == 4
    assert value_of(page, f"{name}_sum", **labels) == pytest.approx(7200.305)


def test_gauges_say_what_is_going_on_now(project):
    now = datetime.now(UTC)
    project.now = now - timedelta(minutes=5)
    workflow_id = project.running_workflow()
    project.record(project.workflow(outcome="pending"))
    project.record(project.execution(workflow_id, outcome="running"))
    for worker_id, lease_s in (("a", 60), ("b", 60), ("c", 0.001), ("d", 0.001)):
        project.record([
            change.change_worker(
                "worker.started", worker_id=worker_id, at=now, hostname="h", pid=1, version="1", lease_s=lease_s
            )
        ])  # fmt: skip
    project.record([change.change_worker("worker.stopped", worker_id="b", at=now)])
    # A worker is lost once its lease has passed, which takes this one a millisecond.
    lose = functools.partial(change.change_worker, "worker.lost", worker_id="d", at=now)
    wait_until(lambda: project.recorder.record(lose()).applied, timeout_s=60)
    project.settle()
    project.record([project.event("cache.hit")])
    page = prometheus.render(project.connection).decode()

    def gauge(name, **labels):
        return value_of(page, f"workledger_{name}", **labels)

    assert gauge("workflows_open", status="running") == 1
    assert gauge("workflows_open", status="pending") == 1
    assert gauge("task_executions_open", status="running") == 1
    assert gauge("task_executions_open", status="pending") == 0
    assert 299 < gauge("oldest_running_age_seconds", entity="workflow") < 360
    assert [gauge("workers", state=state) for state in ("alive", "overdue", "lost")] == [1, 1, 1]
    head = project.one("SELECT position FROM log_head")
    assert gauge("log_head_position") == gauge("consumer_position", consumer="metrics") == head
    assert gauge("log_unsequenced_events") == 1
    assert gauge("consumer_lag_positions", consumer="metrics") == 0
    assert gauge("up") == 1
    assert value_of(page, "process_cpu_seconds_total") > 0
    assert value_of(page, "process_resident_memory_bytes") > 1e6


def test_the_server_answers_metrics_and_nothing_else(project, server):
    project.mixed_work(workflows=3)
    project.settle()
    page, content_type = fetch(server.url)
    assert "workledger_up 1.0" in page
    assert content_type.startswith("text/plain; version=0.0.4")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(server.url.replace("/metrics", "/etc/passwd"))


def test_the_server_speaks_openmetrics_when_asked(project, server):
    project.mixed_work(workflows=3)
    project.settle()
    page, content_type = fetch(server.url, Accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert samples(page, parse_openmetrics)["workledger_up",] == 1


@contextmanager
def database_away(project):
    """Throw everybody out of the database, and let nobody in."""
    with psycopg.connect(project.url.replace(project.name, "postgres"), autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {project.name} ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [project.name])
        yield
        admin.execute(f"ALTER DATABASE {project.name} ALLOW_CONNECTIONS true")


def test_a_scrape_while_the_database_is_away_says_so_and_the_next_one_recovers(project, server, caplog):
    assert value_of(fetch(server.url)[0], "workledger_up") == 1
    with database_away(project):
        for _ in range(3):
            page = fetch(server.url)[0]
            assert value_of(page, "workledger_up") == 0
            assert value_of(page, "process_cpu_seconds_total") > 0
            assert "workledger_workflows_open" not in page
    assert sum("metrics.database_away" in record.message for record in caplog.records) == 1
    assert value_of(fetch(server.url)[0], "workledger_up") == 1


def test_a_page_over_a_closed_connection_says_that_the_database_is_away(project):
    connection = project.connect()
    connection.close()
    assert value_of(prometheus.render(connection).decode(), "workledger_up") == 0


def test_a_project_that_was_not_migrated_is_not_up(project):
    project.connection.execute("CREATE SCHEMA empty")
    project.connection.execute("SET search_path = empty")
    assert value_of(prometheus.render(project.connection).decode(), "workledger_up") == 0


def test_a_taken_port_is_refused_with_the_way_out(project, server):
    with pytest.raises(ConfigurationError, match="WORKLEDGER_METRICS_URL"):
        prometheus.serve(project.connect, port=server.port)


def test_the_server_listens_on_loopback_unless_told_otherwise(server):
    assert server.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("prometheus://127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("prometheus://:9999", ("127.0.0.1", 9999)),
        ("prometheus://", ("127.0.0.1", 9464)),
        ("prometheus://[::1]:0", ("::1", 0)),
        ("prometheus://metrics.local", ("metrics.local", 9464)),
    ],
)
def test_a_metrics_url_names_an_address(url, address):
    assert prometheus.address_of(url) == address


@pytest.mark.parametrize("url", ["http://x:1", "prometheus://x:port", "prometheus://x:99999", "prometheus://x/path"])
def test_a_malformed_metrics_url_is_refused(url):
    with pytest.raises(ConfigurationError, match="prometheus://HOST:PORT"):
        prometheus.address_of(url)


@pytest.fixture
def real_prometheus(server, prometheus_binary, tmp_path):
    """A Prometheus that scrapes the server every second; gives a function that asks it."""
    (tmp_path / "prometheus.yml").write_text(
        f"""
        global: {{scrape_interval: 1s}}
        scrape_configs:
          - job_name: workledger
            static_configs: [{{targets: ["127.0.0.1:{server.port}"]}}]
        """
    )
    port = free_port()
    argv = (
        prometheus_binary,
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    )

    def ask(query):
        url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        answer = json.loads(fetch(url)[0])
        assert answer["status"] == "success"
        return {tuple(sorted(row["metric"].items())): float(row["value"][1]) for row in answer["data"]["result"]}

    with running(argv, directory=tmp_path, is_ready=lambda: responds(f"http://127.0.0.1:{port}/-/ready")):
        yield ask


def documented_queries():
    text = (REPOSITORY / "docs" / "reference" / "metrics.md").read_text()
    return [
        line for block in re.findall(r"```promql\n(.*?)```", text, re.DOTALL) for line in block.splitlines() if line
    ]


def record_work(project):
    workflow_id = project.running_workflow()
    for outcome in ("completed", "completed", "completed", "failed"):
        project.record(project.workflow(outcome=outcome))
        project.record(project.execution(workflow_id, outcome=outcome, retry_count=1))
        usage = change.Usage(input_tokens=10, output_tokens=5, cost_usd=0.25, model="gpt-x")
        project.record(project.execution(workflow_id, kind=Kind.LLM, usage=usage))
        project.record(project.conversation(["user", "assistant"], usage=usage))
    project.record([change.change_worker("worker.started", worker_id=new_id(), at=datetime.now(UTC), lease_s=60)])
    project.settle()


def test_a_real_prometheus_scrapes_the_endpoint_and_answers_the_documented_queries(project, real_prometheus):
    record_work(project)

    def comes(query, value):
        # A scrape that takes longer than the second between two of them leaves nothing to be seen until the next.
        wait_until(lambda: real_prometheus(query) == {(): value}, timeout_s=60)

    comes("sum(workledger_events_total)", project.one("SELECT position FROM log_head"))
    record_work(project)
    assert project.one("SELECT count(*) FROM workflows WHERE status = 'failed'") == 2
    comes('sum(workledger_workflows_total{status="failed"})', 2)
    comes("sum(workledger_events_total)", project.one("SELECT position FROM log_head"))
    queries = documented_queries()
    assert len(queries) >= 8
    for query in queries:
        if "==" not in query and ">" not in query:
            assert wait_until(functools.partial(real_prometheus, query), timeout_s=60), query
        else:
            real_prometheus(query)
    success = next(
        query for query in queries if 'status="completed"' in query and "workledger_workflows_total" in query
    )
    (rate,) = wait_until(lambda: real_prometheus(success), timeout_s=60).values()
    assert rate == pytest.approx(0.75)
