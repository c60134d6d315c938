"""A warm ledger, used by multiprocessing children made by fork: forking.py URL HOME"""

import multiprocessing
import sys
import threading
import warnings

import workledger

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork with threads
ledger = workledger.open(sys.argv[1], home=sys.argv[2])


def work(n):
    with ledger.start_workflow("child", workflow_id=f"c{n}") as run, run.task("t") as task:
        task.output = n
    return n


if __name__ == "__main__":
    with ledger.start_workflow("parent"):
        pass
    threading.Thread(target=ledger.workflows).start()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(work, range(8))
        pool.close()
        pool.join()
    print(sum(workflow.status == "completed" and workflow.name == "child" for workflow in ledger.workflows()))
    ledger.close()
