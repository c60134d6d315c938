from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from urllib.parse import quote, urlencode

import pytest

from server.recorded import HOSTILE_ID, HOSTILE_TEXT, LONG_TEXT, Dashboard
from workledger.model.jsonvalue import decode
from workledger.server import views


def ids(page: dict) -> list[str]:
    return [workflow["workflow_id"] for workflow in page["workflows"]]


def test_the_list_has_the_newest_workflows_first(dashboard: Dashboard) -> None:
    page = dashboard.api("/workflows?limit=4")
    assert ids(page) == ["section-1", "section-0", "digest", HOSTILE_ID]
    assert [page["newer"], page["filters"]] == [None, dict.fromkeys(page["filters"])]


def test_a_row_has_the_fields_of_the_view_and_the_values_of_sql(dashboard: Dashboard) -> None:
    (row,) = dashboard.api("/workflows?name=research")["workflows"]
    assert set(row) == {field.name for field in dataclasses.fields(views.WorkflowSummary)}
    workflow = dashboard.ledger.get_workflow("research-1")
    assert datetime.fromisoformat(row["created_at"]) == workflow.created_at
    assert row["duration_ms"] == workflow.execution_time_ms
    assert [row["status"], row["tags"], row["subject"], row["total_steps"]] == ["completed", ["nightly"], "user-7", 2]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"status": "failed"}, [HOSTILE_ID, "load-1"]),
        ({"name": "digest"}, ["digest"]),
        ({"type": "batch"}, ["load-1"]),
        ({"tag": "nightly"}, ["research-1"]),
        ({"subject": "user-8"}, ["load-1"]),
        ({"q": "NOTHING to load"}, ["load-1"]),
        ({"q": "search-1"}, ["research-1"]),
        ({"q": "sect"}, ["section-1", "section-0"]),
        ({"q": "%"}, []),
        ({"q": "img src=x"}, [HOSTILE_ID]),
        ({"q": "NUL \x00 lone"}, [HOSTILE_ID]),
        ({"q": "NUL \x00 nowhere"}, []),
        ({"q": "small-0", "status": "failed"}, []),
        ({"subject": "<i>\u202esubject</i>", "tag": "\u202eevil"}, [HOSTILE_ID]),
        ({"status": "", "name": "", "q": " ", "subject": "user-8"}, ["load-1"]),
    ],
)
def test_filters_are_in_the_url(dashboard: Dashboard, filters: dict, expected: list[str]) -> None:
    assert ids(dashboard.api(f"/workflows?{urlencode(filters)}")) == expected


def test_counts_follow_the_filters_but_not_the_status(dashboard: Dashboard) -> None:
    def counts(query: str) -> dict[str, int]:
        return {item["status"]: item["count"] for item in dashboard.api(f"/workflows{query}")["counts"]}

    everything = {"pending": 0, "running": 0, "completed": 64, "failed": 2, "cancelled": 0}
    assert counts("") == everything
    assert counts("?status=failed") == everything
    assert counts("?name=small&status=failed") == {"completed": 60}


def test_older_pages_hold_every_workflow_once_and_newer_ones_lead_back(dashboard: Dashboard) -> None:
    whole = ids(dashboard.api("/workflows?limit=1000"))
    assert len(whole) == 66
    pages = [dashboard.api("/workflows?limit=20")]
    while pages[-1]["older"]:
        pages.append(dashboard.api(f"/workflows?{urlencode({'limit': 20, 'older': pages[-1]['older']})}"))
    assert [len(ids(page)) for page in pages] == [20, 20, 20, 6]
    assert [name for page in pages for name in ids(page)] == whole
    for page, above in zip(pages[1:], pages[:-1], strict=True):
        back = dashboard.api(f"/workflows?{urlencode({'limit': 20, 'newer': page['newer']})}")
        assert ids(back) == ids(above)
        assert back["older"] == above["older"]
    assert dashboard.api(f"/workflows?{urlencode({'limit': 20, 'newer': pages[1]['newer']})}")["newer"] is None


