"""Whatever a superuser alters in what is sealed is found, and located."""

import msgspec
import pytest

from workledger.flows import seal as sealing
from workledger.flows.seal import FolderCheckpoints, write_checkpoint
from workledger.log import seal as seals
from workledger.log.keys import KeyFolder
from workledger.log.seal_notes import make_note

AT = "event_id = (SELECT event_id FROM event_positions WHERE position = 17)"

#: What is done to position 17 of 40 (seals of 10), and what is found, where.
EVENTS = {
    "a payload": (f"UPDATE events SET payload = payload || '{{\"n\": 2}}' WHERE {AT}", "event.altered"),
    "a payload by one digit that means the same": (
        f"UPDATE events SET payload = jsonb_set(payload, '{{x}}', '1.0') WHERE {AT}",
        "event.altered",
    ),
    "a payload emptied": (f"UPDATE events SET payload = NULL WHERE {AT}", "event.altered"),
    "a salt": (f"UPDATE events SET salt = gen_random_uuid() WHERE {AT}", "event.altered"),
    "a type": (f"UPDATE events SET event_type = 'cache.miss' WHERE {AT}", "event.altered"),
    "an entity": (f"UPDATE events SET entity_id = 'another' WHERE {AT}", "event.altered"),
    "an entity type": (f"UPDATE events SET entity_type = NULL WHERE {AT}", "event.altered"),
    "a workflow": (f"UPDATE events SET workflow_id = 'another' WHERE {AT}", "event.altered"),
    "a severity": (f"UPDATE events SET severity = 'debug' WHERE {AT}", "event.altered"),
    "a time by a microsecond": (
        f"UPDATE events SET created_at = created_at + interval '1 microsecond' WHERE {AT}",
        "event.altered",
    ),
    "a time to infinity": (f"UPDATE events SET created_at = 'infinity' WHERE {AT}", "event.altered"),
    "the server's time": (f"UPDATE events SET recorded_at = created_at WHERE {AT}", "event.altered"),
    "a schema version": (f"UPDATE events SET schema_version = 2 WHERE {AT}", "event.altered"),
    "an event deleted": (f"DELETE FROM events WHERE {AT}", "event.deleted"),
    "an event deleted with its position": (
        "WITH p AS (DELETE FROM event_positions WHERE position = 17 RETURNING event_id)"
        " DELETE FROM events WHERE event_id = (SELECT event_id FROM p)",
        "position.deleted",
    ),
    "another event put in its place": (
        "WITH e AS (INSERT INTO events (event_id, event_type) VALUES (uuid_floor(now()), 'forged') RETURNING event_id)"
        " UPDATE event_positions SET event_id = (SELECT event_id FROM e) WHERE position = 17",
        "event.altered",
    ),
}


@pytest.fixture
def sealed(log):
    log.make_key()
    log.fill(40)
    log.seal(size=10)
    assert log.verify().ok
    return log


@pytest.mark.parametrize("thorough", [False, True], ids=["hashed there", "hashed here"])
@pytest.mark.parametrize("what", EVENTS)
def test_an_altered_event_is_found_at_its_position(sealed, what, thorough):
    statement, kind = EVENTS[what]
    sealed.alter(statement)
    found = sealed.kinds(thorough=thorough)
    assert (kind, "event_positions[17]") in found
    assert [place for _, place in found if place.startswith("event_positions")] == ["event_positions[17]"]


def swap(log, one: int, two: int) -> None:
    with log.attack() as connection:
        connection.execute("UPDATE event_positions SET position = 1000000 WHERE position = %s", (one,))
        connection.execute("UPDATE event_positions SET position = %s WHERE position = %s", (one, two))
        connection.execute("UPDATE event_positions SET position = %s WHERE position = 1000000", (two,))


def test_two_swapped_positions_are_named_as_such(sealed):
    swap(sealed, 13, 18)
    findings = sealed.verify().findings
    assert [(finding.kind, finding.location) for finding in findings] == [
        ("event.moved", "event_positions[13]"),
        ("event.moved", "event_positions[18]"),
    ]
    assert "was sealed at position 18" in findings[0].message


def test_events_swapped_between_two_seals_are_both_found(sealed):
    swap(sealed, 13, 33)
    assert sealed.kinds() == [("event.altered", "event_positions[13]"), ("event.altered", "event_positions[33]")]


