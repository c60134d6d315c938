"""A conversation is a tree: edits and new answers begin branches, and nothing that was said is lost."""

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.changes import make
from workledger.errors import InvalidInput, NotFound
from workledger.flows import verify
from workledger.model.ids import new_id
from workledger.operational import branches
from workledger.operational.branches import Branch


@pytest.fixture
def chat(ledger):
    return ledger.conversation("c")


def said(messages):
    return [message.body["content"] for message in messages]


def state_is_what_the_log_says(ledger):
    with ledger.pool.connection() as connection, verify.one_moment(connection):
        check = verify.check_state(connection, schema="workledger")
    return check.faults == []


def test_messages_that_are_only_added_follow_each_other(chat):
    assert [chat.add("user", text) for text in "abc"] == [1, 2, 3]
    assert said(chat.messages()) == ["a", "b", "c"]
    assert chat.branches() == [Branch(leaf_seq=3, fork_seq=0)]


def test_an_edited_message_begins_a_branch_and_the_old_one_stays(chat):
    for text in "abc":
        chat.add("user", text)
    assert chat.edit(2, "B") == 4
    assert said(chat.messages()) == ["a", "B"]
    assert said(chat.messages(leaf_seq=3)) == ["a", "b", "c"]
    assert chat.branches() == [Branch(leaf_seq=4, fork_seq=4), Branch(leaf_seq=3, fork_seq=0)]


def test_an_edit_keeps_what_it_does_not_change(chat):
    chat.add({"role": "user", "content": "hi", "name": "ann", "cache_control": {"type": "ephemeral"}})
    chat.edit(1, "hello")
    (edited,) = chat.messages()
    assert edited.body == {"role": "user", "content": "hello", "name": "ann", "cache_control": {"type": "ephemeral"}}
    assert branches.parent_of(edited) == 0


def test_the_newest_branch_goes_on_by_itself(chat):
    for text in "abc":
        chat.add("user", text)
    chat.edit(2, "B")
    chat.add("assistant", "C")
    assert said(chat.messages()) == ["a", "B", "C"]


def test_a_regenerated_answer_takes_the_place_of_the_old_one(chat):
    chat.add("user", "question")
    chat.add("assistant", "bad answer")
    again = chat.regenerate(2)
    again.add("assistant", "good answer")
    again.add("user", "thanks")
    assert said(again.messages()) == said(chat.messages()) == ["question", "good answer", "thanks"]


def test_a_branch_keeps_to_itself_while_others_are_added_to(chat):
    chat.add("user", "root")
    left, right = chat.branch(after=1), chat.branch(after=1)
    for n in range(3):
        left.add("assistant", f"left {n}")
        right.add("assistant", f"right {n}")
    assert said(left.messages()) == ["root", "left 0", "left 1", "left 2"]
    assert said(right.messages()) == ["root", "right 0", "right 1", "right 2"]
    assert said(chat.messages()) == said(right.messages())
    assert {branch.leaf_seq for branch in chat.branches()} == {6, 7}


def test_a_branch_can_begin_at_nothing(chat):
    chat.add("user", "first try")
    other = chat.branch(after=0)
    other.add("user", "second try")
    assert said(other.messages()) == ["second try"]


def test_a_popped_message_is_left_out_and_the_branch_goes_on(chat):
    for text in "abc":
        chat.add("user", text)
    assert chat.pop().body["content"] == "c"
    chat.add("user", "d")
    assert said(chat.messages()) == ["a", "b", "d"]
    assert chat.message(3).removed_at is not None


def test_pop_takes_from_the_branch_of_its_handle(chat):
    for text in "abc":
        chat.add("user", text)
    chat.edit(2, "B")
    assert chat.branch(after=3).pop().body["content"] == "c"
    assert said(chat.messages()) == ["a", "B"]
    assert chat.pop().body["content"] == "B"
    assert said(chat.messages()) == ["a"]


def test_pop_of_an_empty_conversation_is_none_and_clear_counts(chat):
    assert chat.pop() is None
    assert chat.clear() == 0
    for text in "abc":
        chat.add("user", text)
    chat.edit(2, "B")
    assert chat.clear() == 4
    assert chat.messages() == []
    chat.add("user", "new")
    assert said(chat.messages()) == ["new"]


