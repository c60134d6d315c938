"""Each hot statement reads its index and no whole table, with the statistics of 20,000 workflows."""

from datetime import UTC, datetime, timedelta

import pytest

from workledger.postgres.connection import connect
from workledger.postgres.statements import load

NOW = datetime.now(UTC)
DAY = NOW - timedelta(days=1)
WEEK = NOW - timedelta(days=7)
#: The place of a last row somewhere in the middle of a list.
PLACE = (NOW - timedelta(days=90), "01900000")
NO_PLACE = (None, None)
PAGE = 51


def find(**filters):
    names = ("status", "name", "workflow_type", "tag", "subject", "conversation_id", "since", "until")
    return tuple(filters.get(name) for name in names)


FEW = (None,) * 6  # no filter but the words


HOT = [
    ("find_workflows", (*find(), *NO_PLACE, PAGE), "workflows_newest"),
    ("find_workflows", (*find(), *PLACE, PAGE), "workflows_newest"),
    ("find_workflows", (*find(since=WEEK), *NO_PLACE, PAGE), "workflows_newest"),
    ("find_workflows", (*find(name="workflow-1"), *NO_PLACE, PAGE), "workflows_by_name|workflows_newest"),
    ("find_workflows", (*find(name="workflow-39"), *NO_PLACE, PAGE), "workflows_by_name"),
    ("find_workflows", (*find(name="workflow-39"), *PLACE, PAGE), "workflows_by_name"),
    ("find_workflows", (*find(workflow_type="type-4"), *NO_PLACE, PAGE), "workflows_by_type|workflows_newest"),
    ("find_workflows", (*find(workflow_type="none"), *NO_PLACE, PAGE), "workflows_by_type"),
    ("find_workflows", (*find(tag="tag-3"), *NO_PLACE, PAGE), "workflows_by_tag|workflows_newest"),
    ("find_workflows", (*find(tag="none"), *NO_PLACE, PAGE), "workflows_by_tag"),
    ("find_workflows", (*find(subject="user-5"), *NO_PLACE, PAGE), "workflows_by_subject"),
    ("find_workflows", (*find(conversation_id="none"), *NO_PLACE, PAGE), "workflows_by_conversation"),
    ("find_workflows", (*find(status="running"), *NO_PLACE, PAGE), "idx_workflows_status|workflows_newest"),
    ("list_running", (*NO_PLACE, PAGE), "workflows_running_by_age"),
    ("list_running", (*PLACE, PAGE), "workflows_running_by_age"),
    ("list_running_executions", (PAGE,), "task_executions_running_by_age"),
    ("list_failed_workflows", (None, *NO_PLACE, PAGE), "workflows_failed_by_time"),
    ("list_failed_workflows", (DAY, *NO_PLACE, PAGE), "workflows_failed_by_time"),
    ("list_failed_workflows", (None, *PLACE, PAGE), "workflows_failed_by_time"),
    ("list_failed_executions", (DAY, *NO_PLACE, PAGE), "task_executions_failed_by_time"),
    ("list_stuck", (3600.0, *NO_PLACE, PAGE), "workflows_running_by_age|idx_workflows_status"),
    ("list_slowest_workflows", (DAY, NOW, None, *NO_PLACE, PAGE), "workflows_newest"),
    ("list_slowest_workflows", (WEEK, NOW, "workflow-39", *NO_PLACE, PAGE), "workflows_by_name|workflows_newest"),
    ("list_slowest_executions", (DAY, NOW, None, None, *NO_PLACE, PAGE), "task_executions_finished"),
    ("search_newest_workflows", ("billing", None, None, None, None, *NO_PLACE, PAGE, 2000), "workflows_newest"),
    ("search_workflows", ("nobody", None, None, None, None, *NO_PLACE, PAGE), "workflows_words"),
    ("search_workflows", ("", "'nobo':*", None, None, None, *PLACE, PAGE), "workflows_words"),
    ("search_newest_failures", ("x", None, None, None, *NO_PLACE, PAGE, 20), "task_executions_failed_by_time"),
    ("search_failures", ("nobody", None, None, None, *NO_PLACE, PAGE), "task_executions_words"),
    ("list_matching", (*FEW, "'nobody':*", ["w"], *NO_PLACE, PAGE), "workflows_words"),
    ("list_matching", (*FEW, "'nobody':*", [], *PLACE, PAGE), "workflows_words"),
    ("list_matching", (*FEW, None, ["w"], *NO_PLACE, PAGE), "workflows_pkey"),
    ("list_newest_matching", (*FEW, "'billing':*", [], *NO_PLACE, PAGE, 2000), "workflows_newest"),
    ("list_newer_matching", (*FEW, "'nobody':*", ["w"], *PLACE, PAGE), "workflows_words"),
    ("count_matching_workflows", (None, None, None, None, "'nobody':*", ["w"]), "workflows_words"),
    ("find_ids", ("%w%", "w", 2000), "workflows_newest"),
    ("workflow_statistics", (DAY, NOW, None, True, True), "workflows_newest"),
    ("workflow_statistics", (WEEK, NOW, "workflow-39", False, True), "workflows_by_name|workflows_newest"),
    ("execution_statistics", (DAY, NOW, None, True, True), "task_executions_finished"),
    ("get_workflow", ("w",), "workflows_pkey"),
    ("executions_of", ("w",), "idx_task_executions_workflow"),
    ("usage_of_workflow", ("w", True), "idx_task_executions_workflow"),
    ("usage_of_conversation", ("c",), "workflows_by_conversation"),
    ("list_children", ("w", PAGE), "workflows_by_parent"),
]