def test_an_event_cut_out_with_the_gap_closed_is_found_where_it_was(sealed):
    with sealed.attack() as connection:
        connection.execute(f"DELETE FROM events WHERE {AT}")
        connection.execute("DELETE FROM event_positions WHERE position = 17")
        for position in range(18, sealed.head + 1):
            connection.execute("UPDATE event_positions SET position = %s - 1 WHERE position = %s", (position, position))
        connection.execute("UPDATE log_head SET position = position - 1")
    found = sealed.kinds()
    assert found[0] == ("event.moved", "event_positions[17]")
    assert ("position.deleted", f"event_positions[{sealed.head + 1}]") in found


def test_an_event_squeezed_in_is_found_where_it_stands(sealed):
    with sealed.attack() as connection:
        for position in range(sealed.head, 16, -1):
            connection.execute("UPDATE event_positions SET position = %s + 1 WHERE position = %s", (position, position))
        connection.execute(
            "WITH e AS (INSERT INTO events (event_id, event_type) VALUES (uuid_floor(now()), 'forged')"
            " RETURNING event_id) INSERT INTO event_positions SELECT 17, event_id FROM e"
        )
        connection.execute("UPDATE log_head SET position = position + 1")
    found = sealed.kinds()
    assert found[0] == ("event.altered", "event_positions[17]")
    assert ("event.moved", "event_positions[18]") in found


def test_an_event_that_stands_nowhere_in_the_log_is_found(sealed):
    sealed.alter("INSERT INTO events (event_id, event_type) VALUES (uuid_floor(now()), 'forged')")
    ((kind, place),) = sealed.kinds()
    assert kind == "event.inserted"
    assert place.startswith("events[")


def test_a_second_event_under_the_same_id_is_found(sealed):
    with sealed.attack() as connection:
        connection.execute("ALTER TABLE events DROP CONSTRAINT events_pkey")
        connection.execute(
            "INSERT INTO events (event_id, event_type, payload)"
            f" SELECT event_id, event_type, '{{}}' FROM events WHERE {AT}"
        )
    assert ("event.inserted", "event_positions[17]") in sealed.kinds()


def test_an_erasure_that_no_event_explains_is_found(sealed):
    with sealed.attack() as connection:
        connection.execute(
            "SELECT erase_event_payloads(ARRAY[event_id], ARRAY['{}'::jsonb], gen_random_uuid())"
            " FROM event_positions WHERE position = 17"
        )
    assert [kind for kind, _ in sealed.kinds()] == ["erasure.unexplained"]


def test_an_alteration_passed_off_as_an_erasure_is_found(sealed):
    with sealed.attack() as connection:
        connection.execute(
            "INSERT INTO erased_payloads (event_id, commitment, erased_by)"
            " SELECT event_id, sha256('forged'), event_id FROM event_positions WHERE position = 17"
        )
    assert ("event.altered", "event_positions[17]") in sealed.kinds()


SEALS = {
    "its root": "UPDATE seals SET root = sha256('x') WHERE number = 2",
    "its hash": "UPDATE seals SET hash = sha256('x') WHERE number = 2",
    "its time": "UPDATE seals SET sealed_at = sealed_at - interval '1 day' WHERE number = 2",
    "what came before": "UPDATE seals SET previous = sha256('x') WHERE number = 2",
    "its tree": "UPDATE seals SET tree_root = sha256('x') WHERE number = 2",
    "its peaks": "UPDATE seals SET peaks = sha256('x') WHERE number = 2",
    "its digests": "UPDATE seals SET leaves = overlay(leaves PLACING sha256('x') FROM 65 FOR 32) WHERE number = 2",
    "its log": "UPDATE seals SET origin = 'another/log' WHERE number = 2",
}


@pytest.mark.parametrize("what", SEALS)
def test_an_altered_seal_is_found_and_no_event_is_accused(sealed, what):
    sealed.alter(SEALS[what])
    found = sealed.kinds()
    assert ("seal.rewritten", "seals[2]") in found
    assert {place for _, place in found} <= {"seals[2]", "seals[3]"}


