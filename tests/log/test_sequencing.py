"""Positions are dense, each event has one, and nobody's waiting makes others wait.

The experiments that showed what does not work (identity columns, transaction horizons, gap time-outs) are here as
tests of what does.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from log.writer import acknowledged
from support import changes
from support.postgres import debian_postgres, fresh_database
from workledger.flows.seal import verify_seals
from workledger.flows.verify import check_log
from workledger.log import reader
from workledger.log.sequencer import channel, sequence, sequence_batch
from workledger.model.ids import new_id
from workledger.postgres._install import server_account
from workledger.postgres.connection import connect
from workledger.postgres.migrate import migrate

HERE = Path(__file__).parent


def check_dense(log) -> None:
    """Positions are 1 to the head, each with one event, and each event has one."""
    with log.connect() as connection, connection.transaction():
        check = check_log(connection)
    assert check.ok, check.faults
    assert check.counts["not sequenced yet"] == 0
    assert check.counts["events"] == check.counts["positions"] == check.counts["head"]


def in_threads(count, work) -> None:
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- who waits for whom -----------------------------------------------------------------------------------------


def insert(connection, entity_id: str) -> None:
    """Record an event in the transaction at hand, by hand."""
    connection.execute(
        "WITH e AS (INSERT INTO events (event_id, event_type, entity_type, entity_id)"
        " VALUES (%s, 'e', 't', %s) RETURNING event_id) INSERT INTO event_inbox (event_id) SELECT event_id FROM e",
        (new_id(), entity_id),
    )


def order(log) -> list[str]:
    return [event.entity_id for event in reader.read(log.connection, after=0)]


def test_a_stuck_writer_delays_its_own_events_and_nobody_elses(any_log):
    with any_log.connect() as stuck:
        stuck.execute("BEGIN")
        insert(stuck, "stuck")
        insert(any_log.connection, "after")
        assert any_log.sequence() == 1
        assert order(any_log) == ["after"]
        stuck.execute("COMMIT")
    assert any_log.sequence() == 1
    assert order(any_log) == ["after", "stuck"]
    check_dense(any_log)


def test_a_reader_by_identity_loses_what_a_reader_by_position_finds(any_log):
    with any_log.connect() as slow:
        slow.execute("BEGIN")
        insert(slow, "slow")
        insert(any_log.connection, "fast")
        visible = "SELECT seq FROM event_inbox WHERE seq > %s ORDER BY seq"
        ((identity,),) = any_log.connection.execute(visible, (0,)).fetchall()
        any_log.sequence()
        (found,) = reader.read(any_log.connection, after=0)
        slow.execute("COMMIT")
    # The slow event came later, with a lower number: whoever reads by that number has read past it.
    assert any_log.connection.execute(visible, (identity,)).fetchall() == []
    any_log.sequence()
    assert [event.entity_id for event in reader.read(any_log.connection, after=found.position)] == ["slow"]


def test_a_writer_that_rolls_back_leaves_no_gap(log):
    for n in range(6):
        with log.connect() as connection:
            connection.execute("BEGIN")
            insert(connection, f"e{n}")
            connection.execute("ROLLBACK" if n % 2 else "COMMIT")
    log.sequence()
    assert order(log) == ["e0", "e2", "e4"]
    check_dense(log)


def test_a_writer_in_another_database_of_the_cluster_delays_nothing(any_log, postgres15_url, postgres18_url):
    server = postgres15_url if any_log.connection.info.server_version < 160000 else postgres18_url
    with psycopg.connect(server) as other:
        other.execute("CREATE TEMPORARY TABLE busy (n integer)")
        other.execute("INSERT INTO busy VALUES (1)")
        assert other.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() != (None,)
        insert(any_log.connection, "here")
        assert any_log.sequence() == 1


def test_somebody_who_locks_a_row_of_the_state_delays_nothing(log):
    log.record(*changes.whole_workflow())
    with log.connect() as busy:
        busy.execute("BEGIN")
        busy.execute("SELECT * FROM workflows FOR UPDATE")
        assert log.sequence() == 6


@pytest.fixture(scope="session")
def preparing_url(servers_dir):
    """A PostgreSQL 15 that allows prepared transactions."""
    directory = servers_dir / "preparing15"
    with debian_postgres(directory, major=15) as url:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET max_prepared_transactions = 10")
        account = server_account(directory / "cluster")
        command = ["/usr/lib/postgresql/15/bin/pg_ctl", "restart", "-w", "-D", directory / "cluster"]
        command += ["-l", directory / "cluster" / "server.log"]
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        subprocess.run(command, check=True, cwd="/", env=environment, **quiet, **account.as_subprocess_options())
        yield url


def test_a_prepared_transaction_delays_its_own_events_and_nobody_elses(preparing_url, tmp_path):
    with fresh_database(preparing_url) as url, connect(url) as connection, connect(url) as other:
        migrate(connection, schema="workledger")
        other.execute("BEGIN")
        insert(other, "prepared")
        other.execute("PREPARE TRANSACTION 'forgotten'")
        try:
            insert(connection, "after")
            assert sequence(connection, schema="workledger") == 1
            assert [event.entity_id for event in reader.read(connection, after=0)] == ["after"]
            connection.execute("COMMIT PREPARED 'forgotten'")
        except BaseException:
            connection.execute("ROLLBACK PREPARED 'forgotten'")
            raise
        assert sequence(connection, schema="workledger") == 1
        assert [event.entity_id for event in reader.read(connection, after=0)] == ["after", "prepared"]


# -- many at once -----------------------------------------------------------------------------------------------


def test_sixteen_sequencers_at_once_give_each_event_one_position(any_log):
    for _ in range(30):
        any_log.record(*changes.whole_workflow())
    given = []

    def work(_):
        with any_log.connect() as connection:
            while placed := sequence_batch(connection, schema=any_log.schema, limit=7):
                given.append(placed)

    in_threads(16, work)
    assert sum(given) == any_log.head == 180
    check_dense(any_log)


def test_messages_of_a_conversation_stand_in_the_log_in_their_own_order(log):
    conversations = [new_id() for _ in range(3)]
    log.record(*[changes.make("start_conversation", conversation_id=one) for one in conversations])
    stop = threading.Event()

    def write(n):
        with log.connect() as connection:
            from workledger.operational.apply import apply_one

            for k in range(40):
                message = {"role": "user", "content": f"{n}/{k}"}
                conversation = conversations[(n + k) % 3]
                apply_one(
                    connection,
                    changes.make("add_message", message_id=new_id(), conversation_id=conversation, message=message),
                )

    def keep_sequencing():
        with log.connect() as connection:
            while not stop.is_set():
                sequence_batch(connection, schema=log.schema, limit=5)

    sequencer = threading.Thread(target=keep_sequencing)
    sequencer.start()
    in_threads(8, write)
    stop.set()
    sequencer.join()
    log.sequence()
    seqs: dict[str, list[int]] = {}
    for event in reader.iterate(log.connection):
        if event.event_type == "message.added":
            seqs.setdefault(event.entity_id, []).append(event.payload["seq"])
    assert {one: list(range(1, len(found) + 1)) for one, found in seqs.items()} == seqs
    assert sum(map(len, seqs.values())) == 320
    check_dense(log)


def test_one_notification_tells_of_a_whole_batch(log):
    with log.connect() as listening:
        listening.execute(f"LISTEN {channel(log.schema)}")
        for _ in range(50):
            log.record(log.own_event())
        log.sequence()
        told = [int(one.payload) for one in listening.notifies(timeout=60, stop_after=1)]
        told += [int(one.payload) for one in listening.notifies(timeout=0.2)]
    assert told == [50]


# -- moved elsewhere --------------------------------------------------------------------------------------------


def restore(source: str, target: str) -> None:
    """`pg_dump | psql`, from one server to another."""
    programs = Path("/usr/lib/postgresql/15/bin")
    dump = subprocess.Popen([programs / "pg_dump", "--no-owner", source], stdout=subprocess.PIPE)
    command = [programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-X", target]
    done = subprocess.run(command, stdin=dump.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    dump.stdout.close()
    assert dump.wait() == 0
    assert done.returncode == 0, done.stderr


def test_a_log_restored_into_a_younger_cluster_keeps_its_positions_and_its_seals(log15, database_url):
    key = log15.make_key()
    log15.fill(60)
    log15.seal(size=7)
    log15.record(log15.own_event())
    restore(log15.url, database_url)
    with connect(database_url) as restored:
        assert positions(restored) == positions(log15.connection)
        assert reader.head(restored) == (log15.head, 1)
        report = verify_seals(restored, keys=[key])
        assert (report.ok, report.events) == (True, log15.head)
        insert(restored, "later")
        assert sequence(restored, schema="workledger") == 2
        assert [event.entity_id for event in reader.read(restored, after=log15.head)] == ["c1", "later"]
        assert verify_seals(restored, thorough=True).ok


def positions(connection) -> list:
    return connection.execute("SELECT position, event_id FROM event_positions ORDER BY position").fetchall()


# -- killed -----------------------------------------------------------------------------------------------------

_SEQUENCE = """
import sys, time
from workledger.log.sequencer import sequence_batch
from workledger.postgres.connection import connect
with connect(sys.argv[1]) as connection:
    print("ready", flush=True)
    while True:
        if not sequence_batch(connection, schema="workledger", limit=int(sys.argv[2])):
            time.sleep(0.005)