def test_a_workflow_comes_with_all_that_hangs_on_it(dashboard: Dashboard) -> None:
    detail = dashboard.detail("research-1")
    assert set(detail) == {field.name for field in dataclasses.fields(views.WorkflowDetail)}
    executions = detail["executions"]["items"]
    assert [(item["task_name"], item["kind"], item["status"], item["retry_count"]) for item in executions] == [
        ("researcher", "agent", "completed", 0),
        ("fetch", "tool", "failed", 0),
        ("fetch", "tool", "failed", 1),
        ("fetch", "tool", "completed", 2),
        ("think", "llm", "completed", 0),
    ]
    assert {item["parent_execution_id"] for item in executions[1:]} == {executions[0]["execution_id"]}
    assert executions[1]["error_type"] == "ConnectionError"
    assert "Traceback" in executions[1]["error_traceback"]
    assert [executions[4][name] for name in ("input_tokens", "output_tokens", "cost_usd", "model")] == [
        1200,
        34,
        0.0125,
        "small-1",
    ]
    assert detail["workflow"]["input_data"] == {"topic": "vacuum"}
    assert detail["workflow"]["metadata"] == {"tier": "gold"}
    assert detail["workflow"]["worker"]["state"] == "alive"
    assert [(item["name"], item["score"]) for item in detail["feedback"]] == [("helpful", 1.0)]


def test_message_bodies_are_what_was_recorded(dashboard: Dashboard) -> None:
    for workflow_id in ("research-1", HOSTILE_ID):
        given = [dict(message.body) for message in dashboard.ledger.messages(workflow_id)]
        answer = dashboard.get(f"/api/v1/workflows/{quote(workflow_id, safe='')}")
        shown = [message["body"] for message in decode(answer.body)["messages"]["items"]]
        large = [body for body in shown if isinstance(body["content"], dict)]
        assert len(large) == (workflow_id == HOSTILE_ID)
        for body in large:
            body["content"] = decode(dashboard.get(f"/api/v1/values/{body['content']['digest']}").body)
        assert shown == given


def test_values_read_back_as_they_were_recorded(dashboard: Dashboard) -> None:
    answer = dashboard.get(f"/api/v1/workflows/{quote(HOSTILE_ID, safe='')}")
    detail = decode(answer.body)
    recorded = dashboard.ledger.get_workflow(HOSTILE_ID)
    assert repr(detail["workflow"]["input_data"]) == repr(recorded.input_data)
    assert detail["workflow"]["metadata"] == {HOSTILE_TEXT: HOSTILE_TEXT}
    assert detail["workflow"]["error"] == HOSTILE_TEXT
    assert detail["feedback"][0]["comment"] == HOSTILE_TEXT


def test_a_large_value_is_named_by_digest_and_comes_whole_from_its_own_address(dashboard: Dashboard) -> None:
    (execution,) = dashboard.detail(HOSTILE_ID)["executions"]["items"]
    named = execution["input_data"]
    assert named["$workledger"] == "payload"
    assert named["size"] > len(LONG_TEXT)
    assert dashboard.get(f"/api/v1/values/{named['digest']}").json == LONG_TEXT


def test_events_come_in_the_order_of_the_log_page_by_page(dashboard: Dashboard) -> None:
    path = "/workflows/research-1/events"
    whole = dashboard.api(f"{path}?limit=1000")
    positions = [event["position"] for event in whole["items"]]
    assert positions == sorted(positions)
    assert whole["total"] == len(positions)
    assert whole["items"][0]["event_type"] == "workflow.started"
    assert whole["items"][-1]["event_type"] == "workflow.completed"
    collected, after = [], ""
    while True:
        page = dashboard.api(f"{path}?limit=4&after={after}")
        collected += page["items"]
        assert page["last"] is None or len(dashboard.api(f"{path}?limit=4&after={page['last']}")["items"]) == 4
        after = page["next"]
        if after is None:
            break
    assert collected == whole["items"]