@pytest.mark.parametrize("thorough", [False, True], ids=["hashed there", "hashed here"])
def test_a_seal_that_claims_a_whole_universe_of_events_is_found_and_not_counted_through(sealed, thorough):
    for name in ("seals_check", "seals_check1", "seals_check2", "seals_check3"):
        sealed.connection.execute(f"ALTER TABLE seals DROP CONSTRAINT IF EXISTS {name}")
    sealed.alter("UPDATE seals SET last_position = 1000000000000000 WHERE number = 4")
    found = sealed.kinds(thorough=thorough)
    assert ("seal.rewritten", "seals[4]") in found
    assert {place for _, place in found} <= {"seals[4]", "seals[5]"}


def test_events_and_the_digests_of_their_seal_altered_together_are_found(sealed):
    with sealed.attack() as connection:
        connection.execute(f"UPDATE events SET severity = 'debug' WHERE {AT}")
        leaves = seals.leaves_of(connection, first=11, last=20)
        connection.execute("UPDATE seals SET leaves = %s WHERE number = 2", (leaves,))
    assert sealed.kinds() == [("seal.rewritten", "seals[2]"), ("event.altered", "event_positions[11 to 20]")]


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM seals WHERE number = 2", [("seal.missing", "seals[2]")]),
        ("DELETE FROM seals WHERE number = 1", [("seal.missing", "seals[1]")]),
        ("UPDATE seals SET key_id = NULL, signature = NULL WHERE number = 3", [("seal.unsigned", "seals[3]")]),
        (
            "UPDATE seals SET signature = decode(repeat('00', 64), 'hex') WHERE number = 3",
            [("seal.forged", "seals[3]")],
        ),
    ],
)
def test_a_seal_removed_or_robbed_of_its_signature_is_found(sealed, statement, found):
    sealed.alter(statement)
    assert sealed.kinds() == found


def rewrite(log, *, signer=None, from_number: int = 1) -> None:
    """What a superuser can do at most: alter an event and make every seal from there on anew, as if it had been so."""
    with log.attack() as connection:
        connection.execute(f"UPDATE events SET severity = 'debug' WHERE {AT}")
        old = list(seals.iterate(connection))
        connection.execute("DELETE FROM seals WHERE number >= %s", (from_number,))
        before = old[from_number - 2] if from_number > 1 else None
        for one in old[from_number - 1 :]:
            leaves = seals.leaves_of(connection, first=one.first_position, last=one.last_position)
            made = seals.followed_by(before, origin=one.origin, leaves=leaves, sealed_at=one.sealed_at)
            if signer is not None:
                signature = signer.sign(made.checkpoint.text)
                made = msgspec.structs.replace(made, key_id=signer.key.key_id, signature=signature)
            seals.add(connection, made)
            before = made


def test_a_seal_rewritten_to_fit_its_altered_events_breaks_the_chain(sealed):
    with sealed.attack() as connection:
        connection.execute(f"UPDATE events SET severity = 'debug' WHERE {AT}")
        one, old, *_ = seals.iterate(connection)
        leaves = seals.leaves_of(connection, first=11, last=20)
        made = seals.followed_by(one, origin=old.origin, leaves=leaves, sealed_at=old.sealed_at)
        made = msgspec.structs.replace(made, key_id=old.key_id, signature=old.signature)
        connection.execute("DELETE FROM seals WHERE number = 2")
        seals.add(connection, made)
    assert sealed.kinds() == [
        ("seal.forged", "seals[2]"),
        ("seal.rewritten", "seals[3]"),
        ("seal.rewritten", "seals[3]"),
    ]


def test_all_seals_rewritten_without_signatures_fool_nobody_who_has_the_public_key(sealed):
    rewrite(sealed)
    assert sealed.kinds() == []
    assert sealed.kinds(keys=sealed.keys.public_keys()) == [("seal.unsigned", f"seals[{sealed.verify().seals}]")]


def test_all_seals_rewritten_with_another_key_fool_nobody_who_has_the_public_key(sealed, tmp_path):
    own = sealed.keys.public_keys()
    foreign = KeyFolder(tmp_path / "attacker")
    sealing.make_key(sealed.connection, schema=sealed.schema, folder=foreign)
    rewrite(sealed, signer=foreign.active_signer(sealed.connection))
    assert sealed.kinds() == []
    assert {kind for kind, _ in sealed.kinds(keys=own)} == {"seal.untrusted"}


