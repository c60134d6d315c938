"""Sealing: what is due gets sealed once, in a chain, by one of many; signed where there is a key."""

import threading
from datetime import timedelta

import pytest
from psycopg.errors import RestrictViolation

from workledger.errors import ConfigurationError, NotFound, StoreCorrupted
from workledger.flows import seal as sealing
from workledger.log.keys import KeyFolder, signature_holds
from workledger.log.merkle import HASH_BYTES, inclusion_path, root_from_path
from workledger.log.seal import NOTHING_BEFORE, iterate
from workledger.log.seal_keys import listed_keys
from workledger.log.seal_notes import parse_verifier_key

LONG = timedelta(days=1)


def once(log, **options):
    return sealing.seal_once(log.connection, schema=log.schema, **options)


def test_a_full_batch_is_sealed_at_once_and_the_rest_when_it_is_old_enough(log):
    log.fill(25)
    assert once(log, max_events=10, max_age=LONG).last_position == 10
    assert once(log, max_events=10, max_age=LONG).last_position == 20
    assert once(log, max_events=10, max_age=LONG) is None
    assert once(log, max_events=10, max_age=timedelta(0)).last_position == log.head
    assert once(log, max_events=10, max_age=timedelta(0)) is None


def test_nothing_is_sealed_before_it_has_a_position(log):
    log.record(log.own_event())
    assert once(log, max_age=timedelta(0)) is None


def test_seals_tile_the_log_and_each_holds_the_hash_of_the_one_before(log):
    log.fill(60)
    seals = log.seal(size=7)
    stored = list(iterate(log.connection, page=3))
    assert stored == seals
    assert [one.number for one in stored] == list(range(1, len(stored) + 1))
    assert [one.first_position for one in stored] == [1, *(one.last_position + 1 for one in stored[:-1])]
    assert stored[-1].last_position == log.head
    assert [one.previous for one in stored] == [NOTHING_BEFORE, *(one.hash for one in stored[:-1])]
    assert all(one.hash == one.body_hash for one in stored)
    assert log.verify().ok


def test_the_signed_root_proves_every_seal(log):
    log.fill(60)
    log.make_key()
    seals = log.seal(size=7)
    hashes = b"".join(one.hash for one in seals)
    for index, one in enumerate(seals):
        path = inclusion_path(hashes, index)
        assert root_from_path(one.hash, index=index, size=len(seals), path=path) == seals[-1].tree_root


def test_sixteen_sealers_at_once_make_one_chain(log):
    log.fill(300)
    log.make_key()
    signer = log.keys.active_signer(log.connection)

    def work():
        with log.connect() as connection:
            for _ in range(8):
                sealing.seal_once(connection, schema=log.schema, signer=signer, max_events=9, max_age=timedelta(0))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.seal(size=9)
    report = log.verify()
    assert report.ok, report.findings
    assert (report.events, report.unsealed, report.signed) == (log.head, 0, report.seals)


def test_a_sealer_that_is_killed_leaves_nothing_behind(log):
    log.fill(20)
    other = log.connect()
    other.execute("BEGIN")
    assert sealing.seal_once(other, schema=log.schema, max_age=timedelta(0)) is not None
    assert once(log, max_age=timedelta(0)) is None, "it does not wait for the other"
    log.connection.execute("SELECT pg_terminate_backend(%s, 60000)", (other.info.backend_pid,))
    other.close()
    assert len(log.seal()) == 1
    assert log.verify().ok


def test_a_hole_in_the_log_is_not_sealed_over(log):
    log.fill(20)
    log.alter("DELETE FROM events WHERE event_id = (SELECT event_id FROM event_positions WHERE position = 5)")
    with pytest.raises(StoreCorrupted, match="positions 1 to"):
        once(log, max_age=timedelta(0))


def test_without_a_key_seals_are_chained_but_not_signed(log):
    log.fill(20)
    (one,) = log.seal()
    assert (one.key_id, one.signature) == (None, None)
    report = log.verify()
    assert (report.ok, report.signed) == (True, 0)


def test_with_a_key_each_seal_is_signed_over_all_seals_so_far(log):
    key = log.make_key()
    log.fill(40)
    for one in log.seal(size=10):
        assert one.key_id == key.key_id
        assert signature_holds(key, one.checkpoint.text, one.signature)


def test_once_seals_are_signed_none_is_made_without_a_key(log, tmp_path):
    log.fill(20)
    log.seal(sign=False)
    log.make_key()
    log.fill(40)
    log.seal()
    log.fill(60)
    with pytest.raises(ConfigurationError, match="no key here can sign"):
        once(log, max_age=timedelta(0))
    elsewhere = KeyFolder(tmp_path / "another machine")
    assert elsewhere.active_signer(log.connection) is None
    assert log.verify().ok


