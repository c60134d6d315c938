"""Sequence, publish, land and compact until killed.

carry.py URL HOME SYNAPSE_URL TRAINING_URL LARGEST_FILE_BYTES
"""

import logging
import resource
import sys
import threading
from pathlib import Path

from workledger.assembly import make_loops, open_ledger
from workledger.errors import Unavailable
from workledger.flows import synapse_to_training, up
from workledger.settings import Settings
from workledger.training import bucket

# What is away for a moment is waited for in moments.
synapse_to_training._STANDBY_S, synapse_to_training._MAX_BACKOFF_S = 0.1, 0.5
up._FIRST_PAUSE_S, up._MAX_PAUSE_S = 0.05, 0.5
bucket._TIMEOUTS["timeout"] = bucket._TIMEOUTS["timeout"].__class__(seconds=2)

url, home, synapse_url, training_url, largest = *sys.argv[1:5], int(sys.argv[5])
if largest:
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (largest, largest)
    )  # as on a disk that is full: writing ends in the middle
logging.getLogger("workledger").addHandler(logging.NullHandler())
settings = Settings(
    database_url=url,
    home=Path(home),
    synapse_url=synapse_url,
    training_url=training_url,
    metrics_url="",
    dashboard_url="",
    flush_s=0.05,
    shard_rows=500,
    maintain_s=0.5,
)
while True:
    try:
        ledger = open_ledger(settings)
        break
    except Unavailable:  # PostgreSQL is away
        threading.Event().wait(0.1)
with ledger:
    loops = make_loops(settings, ledger)
    with up.Supervisor([loop for loop in loops if loop.name in {"sequencer", "synapse", "training", "maintenance"}]):
        print("carrying", flush=True)
        threading.Event().wait()
