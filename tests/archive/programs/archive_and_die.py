"""Archive, and be killed just after a step; once for each step that is asked for on the standard input.

A step is given by its number or its first words. Each archiver is a child of its own, because what takes long is to
import all of it. Prints the steps that were done, and how each child ended.

archive_and_die.py URL FOLDER
"""

import os
import signal
import sys
from itertools import count
from pathlib import Path

import workledger.flows.archive_state  # noqa: F401  so that no child has to
from archive.conftest import LATER, Old
from workledger.training.archive_files import FolderFiles


class Archiver(Old):
    """The same project, which is there already."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.files = url, folder, FolderFiles(folder)


def run(last: str) -> None:
    steps = count(1)

    def on_step(step, what):
        print(step, what, flush=True)
        if str(next(steps)) == last or f"{step} {what}".startswith(last):
            os.kill(os.getpid(), signal.SIGKILL)

    archiver = Archiver(sys.argv[1], Path(sys.argv[2]))
    report = archiver.archive(cutoff=LATER, file_events=15, batch=2, on_step=on_step)
    print("finished", sum(one.events for one in report.partitions), report.state.workflows, flush=True)


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            run(line.strip())
        except BaseException as error:
            print("failed", type(error).__name__, error, flush=True)
            os._exit(1)
        os._exit(0)
    print("child", child, flush=True)
    _, status = os.waitpid(child, 0)
    print("ended", os.waitstatus_to_exitcode(status), flush=True)
