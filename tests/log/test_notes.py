"""Notes, checkpoints and keys are written and read as the C2SP specifications say."""

import base64

import pytest

from workledger.errors import InvalidInput
from workledger.log.keys import KeyFolder, signature_holds
from workledger.log.seal_notes import Checkpoint, make_note, parse_checkpoint, parse_note, parse_verifier_key

# The example in the documentation of golang.org/x/mod/sumdb/note.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example of c2sp.org/tlog-checkpoint.
CHECKPOINT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
ROOT = base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")


def test_a_note_signed_by_others_is_read_and_verified():
    key, note = parse_verifier_key(GO_KEY), parse_note(GO_NOTE)
    ((name, key_id, signature),) = note.signatures
    assert (name, key_id, key.key_id) == ("PeterNeumann", "c74f20a3", "c74f20a3")
    assert key.verifier_key == GO_KEY
    assert signature_holds(key, note.text, signature)
    assert not signature_holds(key, note.text + "!", signature)
    assert make_note(note.text, key=key, signature=signature) == GO_NOTE


def test_a_checkpoint_is_three_lines():
    checkpoint = parse_checkpoint(CHECKPOINT)
    assert checkpoint == Checkpoint(origin="example.com/behind-the-sofa", size=20852163, root=ROOT)
    assert checkpoint.text == CHECKPOINT


def test_lines_that_others_add_to_a_checkpoint_are_passed_over():
    assert parse_checkpoint(CHECKPOINT + "extension\n") == parse_checkpoint(CHECKPOINT)


def test_a_note_may_have_empty_lines_and_several_signatures(tmp_path):
    one, two = (KeyFolder(tmp_path / name).make(f"example.com/{name}") for name in ("one", "two"))
    text = "a\n\nb\n"
    note = make_note(text, key=one.key, signature=one.sign(text))
    note += make_note(text, key=two.key, signature=two.sign(text)).rpartition("\n\n")[2]
    read = parse_note(note)
    assert read.text == text
    assert [name for name, *_ in read.signatures] == ["example.com/one", "example.com/two"]


@pytest.mark.parametrize(
    "note", ["", "text\n", "text\n\n", "text\n\n- name YWJjZGVm\n", "text\n\n— name YWJjZGVm", "text\n\n— name YWJj\n"]
)
def test_what_is_no_note_is_refused(note):
    with pytest.raises(InvalidInput, match="no signed note"):
        parse_note(note)


@pytest.mark.parametrize(
    "text", ["", "origin\n", "origin\n01\nAAAA\n", "origin\n1\nAAAA\n", "\n1\n" + CHECKPOINT[-45:]]
)
def test_what_is_no_checkpoint_is_refused(text):
    with pytest.raises(InvalidInput, match="no checkpoint"):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "text",
    ["", "name", GO_KEY.replace("c74f20a3", "c74f20a4"), GO_KEY.replace("Peter", "Pieter"), "na me+c74f20a3+AAAA"],
)
def test_what_is_no_verifier_key_is_refused(text):
    with pytest.raises(InvalidInput, match="no verifier key"):
        parse_verifier_key(text)


def test_a_key_is_made_once_and_found_again(tmp_path):
    folder = KeyFolder(tmp_path / "keys")
    made = folder.make("example.com/log")
    found = folder.signer(made.key.key_id)
    assert found.key == made.key
    assert folder.public_keys() == [made.key]
    assert signature_holds(made.key, "text", found.sign("text"))
