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


def say(*words: object) -> None:
    """Print a line in one piece: parent and child write to the same pipe."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def run(last: str) -> None:
    steps = count(1)

    def on_step(step, what):
        say(step, what)
        if str(next(steps)) == last or f"{step} {what}".startswith(last):
            os.kill(os.getpid(), signal.SIGKILL)

    archiver = Archiver(sys.argv[1], Path(sys.argv[2]))
    report = archiver.archive(cutoff=LATER, file_events=15, batch=2, on_step=on_step)
    say("finished", sum(one.events for one in report.partitions), report.state.workflows)


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            run(line.strip())
        except BaseException as error:
            say("failed", type(error).__name__, error)
            os._exit(1)
        os._exit(0)
    say("child", child)
    _, status = os.waitpid(child, 0)
    say("ended", os.waitstatus_to_exitcode(status))
