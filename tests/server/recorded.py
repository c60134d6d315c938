"""What the tests of the dashboard share: a recorded project, and a way to ask a server."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from workledger import Ledger, Usage

__all__ = ["HOSTILE_ID", "HOSTILE_TEXT", "LONG_TEXT", "Answer", "Dashboard", "record_everything", "record_research"]

HOSTILE_ID = '"><img src=x onerror=alert(1)>/../..?a=b#c & d/events'
HOSTILE_TEXT = "<script>alert(1)</script> </summary></div> NUL \x00 lone \ud800 bidi \u202e \u05e9\u05dc\u05d5\u05dd \x1b[31m &amp; 'q' \"q\""
LONG_TEXT = "A line of text that repeats, with <b>tags</b> & signs.\n" * 20_000


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Dashboard:
    """A running dashboard and a way to ask it."""

    url: str
    ledger: Ledger

    def get(self, path: str, *, method: str = "GET", host: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if host is not None:
            sent["Host"] = host
        connection.request(method, path, headers=sent)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer

    def api(self, path: str) -> Any:
        answer = self.get(f"/api/v1{path}")
        assert answer.status == 200, answer.text
        return answer.json

    def detail(self, workflow_id: str, query: str = "") -> Any:
        return self.api(f"/workflows/{quote(workflow_id, safe='')}{query}")

    def page(self, workflow_id: str, query: str = "") -> str:
        answer = self.get(f"/workflows/{quote(workflow_id, safe='')}{query}")
        assert answer.status == 200, answer.text
        return answer.text


def record_everything(ledger: Ledger) -> None:
    """An agent with retries and a failure, conversations, hostile content, a parent with children, many small ones."""
    for number in range(60):
        with ledger.start_workflow("small", workflow_id=f"small-{number:03}", tags=["many"]) as run:
            run.output = number
    record_research(ledger)
    record_failure(ledger)
    record_hostile(ledger)
    with ledger.start_workflow("digest", workflow_id="digest", total_steps=2):
        for section in range(2):
            with ledger.start_workflow("section", workflow_id=f"section-{section}"):
                pass


def record_research(ledger: Ledger) -> None:
    attempts = iter([ConnectionError("reset by peer"), ConnectionError("reset by peer"), None])

    @ledger.tool(retries=2, backoff_s=0.01, max_backoff_s=0.01)
    def fetch(url: str) -> dict[str, Any]:
        if error := next(attempts):
            raise error
        return {"url": url, "status": 200}

    with ledger.start_workflow(
        "research",
        workflow_id="research-1",
        workflow_type="agent",
        input={"topic": "vacuum"},
        tags=["nightly"],
        subject="user-7",
        metadata={"tier": "gold"},
        total_steps=2,
    ) as run:
        run.message("system", "You research. " + "Be careful. " * 200)
        run.message("user", "What is vacuum?")
        call = {
            "id": "c1",
            "type": "function",
            "function": {"name": "fetch", "arguments": '{"url": "https://a.example"}'},
        }
        run.message({"role": "assistant", "content": None, "tool_calls": [call]})
        with run.agent("researcher") as agent:
            fetch("https://a.example")
            with agent.llm("think", input={"prompt": "?"}) as model:
                model.usage = Usage(input_tokens=1200, output_tokens=34, cost_usd=0.0125, model="small-1")
                model.output = "It removes dead rows."
        run.message({"role": "tool", "tool_call_id": "c1", "content": '{"status": 200}'})
        run.message("assistant", "It removes dead rows.")
        run.event("cache.hit", {"key": "a.example"})
        run.feedback("helpful", score=1, comment="Short and right.", source="user-7")
        run.output = "It removes dead rows."


def record_failure(ledger: Ledger) -> None:
    with (
        pytest.raises(ValueError, match="nothing to load"),
        ledger.start_workflow("load", workflow_id="load-1", workflow_type="batch", subject="user-8") as run,
        run.task("read", input={"path": "a.csv"}),
    ):
        raise ValueError("nothing to load from a.csv")


def record_hostile(ledger: Ledger) -> None:
    with (
        pytest.raises(RuntimeError),
        ledger.start_workflow(
            "<script>alert('name')</script>",
            workflow_id=HOSTILE_ID,
            tags=["<b>bold</b>", "\u202eevil"],
            subject="<i>\u202esubject</i>",
            input={"text": HOSTILE_TEXT, "nan": float("nan"), "inf": float("-inf"), "big": 2**80, "raw": b"\x00\xff"},
            metadata={HOSTILE_TEXT: HOSTILE_TEXT},
        ) as run,
    ):
        run.message("user", HOSTILE_TEXT)
        run.message(
            "assistant", None, tool_calls=[{"id": "1", "function": {"name": HOSTILE_TEXT, "arguments": HOSTILE_TEXT}}]
        )
        run.message(
            "tool",
            [
                {"type": "text", "text": HOSTILE_TEXT},
                {"type": "image_url", "image_url": {"url": "javascript:alert(1)"}},
            ],
        )
        run.message("assistant", LONG_TEXT)
        with run.tool("copy", input=LONG_TEXT) as tool:
            tool.output = {"text": LONG_TEXT, "more": HOSTILE_TEXT}
        run.event("cache.hit", {"key": HOSTILE_TEXT})
        run.feedback("rude", comment=HOSTILE_TEXT, label=HOSTILE_TEXT, source=HOSTILE_TEXT)
        raise RuntimeError(HOSTILE_TEXT)
