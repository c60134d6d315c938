"""Record workflows from several threads until told to stop, and write down what was acknowledged, at once.

load.py URL HOME JOURNAL THREADS DURABILITY TIMEOUT_S

JOURNAL-n has two lines for each change of thread n: `+ event_id workflow_id` before it is recorded, and
`= event_id workflow_id` once it is acknowledged: `record` returned, or, where it is buffered, a `flush` after it.
The file JOURNAL.stop ends it; then what is spooled is given time to be replayed.
"""

import sys
import threading
import time
from pathlib import Path

import workledger
from support.changes import whole_workflow

url, home, journal, threads, durability = *sys.argv[1:4], int(sys.argv[4]), sys.argv[5]
timeout_s = float(sys.argv[6])
stop = Path(f"{journal}.stop")


def record_workflows(ledger, n):
    with Path(f"{journal}-{n}").open("a", buffering=1) as written:
        while not stop.exists():
            changes = [change for _ in range(1 if durability == "commit" else 5) for change in whole_workflow(tasks=2)]
            for change in changes:
                written.write(f"+ {change.event_id} {change.workflow_id}\n")
                ledger.record(change)
                if durability == "commit":
                    written.write(f"= {change.event_id} {change.workflow_id}\n")
            if durability == "buffered":
                ledger.flush()
                written.writelines(f"= {change.event_id} {change.workflow_id}\n" for change in changes)


def wait_for_spool(spool):
    deadline = time.monotonic() + 90
    while spool.waiting() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not spool.waiting(), f"{spool.waiting()} changes still wait"


with workledger.open(url, home=home, durability=durability, record_timeout_s=timeout_s) as ledger:
    workers = [threading.Thread(target=record_workflows, args=(ledger, n)) for n in range(threads)]
    for worker in workers:
        worker.start()
    print("recording", flush=True)
    for worker in workers:
        worker.join()
    ledger.flush()
    wait_for_spool(ledger._scribe._spool)
    assert ledger.tally.refused == 0, f"{ledger.tally.refused} refused"
    print(f"spooled {ledger.tally.spooled}")
