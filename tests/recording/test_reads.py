"""Reading what was recorded: filters, pages, text that is not ordinary."""

import pytest


@pytest.fixture
def three(ledger):
    for n in range(3):
        with ledger.start_workflow(f"name-{n}", workflow_id=f"w{n}", tags=[f"t{n}"], subject=f"s{n % 2}"):
            pass


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["w2", "w1", "w0"]),
        ({"status": "completed", "limit": 2}, ["w2", "w1"]),
        ({"name": "name-1"}, ["w1"]),
        ({"tag": "t2"}, ["w2"]),
        ({"subject": "s0"}, ["w2", "w0"]),
        ({"search": "NAME-0"}, ["w0"]),
        ({"search": "nam 0"}, ["w0"]),
        ({"search": "name 7"}, []),
        ({"search": "w1"}, ["w1"]),
        ({"search": "w_"}, []),
        ({"search": "%"}, []),
        ({"search": "\0\ud800"}, []),
    ],
)
def test_workflows_are_found_by_their_filters(ledger, three, filters, found):
    assert [workflow.workflow_id for workflow in ledger.workflows(**filters)] == found