def test_all_seals_rewritten_even_with_the_stolen_key_differ_from_a_checkpoint_kept_elsewhere(sealed, tmp_path):
    store = FolderCheckpoints(tmp_path / "elsewhere")
    name = write_checkpoint(sealed.connection, store)
    assert sealed.verify(checkpoints=store.read_all()).ok
    rewrite(sealed, signer=sealed.keys.active_signer(sealed.connection))
    assert sealed.kinds(keys=sealed.keys.public_keys()) == []
    assert sealed.kinds(checkpoints=store.read_all()) == [("checkpoint.differs", name)]


def test_newest_seals_cut_off_are_missed_by_a_checkpoint(sealed, tmp_path):
    store = FolderCheckpoints(tmp_path / "elsewhere")
    name = write_checkpoint(sealed.connection, store)
    sealed.alter("DELETE FROM seals WHERE number >= 3")
    assert sealed.kinds() == []
    assert sealed.kinds(checkpoints=store.read_all()) == [("checkpoint.beyond", name)]


def test_an_old_checkpoint_still_holds_when_the_log_has_grown(sealed, tmp_path):
    store = FolderCheckpoints(tmp_path / "elsewhere")
    first = write_checkpoint(sealed.connection, store)
    assert write_checkpoint(sealed.connection, store) == first
    sealed.fill(80)
    sealed.seal(size=10)
    second = write_checkpoint(sealed.connection, store)
    assert list(store.read_all()) == [first, second]
    assert second == f"{sealed.head:020d}.checkpoint"
    report = sealed.verify(checkpoints=store.read_all(), keys=sealed.keys.public_keys())
    assert (report.ok, report.checkpoints) == (True, 2)


def test_a_checkpoint_that_is_there_is_never_written_over(sealed, tmp_path):
    store = FolderCheckpoints(tmp_path / "elsewhere")
    name = write_checkpoint(sealed.connection, store)
    (tmp_path / "elsewhere" / name).write_text("something else")
    with pytest.raises(Exception, match="holds another checkpoint"):
        write_checkpoint(sealed.connection, store)
    assert sealed.kinds(checkpoints=store.read_all()) == [("checkpoint.unreadable", name)]


def test_a_checkpoint_signed_by_somebody_else_is_not_believed(sealed, tmp_path):
    foreign = KeyFolder(tmp_path / "attacker").make("workledger/other")
    *_, newest = seals.iterate(sealed.connection)
    text = newest.checkpoint.text
    note = make_note(text, key=foreign.key, signature=foreign.sign(text))
    assert sealed.kinds(checkpoints={"kept": note}) == [("checkpoint.untrusted", "kept")]


def test_guards_that_were_switched_off_are_found(sealed):
    (partition,) = sealed.connection.execute("SELECT DISTINCT tableoid::regclass::text FROM events").fetchone()
    sealed.connection.execute(f"ALTER TABLE {partition} DISABLE TRIGGER append_only_rows")
    sealed.connection.execute("ALTER TABLE seals ENABLE TRIGGER append_only_table")
    sealed.connection.execute("DROP TRIGGER append_only_rows ON event_positions")
    assert sealed.kinds() == [
        ("guard.off", "event_positions"),
        ("guard.off", partition),
        ("guard.off", "seals"),
    ]


def test_a_partition_attached_by_hand_without_guards_is_found(sealed):
    sealed.connection.execute(
        "CREATE TABLE events_old PARTITION OF events FOR VALUES FROM ('00000000-0000-0000-0000-000000000000')"
        " TO ('00000001-0000-0000-0000-000000000000')"
    )
    assert sealed.kinds() == [("guard.off", "events_old")]


def test_what_is_not_sealed_yet_is_counted_and_no_fault(sealed):
    sealed.fill(60)
    report = sealed.verify()
    assert (report.ok, report.unsealed) == (True, sealed.head - report.events)


def test_whoever_waits_is_told_how_far_it_is(sealed):
    seen = []
    report = sealed.verify(on_progress=seen.append)
    assert seen[-1] == report.events == sealed.head


def test_many_faults_are_counted_and_the_first_are_named(log):
    log.fill(1200)
    log.seal()
    log.alter("UPDATE events SET severity = 'debug'")
    report = log.verify()
    assert report.finding_count == log.head > len(report.findings) == 1000