def test_events_without_a_position_come_last_and_keep_their_place(own_ledger, serve_app) -> None:
    from workledger.log.sequencer import sequence_batch

    with own_ledger.start_workflow("w", workflow_id="w") as run:
        for number in range(5):
            run.event("step.done", {"number": number})
    dashboard = serve_app(own_ledger)
    with own_ledger.pool.connection() as connection:
        sequence_batch(connection, schema="workledger", limit=4)
    first = dashboard.api("/workflows/w/events?limit=5")
    assert [event["position"] for event in first["items"]] == [2, 3, 4, None, None]
    with own_ledger.pool.connection() as connection:
        sequence_batch(connection, schema="workledger", limit=100)
    second = dashboard.api(f"/workflows/w/events?limit=5&after={first['next']}")
    seen = [event["event_id"] for event in [*first["items"], *second["items"]]]
    assert len(set(seen)) == len(seen) == second["total"]


@pytest.mark.parametrize("query", ["?executions_after={execution}", "?messages_after=3", "?events_after={event}"])
def test_each_list_of_a_workflow_goes_on_after_a_cursor(dashboard: Dashboard, query: str) -> None:
    whole = dashboard.detail("research-1")
    name = query[1:].split("_", 1)[0]
    cursors = {
        "execution": whole["executions"]["items"][2]["execution_id"],
        "event": whole["events"]["items"][2]["event_id"],
    }
    page = dashboard.detail("research-1", query.format(**cursors))
    assert page[name]["items"] == whole[name]["items"][3:]
    assert page[name]["total"] == whole[name]["total"]


def test_an_id_may_have_any_printable_characters(own_ledger, serve_app) -> None:
    odd = [
        "a/b",
        "a/b/events",
        "events",
        "?x=1",
        "#h",
        "%2F",
        "a b",
        "\u05e9\u05dc",
        "..",
        ".",
        "x" * 255,
        "\\",
        "a&b;c",
    ]
    for workflow_id in odd:
        with own_ledger.start_workflow("odd", workflow_id=workflow_id) as run:
            run.event("step.done")
    dashboard = serve_app(own_ledger)
    for workflow_id in odd:
        assert dashboard.detail(workflow_id)["workflow"]["workflow_id"] == workflow_id
        events = dashboard.api(f"/workflows/{quote(workflow_id, safe='')}/events")["items"]
        assert {event["entity_id"] for event in events} == {workflow_id}


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/workflows/unknown", 404, "no workflow 'unknown'"),
        ("/workflows/unknown/events", 404, "no workflow 'unknown'"),
        ("/workflows/research-1/other", 404, "there is nothing at"),
        ("/workflows/%00", 404, "control character"),
        (f"/workflows/{'x' * 300}", 404, "the limit is 255"),
        ("/nothing", 404, "no page"),
        ("/values/" + "0" * 64, 404, "no stored value"),
        ("/values/xyz", 400, "no digest"),
        ("/workflows?status=done", 400, "none of pending, running"),
        ("/workflows?limit=0", 400, "limit"),
        ("/workflows?limit=many", 400, "limit"),
        ("/workflows?older=yesterday", 400, "cursor"),
        ("/workflows?newer=2026-01-01T00:00:00,x", 400, "cursor"),
        ("/workflows/research-1/events?after=first", 400, "event id"),
        ("/workflows/research-1?messages_after=x", 400, "messages_after"),
    ],
)
def test_what_is_not_there_or_not_right_is_said_in_json(
    dashboard: Dashboard, path: str, status: int, says: str
) -> None:
    answer = dashboard.get(f"/api/v1{path}")
    assert answer.status == status
    assert answer.json["error"]["status"] == status
    assert says in answer.json["error"]["message"]


def test_health_tells_head_workers_database_and_partitions(dashboard: Dashboard) -> None:
    health = dashboard.api("/health")
    assert set(health) == {field.name for field in dataclasses.fields(views.Health)}
    with dashboard.ledger.pool.connection() as connection:
        (events,) = connection.execute("SELECT count(*) FROM events").fetchone()
    assert (health["head"], health["unsequenced"], health["status"], health["reasons"]) == (events, 0, "ok", [])
    assert [worker["state"] for worker in health["workers"]] == ["alive"]
    assert health["database"]["version"].startswith("18")
    assert len(health["partitions"]) >= 4


