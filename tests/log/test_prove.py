"""A proof stands for itself: the script in the documents checks it, and believes nothing that was altered."""

import copy
import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from workledger.errors import InvalidInput, NotFound, StoreCorrupted
from workledger.flows.prove import position_of, prove
from workledger.flows.seal import FolderCheckpoints, rotate_key, write_checkpoint

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "prove-an-event.md"


@pytest.fixture
def sealed(log):
    log.make_key()
    log.fill(60)
    log.seal(size=7)
    return log


@pytest.fixture
def check(tmp_path):
    """Runs the script of the documents as it is written there; says whether it believed the proof."""
    script = tmp_path / "check_proof.py"
    script.write_text(re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1])

    def run(proof, key) -> subprocess.CompletedProcess:
        (tmp_path / "proof.json").write_text(json.dumps(proof))
        command = [sys.executable, "-I", script, tmp_path / "proof.json", key.verifier_key]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def public_key(log):
    return log.keys.public_keys()[0]


def test_the_script_has_thirty_lines_and_needs_no_workledger():
    script = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1]
    assert len(script.splitlines()) <= 30
    assert "workledger" not in script


@pytest.mark.parametrize("position", [1, 7, 8, 30, 56])
def test_a_proof_convinces_somebody_with_the_public_key(sealed, check, position):
    done = check(prove(sealed.connection, position), public_key(sealed))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"position {position}: ")


def test_a_proof_of_text_of_every_kind_convinces(log, check):
    nasty = 'é"\\\n\t\u2028\U0001f600 \ufdd0'
    log.make_key()
    log.record(log.own_event(payload={nasty: [1.0, 2**70, None, nasty]}, entity_id="ü\u2028\U0001f600"))
    log.sequence()
    log.seal()
    done = check(prove(log.connection, 1), public_key(log))
    assert done.returncode == 0, done.stderr


ALTERATIONS = {
    "the payload": lambda proof: proof.update(payload=proof["payload"].replace("1", "2")),
    "the salt": lambda proof: proof.update(salt=uuid.uuid4().hex),
    "the type": lambda proof: proof["event"].update(event_type="cache.miss"),
    "the time": lambda proof: proof["event"].update(created_at="2020-01-01T00:00:00.000000Z"),
    "the position": lambda proof: proof["event"].update(position=proof["event"]["position"] - 1),
    "the workflow": lambda proof: proof["event"].update(workflow_id="another"),
    "the seal's range": lambda proof: proof["seal"].update(last_position=proof["seal"]["last_position"] + 1),
    "the seal's time": lambda proof: proof["seal"].update(sealed_at="2020-01-01T00:00:00.000000Z"),
    "the path of the event": lambda proof: proof["event_path"].reverse(),
    "the path of the seal": lambda proof: proof["seal_path"].pop(),
    "the checkpoint's size": lambda proof: proof.update(checkpoint=proof["checkpoint"].replace("\n3\n", "\n4\n")),
    "the checkpoint's signature": lambda proof: proof.update(checkpoint=proof["checkpoint"][:-20] + "A" * 17 + "==\n"),
}


@pytest.mark.parametrize("what", ALTERATIONS)
def test_an_altered_proof_convinces_nobody(sealed, check, what):
    proof = prove(sealed.connection, 18)
    altered = copy.deepcopy(proof)
    ALTERATIONS[what](altered)
    assert altered != proof
    assert check(altered, public_key(sealed)).returncode != 0


def test_a_proof_convinces_nobody_who_has_another_key(sealed, check, tmp_path):
    from workledger.log.keys import KeyFolder

    other = KeyFolder(tmp_path / "other").make(public_key(sealed).name).key
    assert check(prove(sealed.connection, 18), other).returncode != 0


def test_a_proof_can_lead_to_a_checkpoint_that_was_kept(sealed, check, tmp_path):
    store = FolderCheckpoints(tmp_path / "elsewhere")
    name = write_checkpoint(sealed.connection, store)
    kept = store.read_all()[name]
    sealed.fill(120)
    sealed.seal(size=7)
    proof = prove(sealed.connection, 18, checkpoint=kept)
    assert proof["checkpoint"] == kept
    assert check(proof, public_key(sealed)).returncode == 0
    with pytest.raises(InvalidInput, match="the checkpoint is of the first"):
        prove(sealed.connection, sealed.head, checkpoint=kept)


def test_an_unsigned_seal_is_proved_by_the_first_signed_one_after_it(log, check):
    log.fill(20)
    log.seal(size=5)
    with pytest.raises(NotFound, match="keys new"):
        prove(log.connection, 3)
    log.make_key()
    log.fill(40)
    log.seal(size=5)
    assert check(prove(log.connection, 3), public_key(log)).returncode == 0


def test_after_a_rotation_each_proof_is_checked_with_the_key_that_signed_it(sealed, check):
    old = public_key(sealed)
    new = rotate_key(sealed.connection, schema=sealed.schema, folder=sealed.keys)
    sealed.fill(120)
    sealed.seal(size=7)
    assert check(prove(sealed.connection, 3), old).returncode == 0
    assert check(prove(sealed.connection, sealed.head), new).returncode == 0
    assert check(prove(sealed.connection, sealed.head), old).returncode != 0


def test_an_erased_event_is_still_proved_without_its_payload(sealed, check):
    with sealed.attack() as connection:
        connection.execute(
            "SELECT erase_event_payloads(array_agg(event_id), array_agg('{\"x\": 1}'::jsonb), gen_random_uuid())"
            " FROM event_positions WHERE position = 18"
        )
    proof = prove(sealed.connection, 18)
    assert (proof["payload"], proof["salt"]) == (None, None)
    done = check(proof, public_key(sealed))
    assert (done.returncode, done.stdout.rstrip().endswith("(erased)")) == (0, True)


def test_what_was_altered_is_not_proved(sealed):
    sealed.alter(
        "UPDATE events SET severity = 'debug'"
        " WHERE event_id = (SELECT event_id FROM event_positions WHERE position = 18)"
    )
    with pytest.raises(StoreCorrupted, match="is not what was sealed"):
        prove(sealed.connection, 18)
    prove(sealed.connection, 17)


def test_what_is_not_sealed_yet_cannot_be_proved(sealed):
    with pytest.raises(NotFound, match="not sealed yet"):
        prove(sealed.connection, sealed.head + 1)


def test_an_event_is_named_by_its_id_or_its_position(sealed):
    (event_id,) = sealed.connection.execute("SELECT event_id::text FROM event_positions WHERE position = 18").fetchone()
    assert position_of(sealed.connection, event_id) == position_of(sealed.connection, "18") == 18
    with pytest.raises(NotFound):
        position_of(sealed.connection, str(uuid.uuid4()))
    with pytest.raises(InvalidInput, match="names no event"):
        position_of(sealed.connection, "the third")