def test_a_rotated_key_is_endorsed_by_the_one_before_and_only_the_new_one_signs(log):
    old = log.make_key()
    log.fill(20)
    log.seal()
    new = sealing.rotate_key(log.connection, schema=log.schema, folder=log.keys)
    log.fill(40)
    (one,) = log.seal()
    assert one.key_id == new.key_id != old.key_id
    assert [(listed.key, listed.replaced) for listed in listed_keys(log.connection)] == [(old, True), (new, False)]
    with pytest.raises(NotFound):
        log.keys.signer(old.key_id)
    report = log.verify(keys=[old])
    assert (report.ok, report.trusted_keys) == (True, 2)


def test_a_log_without_a_key_cannot_rotate_one(log):
    with pytest.raises(ConfigurationError, match="keys new"):
        sealing.rotate_key(log.connection, schema=log.schema, folder=log.keys)


def test_a_secret_is_for_its_owners_eyes_only(log, tmp_path):
    key = log.make_key()
    secret = tmp_path / "keys" / f"{key.key_id}.pem"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    secret.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        log.keys.signer(key.key_id)


def test_a_public_key_is_printed_as_the_tools_of_others_read_it(log, tmp_path):
    key = log.make_key()
    assert parse_verifier_key((tmp_path / "keys" / f"{key.key_id}.pub").read_text()) == key
    assert key.name.startswith("workledger/workledger/")
    assert key.verifier_key.startswith(f"{key.name}+{key.key_id}+A")


def test_a_log_keeps_its_name(log):
    key = log.make_key()
    log.fill(20)
    (one,) = log.seal()
    log.connection.execute("UPDATE log_head SET log_id = gen_random_uuid()")
    log.fill(40)
    (two,) = log.seal()
    assert key.name == one.origin == two.origin


def test_an_erased_payload_keeps_its_commitment_and_the_seal_holds(log):
    log.record(log.own_event(payload={"name": "Ada"}), log.own_event("subject.erased", entity_id="Ada"))
    log.fill(40)
    log.seal()
    ids = log.connection.execute("SELECT array_agg(event_id ORDER BY position) FROM event_positions").fetchone()[0]
    erase = "SELECT erase_event_payloads(%s, ARRAY['{\"erased\": true}'::jsonb], %s)"
    assert log.connection.execute(erase, (ids[:1], ids[1])).fetchone() == (1,)
    assert log.connection.execute(erase, (ids[:1], ids[1])).fetchone() == (0,)
    payload, salt = log.connection.execute("SELECT payload, salt FROM events WHERE event_id = %s", ids[:1]).fetchone()
    assert (payload, salt.int) == ({"erased": True}, 0)
    report = log.verify()
    assert (report.ok, report.erased) == (True, 1)
    assert log.verify(thorough=True).ok


def test_the_way_out_for_erasure_lets_nothing_else_be_changed(log):
    log.fill(20)
    with pytest.raises(RestrictViolation), log.connection.transaction():
        log.connection.execute("SELECT set_config('workledger.way_out', 'erase', true)")
        log.connection.execute("UPDATE events SET payload = '{}', severity = 'debug'")
    with pytest.raises(RestrictViolation), log.connection.transaction():
        log.connection.execute("SELECT set_config('workledger.way_out', 'erase', true)")
        log.connection.execute("DELETE FROM events")
    with pytest.raises(RestrictViolation):
        log.connection.execute("UPDATE events SET payload = '{}'")


def test_positions_can_be_forgotten_only_when_their_events_are_gone(log):
    log.fill(20)
    forget = "SELECT forget_positions(1, 10)"
    assert log.connection.execute(forget).fetchone() == (0,)
    with pytest.raises(RestrictViolation):
        log.connection.execute("DELETE FROM event_positions")
    (partition,) = log.connection.execute("SELECT DISTINCT tableoid::regclass::text FROM events").fetchone()
    log.connection.execute(f"ALTER TABLE events DETACH PARTITION {partition}")
    assert log.connection.execute(forget).fetchone() == (10,)
    with pytest.raises(RestrictViolation):
        log.connection.execute("DELETE FROM event_positions")


def test_the_digests_of_a_seal_are_of_its_events_alone(log):
    log.fill(30)
    one, two, *_ = log.seal(size=10)
    assert len(one.leaves) == len(two.leaves) == 10 * HASH_BYTES
    assert len({one.leaves[at : at + HASH_BYTES] for at in range(0, 320, HASH_BYTES)}) == 10