def test_health_asks_for_attention_when_a_consumer_stands_still_or_a_worker_is_overdue(own_ledger, serve_app) -> None:
    from workledger.log import consumers
    from workledger.log.sequencer import sequence

    with own_ledger.start_workflow("w"):
        pass
    with own_ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")
        consumers.save(connection, "training", 1)
        connection.execute("UPDATE consumers SET updated_at = now() - interval '5 minutes'")
        connection.execute("UPDATE workers SET heartbeat_at = now() - interval '1 hour'")
    health = serve_app(own_ledger).api("/health")
    assert health["status"] == "attention"
    assert any("training is 2 positions behind" in reason for reason in health["reasons"])
    assert any("1 worker missed the lease" in reason for reason in health["reasons"])
    assert health["consumers"][0]["lag"] == 2


def test_the_training_store_and_metrics_are_shown_when_they_are_given(own_ledger, serve_app) -> None:
    shards = (views.TrainingShards(record_type="tasks", format="jsonl", shards=2, rows=40, size_bytes=12_000),)
    facts = views.TrainingFacts(location="file:data/training", position=17, shards=shards)
    dashboard = serve_app(own_ledger, training=lambda: facts, metrics=lambda: ("text/plain; version=0.0.4", b"up 1\n"))
    assert dashboard.api("/health")["training"]["shards"][0]["rows"] == 40
    page = dashboard.get("/health").text
    assert "file:data/training" in page
    assert "12.0 kB" in page
    metrics = dashboard.get("/metrics")
    assert (metrics.body, metrics.headers["content-type"]) == (b"up 1\n", "text/plain; version=0.0.4")
    assert serve_app(own_ledger).get("/metrics").status == 404


def test_the_shards_of_a_real_training_store_are_counted(own_ledger, serve_app, tmp_path) -> None:
    from workledger.server.sources import training_facts
    from workledger.training.records import RecordType
    from workledger.training.store import open_store

    store = open_store(f"file:{tmp_path}/training?format=jsonl")
    dashboard = serve_app(own_ledger, training=training_facts([store]))
    assert dashboard.api("/health")["training"] == {"location": store.name, "position": 0, "shards": []}
    with store.writing() as writer:
        writer.write(RecordType.TASKS, [b'{"position": 3}\n'])
        writer.commit(last=7, last_event_id="01a20c66-f5c0-780f-8739-bd4e8f6d6ed5")
    training = dashboard.api("/health")["training"]
    assert training["position"] == 7
    assert ("tasks", "jsonl", 1, 1) in [
        (shard["record_type"], shard["format"], shard["shards"], shard["rows"]) for shard in training["shards"]
    ]


def test_a_training_store_that_cannot_be_read_is_a_reason_and_no_failure(own_ledger, serve_app) -> None:
    from workledger.errors import StoreCorrupted

    def broken() -> None:
        raise StoreCorrupted("a gap after position 9", location="_manifest")

    health = serve_app(own_ledger, training=broken).api("/health")
    assert (health["training"], health["status"]) == (None, "attention")
    assert health["reasons"] == ["the training store cannot be read: a gap after position 9"]


def test_the_metrics_page_is_the_one_of_the_metrics(own_ledger, serve_app) -> None:
    from workledger.server.sources import metrics_page

    answer = serve_app(own_ledger, metrics=metrics_page(own_ledger.pool)).get("/metrics")
    assert answer.status == 200
    assert "workledger_up 1" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


def test_the_api_describes_itself(dashboard: Dashboard) -> None:
    described = dashboard.api("/openapi.json")
    assert set(described["paths"]) == {
        "/api/v1/workflows",
        "/api/v1/workflows/{workflow_id}",
        "/api/v1/workflows/{workflow_id}/events",
        "/api/v1/values/{digest}",
        "/api/v1/health",
    }
    assert "WorkflowSummary" in described["components"]["schemas"]


def test_every_answer_is_json_that_strict_readers_take(dashboard: Dashboard) -> None:
    import orjson

    for path in (
        "/workflows?limit=1000",
        f"/workflows/{quote(HOSTILE_ID, safe='')}",
        "/health",
        "/workflows/%ED%A0%80",
    ):
        body = dashboard.get(f"/api/v1{path}").body
        assert orjson.loads(body) == json.loads(body)