"""


def start_sequencer(url: str, *, limit: int) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", _SEQUENCE, url, str(limit)], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def test_a_sequencer_killed_between_any_two_statements_leaves_a_whole_log(log):
    for _ in range(60):
        log.record(*changes.whole_workflow())
    chance = random.Random(1)
    for _ in range(6):
        process = start_sequencer(log.url, limit=3)
        time.sleep(chance.random() * 0.03)
        kill(process)
    assert sum(reader.head(log.connection)) == 360
    log.sequence()
    check_dense(log)


@pytest.mark.parametrize("statement", ["lock_head", "sequence", "notify"])
def test_a_sequencer_that_dies_after_a_statement_has_done_nothing(log, statement):
    """The connection is cut, from the server's side, when the statement has run and the transaction is open."""
    from workledger.postgres.statements import load

    log.record(log.own_event(), log.own_event())
    parameters = {"lock_head": (), "sequence": (10,), "notify": (channel(log.schema), "1")}
    dying = log.connect()
    dying.execute("BEGIN")
    for name, values in parameters.items():
        with psycopg.RawCursor(dying) as cursor:
            cursor.execute(load("workledger.log", name), values)
        if name == statement:
            break
    log.connection.execute("SELECT pg_terminate_backend(%s, 60000)", (dying.info.backend_pid,))
    dying.close()
    assert reader.head(log.connection) == (0, 2)
    assert log.sequence() == 2
    check_dense(log)


