"""The demo's tools: real work over the sources of Python's standard library, which every machine has."""

from __future__ import annotations

import ast
import fcntl
import json
import re
import sysconfig
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

__all__ = ["CatalogueBusy", "Library", "NoSource"]

_MAX_MATCHES: Final = 10
_parsing = threading.Lock()


class NoSource(LookupError):
    """The library has no Python source of that name."""


class CatalogueBusy(BlockingIOError):
    """Somebody else is writing the catalogue at the moment."""


class Library:
    """The standard library as an agent meets it: modules to read, a catalogue to consult, reports to write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sources = Path(sysconfig.get_path("stdlib"))
        self._turned_away = set[int]()
        folder.mkdir(parents=True, exist_ok=True)

    # -- the catalogue, which one process at a time may have ----------------------------------------------------

    @contextmanager
    def catalogue_lock(self) -> Generator[None]:
        """Have the catalogue to oneself; raises `CatalogueBusy` at once when somebody else has it."""
        with (self.folder / "catalogue.lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self._turned_away.add(threading.get_ident())
                raise CatalogueBusy("the catalogue is being written; try again in a moment") from error
            yield

    def wait_for_readers(self, number: int, *, timeout_s: float = 30.0) -> None:
        """Wait until so many threads were turned away: a real catalogue takes longer to write than ours."""
        deadline_s = time.monotonic() + timeout_s
        while len(self._turned_away) < number and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def list_modules(self) -> list[str]:
        """The top-level modules that have a source."""
        return sorted(path.stem for path in self._sources.glob("*.py") if not path.stem.startswith("_"))

    def measure(self, modules: list[str]) -> dict[str, int]:
        """How many functions each of these modules defines; parses every one of them."""
        return {module: len(_functions(self._parse(module))) for module in modules}

    def write_catalogue(self, measured: dict[str, int]) -> str:
        """Write the catalogue; returns where."""
        path = self.folder / "catalogue.json"
        path.write_text(json.dumps(measured, indent=1), "utf-8")
        return str(path)

    def consult_catalogue(self, module: str) -> dict[str, Any]:
        """What the catalogue says about a module."""
        with self.catalogue_lock():
            measured = cast("dict[str, int]", json.loads((self.folder / "catalogue.json").read_text("utf-8")))
        rank = sorted(measured, key=lambda name: measured[name], reverse=True)
        if module not in measured:
            return {"module": module, "listed": False}
        return {"module": module, "listed": True, "functions": measured[module], "rank": rank.index(module) + 1}

    # -- reading ------------------------------------------------------------------------------------------------

    def outline(self, module: str) -> dict[str, Any]:
        """The size of a module: its lines, classes, functions, and the modules it imports."""
        tree, text = self._parse(module), self._text(module)
        imports = {name.split(".")[0] for node in ast.walk(tree) for name in _imported(node)}
        return {
            "module": module,
            "lines": len(text.splitlines()),
            "classes": [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)],
            "functions": len(_functions(tree)),
            "imports": sorted(imports - {""}),
        }

    def longest_functions(self, module: str, top: int = 3) -> list[dict[str, Any]]:
        """The longest functions of a module, by their lines."""
        sizes = [
            {"name": node.name, "line": node.lineno, "lines": (node.end_lineno or node.lineno) - node.lineno + 1}
            for node in _functions(self._parse(module))
        ]
        return sorted(sizes, key=lambda size: (-cast("int", size["lines"]), size["line"]))[:top]

    def grep(self, pattern: str, module: str) -> list[str]:
        """The lines of a module that match a regular expression, with their numbers."""
        lines = self._text(module).splitlines()
        matches = [f"{n}: {line.strip()}" for n, line in enumerate(lines, start=1) if re.search(pattern, line)]
        return matches[:_MAX_MATCHES]

    def recount(self, module: str) -> int:
        """Count the functions of a module in another way than the parser does: by the words that begin them."""
        return len(re.findall(r"^[ \t]*(?:async[ \t]+)?def[ \t]+\w+", self._text(module), flags=re.MULTILINE))

    def write_report(self, module: str, text: str) -> str:
        """Write a report; returns where."""
        path = self.folder / f"report-{module}.md"
        path.write_text(text, "utf-8")
        return str(path)

    def tools(self) -> dict[str, Callable[..., Any]]:
        """What an agent may call, by name."""
        return {
            "consult_catalogue": self.consult_catalogue,
            "outline": self.outline,
            "longest_functions": self.longest_functions,
            "grep": self.grep,
            "write_report": self.write_report,
        }

    def _text(self, module: str) -> str:
        path = self._sources / f"{module.replace('.', '/')}.py"
        package = self._sources / module.replace(".", "/") / "__init__.py"
        found = next((place for place in (path, package) if place.is_file()), None)
        if found is None:
            raise NoSource(f"there is no Python source of a module {module!r} in the library")
        return found.read_text("utf-8", "replace")

    def _parse(self, module: str) -> ast.Module:
        # Python 3.11 counts the depth of all threads' trees in one place: when a garbage collection lets another thread
        # in between, both fail with a SystemError.
        with _parsing:
            return ast.parse(self._text(module))


def _functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
