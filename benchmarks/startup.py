"""What a person waits for: `import workledger`, `workledger ps` on an idle store, the import of a file of real runs.

python benchmarks/startup.py [--file trajectories.jsonl]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import database, report

DEFAULT = Path(__file__).parents[2] / "shared/data/tau-airline/gpt-4o.jsonl"


def seconds(*command: str, cwd: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *command], check=True, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = []
    with database() as url, tempfile.TemporaryDirectory() as home:
        cli = ("-m", "workledger", "--database-url", url, "--home", home)
        seconds(*cli, "migrate", cwd=home)

        def median(*command: str) -> float:
            return statistics.median(seconds(*command, cwd=home) for _ in range(options.rounds))

        bare = median("-c", "pass")
        rows.append(
            ("import workledger", f"{(median('-c', 'import workledger') - bare) * 1000:.0f} ms", "under 150 ms")
        )
        rows.append(("workledger ps, idle store", f"{median(*cli, 'ps'):.2f} s", "under 0.5 s, interpreter included"))
        if options.file.exists():
            taken = seconds(*cli, "import", "tau-bench", str(options.file), cwd=home)
            rows.append((f"import of {options.file.name}", f"{taken:.1f} s", "under 10 s"))
        else:
            rows.append(("import of τ-bench runs", "skipped", f"{options.file} is not there"))
    report("Start-up", rows)


if __name__ == "__main__":
    main()