class Swarm:
    """Writers and sequencers as processes that are killed at random, until everything is written.

    The kills are spread over what is written and not over time, so that a fast machine sees as many of them.
    """

    def __init__(self, log, folder: Path, *, writers: int, events: int, sequencers: int, seed: int) -> None:
        self.log = log
        self.folder = folder
        self.events = events
        self.chance = random.Random(seed)
        self.names = [f"writer-{n}" for n in range(writers)]
        self.sequencers = sequencers
        self.kills = 0
        self.running: dict[str, subprocess.Popen] = {}

    def command(self, name: str) -> list:
        if name.startswith("sequencer"):
            return [sys.executable, "-c", _SEQUENCE, self.log.url, "500"]
        return [sys.executable, HERE / "writer.py", self.log.url, name, str(self.events), self.folder / name]

    def start(self, name: str) -> None:
        self.running[name] = subprocess.Popen(self.command(name), stdout=subprocess.DEVNULL)

    def written(self) -> int:
        """How many events are known to be committed."""
        return sum(acknowledged(self.folder / name) for name in self.names)

    def run(self, *, kill_every: int) -> None:
        """Run until all is written, with a kill for each `kill_every` events or so."""
        for name in [*self.names, *(f"sequencer-{n}" for n in range(self.sequencers))]:
            self.start(name)
        next_kill = kill_every
        while any(name in self.running for name in self.names):
            time.sleep(0.005)
            for name, process in list(self.running.items()):
                if process.poll() is not None:
                    assert process.returncode == 0, f"{name} ended with {process.returncode}"
                    del self.running[name]
            if (written := self.written()) >= next_kill and self.running:
                self.kill_one()
                next_kill = written + int(kill_every * self.chance.random() * 2)
        for process in self.running.values():
            kill(process)

    def kill_one(self) -> None:
        name = self.chance.choice(sorted(self.running))
        kill(self.running.pop(name))
        self.kills += 1
        self.start(name)

    def check(self) -> None:
        """Every acknowledged event is in the log once, in its writer's own order, and positions are dense."""
        self.log.sequence()
        check_dense(self.log)
        rows = self.log.connection.execute(
            "SELECT entity_id, count(*), count(DISTINCT n), min(n), max(n), bool_and(coalesce(n > before, true)) FROM"
            " (SELECT e.entity_id, (e.payload ->> 'n')::bigint AS n, lag((e.payload ->> 'n')::bigint)"
            "  OVER (PARTITION BY e.entity_id ORDER BY p.position) AS before"
            "  FROM event_positions p JOIN events e USING (event_id)) AS x GROUP BY entity_id ORDER BY entity_id"
        ).fetchall()
        assert rows == [(name, self.events, self.events, 0, self.events - 1, True) for name in sorted(self.names)]
        self.log.seal()
        assert self.log.verify().ok


def test_writers_and_sequencers_killed_at_random_lose_nothing_and_repeat_nothing(log, tmp_path):
    swarm = Swarm(log, tmp_path, writers=4, events=1200, sequencers=2, seed=4)
    swarm.run(kill_every=400)
    swarm.check()
    assert swarm.kills >= 3


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_sixteen_writers_of_a_hundred_thousand_events_killed_at_random(log, tmp_path):
    swarm = Swarm(log, tmp_path, writers=16, events=100_000, sequencers=3, seed=16)
    swarm.run(kill_every=10_000)
    swarm.check()
    assert swarm.kills > 50
