"""The one table of legal transitions."""

from workledger.model.status import LEGAL_BEFORE, TERMINAL, Status


def test_nothing_but_a_recorded_resume_leaves_a_terminal_status_and_archiving_the_state():
    leaving = {event for event, before in LEGAL_BEFORE.items() if TERMINAL & set(before)}
    assert leaving == {"workflow.resumed", "workflow.archived"}  # what is archived has no status any more


def test_completed_is_final_even_for_a_resume():
    assert Status.COMPLETED not in LEGAL_BEFORE["workflow.resumed"]
