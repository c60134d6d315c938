"""Words are found in names and errors, whole or by their beginning, whether they are rare or frequent."""

import pytest

from support.changes import make, start, task
from workledger.errors import InvalidInput
from workledger.model.change import Failure
from workledger.operational import search


@pytest.fixture
def failed(ledger):
    def failed(workflow_id, error, *, name="w", error_type="app.errors.TimeoutError"):
        ledger.record(start(workflow_id=workflow_id, name=name))
        failure = Failure(error_type=error_type, error=error)
        ledger.record(task(workflow_id=workflow_id, execution_id=f"x-{workflow_id}", task_name=name))
        ledger.record(make("fail_execution", workflow_id=workflow_id, execution_id=f"x-{workflow_id}", failure=failure))
        ledger.record(make("fail_workflow", workflow_id=workflow_id, failure=failure))

    return failed


@pytest.fixture
def some(failed):
    failed("gateway", "502 bad gateway from billing-api.internal:8080/v1/pay", name="charge_card")
    failed("deadline", "deadline exceeded after 30 s", name="nightly-import")
    failed("naïve", "Größe ungültig: naïve café \U0001f600", name="résumé", error_type="ValueError")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gateway", {"gateway"}),
        ("GateWay", {"gateway"}),
        ("bad billing", {"gateway"}),
        ('"bad gateway"', {"gateway"}),
        ('"gateway bad"', set()),
        ("billing-api", {"gateway"}),
        ("billing-api.internal:8080/v1/pay", {"gateway"}),
        ("internal 8080", {"gateway"}),
        ("charge_card", {"gateway"}),
        ("card", {"gateway"}),
        ("import", {"deadline"}),
        ("nightly-import", {"deadline"}),
        ("app.errors.TimeoutError", {"gateway", "deadline"}),
        ("TimeoutError", {"gateway", "deadline"}),
        ("timeout", set()),
        ("timeo*", {"gateway", "deadline"}),
        ("Timeo* dead*", {"deadline"}),
        ("timeo* -billing", {"deadline"}),
        ("gateway or deadline", {"gateway", "deadline"}),
        ("größe café", {"naïve"}),
        ("résumé", {"naïve"}),
        ("30", {"deadline"}),
        ("gateway missing", set()),
        ("gate_way* x", set()),
        ("charge_c*", {"gateway"}),
    ],
)
def test_words_are_found_in_names_and_errors(ledger, some, text, found):
    assert {workflow.workflow_id for workflow in ledger.search(text)} == found
    assert {execution.workflow_id for execution in ledger.search_failures(text)} == found


@pytest.mark.parametrize(
    "text", ["'", "''", "a & | ! ( ) <-> :*", "%", "a:*", "'; DROP TABLE workflows", "\x00a", "-", '"']
)
def test_no_text_breaks_the_search(ledger, some, text):
    ledger.search(text)
    ledger.search_failures(text)


@pytest.mark.parametrize("text", ["", "  ", "\\", "./"])
def test_a_search_without_words_is_refused(ledger, text):
    with pytest.raises(InvalidInput, match="no words"):
        ledger.search(text)


def test_running_workflows_are_found_by_their_name(ledger):
    ledger.record(start(workflow_id="w", name="nightly import"))
    assert [workflow.workflow_id for workflow in ledger.search("nightly", status="running")] == ["w"]
    assert ledger.search("nightly", status="failed") == []


def test_the_words_of_an_error_page_are_found_behind_its_script(ledger, failed):
    failed("page", "<html><head><script>retry()</script><style>p {}</style></head><body>Bad <b>gateway</b></body>")
    for text in ("gateway", "bad -nowhere", "<b>gateway</b>", "gatew*"):
        assert [workflow.workflow_id for workflow in ledger.search(text)] == ["page"]
        assert [execution.workflow_id for execution in ledger.search_failures(text)] == ["page"]
    assert [workflow.workflow_id for workflow in ledger.workflows(search="<body>bad gate")] == ["page"]


@pytest.mark.parametrize("length", [5_000, 3_000_000])
def test_an_error_of_any_length_is_recorded_and_its_beginning_is_found(ledger, failed, length):
    failed("long", "beginning " + "x" * length)
    failed("words", "beginning " + " ".join(f"word{n}" for n in range(length // 8)))
    assert len(ledger.search("beginning")) == 2


def read_all(read, text, limit):
    page = read(text, limit=limit)
    found = list(page)
    while page.cursor:
        page = read(text, limit=limit, cursor=page.cursor)
        found += page
    return [item.workflow_id for item in found]


@pytest.mark.parametrize("probes", [(1, 1), (2, 6), (2_000, 20_000)])
def test_rare_and_frequent_words_give_the_same_pages(ledger, failed, monkeypatch, probes):
    monkeypatch.setattr(search, "_PROBES", dict.fromkeys(search._PROBES, probes))
    for n in range(30):
        failed(f"w{n:02}", "frequent" + " rare" * (n % 7 == 0))
    everything = [f"w{n:02}" for n in reversed(range(30))]
    for read in (ledger.search, ledger.search_failures):
        assert read_all(read, "frequent", 4) == everything
        assert read_all(read, "rare", 2) == [w for w in everything if int(w[1:]) % 7 == 0]
        assert read_all(read, "frequent -rare", 3) == [w for w in everything if int(w[1:]) % 7]