def test_many_that_pop_at_once_each_get_another_message(chat):
    for n in range(40):
        chat.add("user", n)
    popped = []

    def pop():
        while (message := chat.pop()) is not None:
            popped.append(message.body["content"])

    threads = [threading.Thread(target=pop) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(popped) == list(range(40))


def test_many_writers_get_dense_seqs_and_every_branch_stays_whole(chat, ledger):
    chat.add("user", "root")

    def write(name):
        own = chat.branch(after=1)
        for n in range(10):
            own.add("assistant", f"{name} {n}")
        assert said(own.messages()) == ["root", *(f"{name} {n}" for n in range(10))]

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ledger.pool.connection() as connection:
        rows = connection.execute("SELECT seq FROM messages ORDER BY seq").fetchall()
    assert [seq for (seq,) in rows] == list(range(1, 62))
    assert len(chat.branches()) == 6
    assert state_is_what_the_log_says(ledger)


@pytest.mark.parametrize("call", ["edit", "branch", "regenerate", "message"])
def test_what_is_not_there_cannot_be_branched_from(chat, call):
    chat.add("user", "a")
    with pytest.raises(NotFound, match="no message with seq 7"):
        getattr(chat, call)(7, *(["x"] if call == "edit" else []))


@pytest.mark.parametrize("parent_seq", [-1, 2, 99])
def test_a_message_cannot_follow_one_that_does_not_come_before_it(chat, parent_seq):
    chat.add("user", "a")
    with pytest.raises(InvalidInput, match="earlier_message|parent_seq -1"):
        chat.add("user", "b", parent_seq=parent_seq)
    assert said(chat.messages()) == ["a"]
    assert chat.add("user", "c") == 2


def test_pages_of_a_branch_meet_without_gap_from_both_ends(chat):
    for n in range(10):
        chat.add("user", n)
    chat.edit(5, "fork")
    for n in range(20, 30):
        chat.add("user", n)
    whole = said(chat.messages())
    assert whole == [0, 1, 2, 3, "fork", *range(20, 30)]
    forward, after = [], 0
    while page := chat.messages(after_seq=after, limit=4):
        forward += said(page)
        after = page[-1].seq
    backward, before = [], None
    while page := chat.page(before_seq=before, limit=4):
        backward = said(page) + backward
        before = page[0].seq
    assert forward == backward == whole


def test_a_message_belongs_to_the_workflow_that_runs_where_it_is_added(ledger, chat):
    with ledger.start_workflow("w") as run, run.llm("call") as call:
        chat.add("assistant", "x")
    (message,) = chat.messages()
    assert (message.workflow_id, message.execution_id) == (run.workflow_id, call.execution_id)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(["add", "branch", "remove"]), st.integers(0, 30)), max_size=30))
def test_every_branch_reads_as_the_tree_says(ledger, steps):
    chat = ledger.conversation(new_id())
    parents: list[int] = []
    removed: set[int] = set()
    for what, pick in steps:
        if what == "remove":
            if pick in range(1, len(parents) + 1) and pick not in removed:
                ledger.record(make("remove_messages", conversation_id=chat.conversation_id, seqs=[pick]))
                removed.add(pick)
            continue
        parent = min(pick, len(parents)) if what == "branch" else len(parents)
        chat.add("user", len(parents) + 1, parent_seq=parent if what == "branch" else None)
        parents.append(parent)
    leaves = [seq for seq in range(1, len(parents) + 1) if seq not in parents]
    assert [branch.leaf_seq for branch in chat.branches()] == leaves[::-1]
    for leaf in range(1, len(parents) + 1):
        path, seq = [], leaf
        while seq:
            path.append(seq)
            seq = parents[seq - 1]
        expected = [seq for seq in reversed(path) if seq not in removed]
        assert said(chat.messages(leaf_seq=leaf)) == expected
        assert said(chat.messages(leaf_seq=leaf, after_seq=3, limit=2)) == [seq for seq in expected if seq > 3][:2]


def test_branches_pops_and_clears_can_be_rebuilt_from_the_log(chat, ledger):
    for text in "abc":
        chat.add("user", text)
    chat.edit(2, "B")
    chat.regenerate(3).add("assistant", "other")
    chat.pop()
    chat.clear()
    chat.branch(after=0).add("user", "again")
    assert state_is_what_the_log_says(ledger)
