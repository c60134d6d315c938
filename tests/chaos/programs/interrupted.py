"""Main thread and helpers record while Ctrl-C comes again and again; prints how many changes were acknowledged.

interrupted.py URL HOME ROUNDS
"""

import faulthandler
import logging
import os
import random
import signal
import sys
import threading
import time

import workledger
from support.changes import start

faulthandler.dump_traceback_later(180, exit=True)
url, home, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # it warns of rollbacks that are interrupted
acknowledged = []
stop = threading.Event()


def record_one(ledger, name):
    change = start(workflow_id=name)
    ledger.record(change)
    acknowledged.append(change.workflow_id)


def record_many(ledger, prefix):
    n = 0
    while not stop.is_set():
        record_one(ledger, f"{prefix}-{n}")
        n += 1


def interrupt_soon(ready, interrupted):
    """Send Ctrl-C; once more where nothing comes of it: what strikes in a finalizer is only printed."""
    ready.wait()
    time.sleep(random.random() * 0.01)
    os.kill(os.getpid(), signal.SIGINT)
    while not interrupted.wait(20):
        os.kill(os.getpid(), signal.SIGINT)


with workledger.open(url, home=home) as ledger:
    helpers = [threading.Thread(target=record_many, args=(ledger, f"h{n}")) for n in range(6)]
    for helper in helpers:
        helper.start()
    for round_ in range(rounds):
        ready, interrupted = threading.Event(), threading.Event()
        threading.Thread(target=interrupt_soon, args=(ready, interrupted)).start()
        n = 0
        try:
            ready.set()
            while True:
                record_one(ledger, f"m{round_}-{n}")
                n += 1
        except KeyboardInterrupt:
            interrupted.set()
    stop.set()
    for helper in helpers:
        helper.join(60)
        assert not helper.is_alive(), "a caller never got its answer"
    with ledger.pool.connection() as connection:
        there = {row[0] for row in connection.execute("SELECT workflow_id FROM workflows")}
    missing = set(acknowledged) - there
    assert not missing, f"acknowledged and lost: {missing}"
    print(len(acknowledged))
