"""The parts that turn recorded values into what is seen, apart from any server."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workledger.model.jsonvalue import decode, encode
from workledger.server import chat, pretty, text, urls, views
from workledger.server.timeline import timeline

NOW = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(max_size=8) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.names: set[str] = set()
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.names.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@settings(deadline=None, max_examples=200)
@given(ANY_JSON)
def test_any_recorded_value_is_laid_out_as_whole_harmless_html(value: object) -> None:
    html = str(pretty.laid_out(encode(value).decode()))
    tags = Tags(html)
    assert tags.open == []
    assert tags.names <= {"div", "span", "details", "summary", "a"}
    assert not UNSEEN.search(html)


@settings(deadline=None, max_examples=200)
@given(ANY_TEXT)
def test_any_text_is_seen_as_it_is_except_for_what_cannot_be_seen(content: str) -> None:
    html = str(text.visible(content))
    shown = unescape(re.sub(r'<span class="unseen">(.*?)</span>', r"\1", html))
    assert shown == text.plain(content)
    assert not UNSEEN.search(shown)


@settings(deadline=None, max_examples=200)
@given(ANY_JSON, ANY_TEXT)
def test_any_view_is_json_that_strict_readers_take_and_that_decodes_to_what_was_recorded(
    value: object, error: str
) -> None:
    stored = encode(value).decode()
    view = views.FeedbackView(
        feedback_id="f",
        name="n",
        score=math.nan,
        label=error,
        comment=None,
        source=None,
        execution_id=None,
        message_id=None,
        created_at=NOW,
    )
    body = views.to_json({"feedback": view, "value": views.Value(json=stored, size_bytes=len(stored))})
    orjson.loads(body)
    read = decode(body)
    assert read["feedback"]["label"] == error
    assert repr(read["value"]) == repr(decode(stored))


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(["role", "content", "tool_calls", "tool_call_id", "name", "extra"]), ANY_JSON))
def test_a_message_of_any_shape_is_shown(body: dict) -> None:
    stored = encode(body).decode()
    message = views.MessageView(
        message_id="m", seq=1, role="tool", body=views.Value(json=stored, size_bytes=len(stored)), workflow_id=None,
        execution_id=None, parent_seq=None, model=None, input_tokens=None, output_tokens=None, cost_usd=None, created_at=NOW,
    )  # fmt: skip
    (bubble,) = chat.bubbles([message])
    for part in bubble.parts:
        assert Tags(str(part.html)).open == []
    for call in bubble.tool_calls:
        assert Tags(str(call.arguments)).open == []


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (None, ""),
        (0, "0 ms"),
        (0.42, "0.4 ms"),
        (250, "250 ms"),
        (999.6, "1.00 s"),
        (1240, "1.24 s"),
        (59_940, "59.9 s"),
        (125_000, "2 min 05 s"),
        (11_520_000, "3 h 12 min"),
        (180_000_000, "2 d 02 h"),
        (timedelta(seconds=1.5), "1.50 s"),
    ],
)
def test_durations_read_in_about_three_digits(ms: float | None, shown: str) -> None:
    assert text.duration(ms) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "just now"), (12, "12 s ago"), (200, "3 min ago"), (7300, "2 h ago"), (200_000, "2 d ago"), (-4, "in 4 s")],
)
def test_ages_are_rough(seconds: float, shown: str) -> None:
    assert text.age(NOW - timedelta(seconds=seconds), NOW) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (4100, "4.1 kB"), (999_960, "1.0 MB"), (3 * 10**12, "3.0 TB")],
)
def test_sizes_are_decimal(size_bytes: int, shown: str) -> None:
    assert text.size(size_bytes) == shown


def test_a_short_value_stands_on_one_line_and_a_long_string_is_folded() -> None:
    assert "\n" not in pretty.laid_out('{"a": [1, 2, {"b": null}]}')
    assert pretty.laid_out('{"a": "%s"}' % ("x" * 500)).count("<details") == 1
    assert "<details" not in pretty.laid_out('{"a": "%s"}' % ("x" * 300))
    assert pretty.laid_out('"two\\nlines"') == '<div class="text" dir="auto">two\nlines</div>'


def test_urls_hold_any_filter_and_take_it_away_again() -> None:
    filters = views.Filters(status="failed", q="a&b=c#d", tag="\u05e9")
    url = urls.list_url(filters)
    assert url == "/?status=failed&q=a%26b%3Dc%23d&tag=%D7%A9"
    assert urls.list_url(filters, status=None, q=None, tag=None) == "/"


def execution(name: str, start_ms: float, ms: float | None, **given: object) -> views.ExecutionView:
    at = NOW + timedelta(milliseconds=start_ms)
    base = views.ExecutionView(
        execution_id=name, parent_execution_id=None, task_name=name, kind="task", status="completed", retry_count=0,
        step_key=None, error_type=None, error=None, error_traceback=None, created_at=at, started_at=at,
        completed_at=None if ms is None else at + timedelta(milliseconds=ms), duration_ms=ms, worker_id=None, model=None,
        input_tokens=None, output_tokens=None, cost_usd=None, input_data=None, output_data=None, metadata=None,
    )  # fmt: skip
    return replace(base, **given)


def detail(*executions: views.ExecutionView) -> views.WorkflowDetail:
    workflow = views.WorkflowView(
        workflow_id="w", name="w", workflow_type=None, status="running", current_step=None, completed_steps=0,
        total_steps=0, error_type=None, error=None, error_traceback=None, created_at=NOW, updated_at=NOW, started_at=NOW,
        completed_at=None, cancel_requested_at=None, duration_ms=None, attempt=1, tags=(), subject=None,
        definition_version=None, parent_workflow_id=None, conversation_id=None, trace_id=None, worker=None,
        input_data=None, output_data=None, state_data=None, metadata=None,
    )  # fmt: skip
    return views.WorkflowDetail(
        workflow=workflow,
        executions=views.ExecutionPage(items=executions, next=None, last=None, total=len(executions)),
        messages=views.MessagePage(items=(), next=None, last=None, total=0),
        events=views.EventPage(items=(), next=None, last=None, total=0),
        feedback=(),
        children=(),
        children_total=0,
        now=NOW + timedelta(seconds=1),
    )


def test_the_timeline_nests_attempts_below_their_parents_in_the_order_they_began() -> None:
    drawn = timeline(
        detail(
            execution("a", 0, 900),
            execution("b", 10, 100, parent_execution_id="a"),
            execution("c", 20, 10, parent_execution_id="b", retry_count=1, status="failed"),
            execution("d", 200, 50, parent_execution_id="a"),
            execution("e", 950, 10, parent_execution_id="elsewhere"),
        )
    )
    assert [(row.execution.execution_id, row.depth) for row in drawn.rows] == [
        ("a", 0),
        ("b", 1),
        ("c", 2),
        ("d", 1),
        ("e", 0),
    ]
    assert (drawn.failed, drawn.retries, drawn.kinds) == (1, 1, {"task": 5})
    assert 'x="0.000%" width="93.750%"' in drawn.rows[0].svg
    assert "url(#hatch)" in drawn.rows[2].svg
    assert "is-failed" in drawn.rows[2].svg


def test_what_runs_reaches_to_now() -> None:
    drawn = timeline(detail(execution("a", 0, None, status="running")))
    assert drawn.rows[0].duration_ms == 1000
    assert 'width="100.000%"' in drawn.rows[0].svg


def test_parents_in_a_circle_are_shown_all_the_same() -> None:
    circle = (execution("a", 0, 1, parent_execution_id="b"), execution("b", 1, 1, parent_execution_id="a"))
    assert {row.execution.execution_id for row in timeline(detail(*circle)).rows} == {"a", "b"}


def test_nothing_at_all_is_an_empty_timeline() -> None:
    assert timeline(detail()).rows == ()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.floats(-1e6, 1e9), st.none() | st.floats(0, 1e9), st.integers(0, 30)), max_size=30))
def test_bars_stay_on_the_row_whatever_the_clocks_said(spans: list[tuple[float, float | None, int]]) -> None:
    items = [
        execution(f"e{n}", start, ms, parent_execution_id=f"e{parent}") for n, (start, ms, parent) in enumerate(spans)
    ]
    drawn = timeline(detail(*items))
    assert len(drawn.rows) == len(items)
    for row in drawn.rows:
        x, width = map(float, re.search(r'x="([-\d.]+)%" width="([-\d.]+)%"', row.svg).groups())
        assert x >= 0
        assert x + width <= 100.01
    assert drawn.axis.count("<text") <= 12