@pytest.mark.parametrize(("name", "parameters", "index"), HOT, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(HOT)])
def test_a_hot_statement_reads_its_index_and_sorts_no_table(explain, name, parameters, index):
    nodes = explain(load("workledger.operational", name), parameters)
    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert used & set(index.split("|")), f"it reads {used}"
    assert whole_tables(nodes) == []
    assert [node["Plan Rows"] for node in nodes if "Sort" in node["Node Type"] and node["Plan Rows"] > 5000] == []


def test_a_timeline_reads_the_events_of_its_workflow_only(explain):
    nodes = explain(load("workledger.operational", "timeline"), ("w", 0, None, PAGE))
    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert {name for name in used if name.endswith("_workflow_id_idx")}
    assert "event_positions_event_id_key" in used
    assert whole_tables(nodes) == []


def test_the_newest_branch_is_read_by_ranges_of_seq(filled, explain):
    filled.execute("INSERT INTO conversations (conversation_id, last_seq) VALUES ('c', 5000), ('d', 5000)")
    filled.execute(
        "INSERT INTO messages (message_id, conversation_id, seq, role, parent_seq)"
        " SELECT c || n, c, n, 'user', CASE WHEN n % 1000 = 999 THEN n - 100 END"
        " FROM unnest(ARRAY['c', 'd']) AS c CROSS JOIN generate_series(1, 5000) AS n"
    )
    filled.execute("ANALYZE messages, conversations")
    try:
        for name, parameters in (("read_branch", ("c", None, 0, 50)), ("read_branch_end", ("c", None, None, 50))):
            nodes = explain(load("workledger.operational", name), parameters)
            used = {node["Index Name"] for node in nodes if "Index Name" in node}
            assert used - {"conversations_pkey"} == {"messages_forks", "messages_conversation_id_seq_key"}
            assert whole_tables(nodes) == []
    finally:
        filled.execute("TRUNCATE messages, conversations")
        filled.execute("ANALYZE messages, conversations")


def whole_tables(nodes):
    """The tables that a plan reads whole; reading one that is empty, or has a few rows by nature, costs nothing."""
    return [
        node["Relation Name"]
        for node in nodes
        if node["Node Type"] == "Seq Scan"
        and node["Relation Name"] not in {"workers", "log_head", "conversations"}
        and node["Total Cost"] > 1
    ]


def test_reading_connections_plan_for_the_values_at_hand_and_recording_ones_do_not(database_url):
    with connect(database_url) as reading, connect(database_url, recording=True) as recording:
        modes = [c.execute("SHOW plan_cache_mode").fetchone()[0] for c in (reading, recording)]
    assert modes == ["force_custom_plan", "force_generic_plan"]
