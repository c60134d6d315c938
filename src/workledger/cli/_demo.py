"""The demo's work: an index is made of the standard library, and agents study modules while that goes on.

Nothing here is staged but the questions. The catalogue is locked while it is written, so the agents' first look at it
fails and is retried; one agent asks for a module that is not there and finds another way; one is asked about a module
that has no Python source, and fails.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from workledger.cli._demo_tools import CatalogueBusy, Library, NoSource

if TYPE_CHECKING:
    from workledger.sdk.ledger import Ledger
    from workledger.sdk.run import WorkflowRun

__all__ = ["QUESTIONS", "record"]

_SYSTEM: Final = (
    "You study the sources of Python's standard library with your tools. Look things up, never guess; when a tool "
    "fails, say why and find another way. Write a short report, and check your numbers."
)
#: The catalogue is written in the end, however slow the machine is.
_TRIES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What an agent is asked: about `module`, of which the asker gives the name `asked_as`."""

    module: str
    asked_as: str
    subject: str
    pattern: str


QUESTIONS: Final = (
    Question(module="textwrap", asked_as="textwrap", subject="ada", pattern=r"\bre\.compile"),
    # The name that people remember from another language: the agent has to find the real one.
    Question(module="json.decoder", asked_as="json.parser", subject="grace", pattern=r"raise JSONDecodeError"),
    Question(module="heapq", asked_as="heapq", subject="ada", pattern=r"^def _"),
    # Compiled into the interpreter: there is nothing to read, and the workflow fails.
    Question(module="sys", asked_as="sys", subject="linus", pattern=r"."),
)
_OTHER_NAMES: Final = {"json.parser": "json.decoder"}


def record(ledger: Ledger, library: Library, *, run_id: str) -> list[str]:
    """Do the work and record it; returns the ids of the workflows, the index first."""
    index_id = f"index-library-{run_id}"
    locked = threading.Event()
    with ThreadPoolExecutor(max_workers=len(QUESTIONS) + 1) as pool:
        index = pool.submit(_index, ledger, library, index_id, locked)
        index.add_done_callback(lambda _: locked.set())  # if only because it failed
        locked.wait()
        studies = {f"study-{question.module}-{run_id}": question for question in QUESTIONS}
        pending = [pool.submit(_study, ledger, library, *study) for study in studies.items()]
        index.result()
        for study in pending:
            with suppress(NoSource):  # recorded as what it is: a failed workflow
                study.result()
    return [index_id, *studies]


# -- a batch job ------------------------------------------------------------------------------------------------


def _index(ledger: Ledger, library: Library, workflow_id: str, locked: threading.Event) -> None:
    with ledger.start_workflow("index-library", workflow_id=workflow_id, workflow_type="batch", total_steps=3) as run:
        with run.task("list modules") as task:
            task.output = modules = library.list_modules()
        with library.catalogue_lock():
            locked.set()
            with run.task("parse", input={"modules": len(modules)}) as task:
                task.output = measured = library.measure(modules)
                library.wait_for_readers(len(QUESTIONS))
            with run.task("write catalogue") as task:
                task.output = library.write_catalogue(measured)
        run.event("catalogue.written", {"modules": len(measured), "functions": sum(measured.values())})
        run.output = {"modules": len(measured)}


# -- an agent ---------------------------------------------------------------------------------------------------


def _study(ledger: Ledger, library: Library, workflow_id: str, question: Question) -> None:
    text = (
        f"How large is the module {question.asked_as}, what are its longest functions, "
        f"and where does it match /{question.pattern}/?"
    )
    with ledger.start_workflow(
        "study-library",
        workflow_id=workflow_id,
        workflow_type="agent",
        input={"question": text, "module": question.asked_as},
        subject=question.subject,
        tags=["demo"],
    ) as run:
        run.set_tools([_definition(name, function) for name, function in library.tools().items()])
        run.message("system", _SYSTEM)
        run.message("user", text)
        with run.task("plan", input=text) as task:
            task.output = plan = list(library.tools())
        run.message("assistant", f"I shall use, in this order: {', '.join(plan)}. Then I count again to check.")
        with run.agent("librarian", input=text) as agent:
            agent.output = answer = _Librarian(ledger, library, run).answer(question)
        run.message("assistant", answer["report"])
        run.output = answer
        _judge(library, run, answer)


class _Librarian:
    """Answers one question: what to do next is decided by what the tools have said."""

    def __init__(self, ledger: Ledger, library: Library, run: WorkflowRun) -> None:
        self._run = run
        self._calls = 0
        options: dict[str, Any] = {"retries": _TRIES, "backoff_s": 0.2, "max_backoff_s": 0.5, "retry_on": CatalogueBusy}
        self._tools: dict[str, Callable[..., Any]] = {
            name: ledger.tool(**(options if name == "consult_catalogue" else {}))(_as_function(name, function))
            for name, function in library.tools().items()
        }

    def answer(self, question: Question) -> dict[str, Any]:
        """Look, think again where that fails, and report."""
        module = question.asked_as
        self._call("consult_catalogue", module=module)
        try:
            outline = self._call("outline", module=module)
        except NoSource:
            if module not in _OTHER_NAMES:
                raise
            module = _OTHER_NAMES[module]
            self._run.message(
                "assistant", f"There is no {question.asked_as}. What it does is in {module}; I look there."
            )
            outline = self._call("outline", module=module)
        longest = self._call("longest_functions", module=module, top=3)
        matches = self._call("grep", pattern=question.pattern, module=module)
        report = _report(module, outline, longest, matches)
        path = self._call("write_report", module=module, text=report)
        return {"module": module, "functions": outline["functions"], "report": report, "written_to": path}

    def _call(self, name: str, **arguments: Any) -> Any:
        """Call a tool as a model would: ask for it in a message, run it, and put what it says into the next one."""
        self._calls += 1
        call_id = f"call_{self._calls}"
        function = {"name": name, "arguments": json.dumps(arguments)}
        calls = [{"id": call_id, "type": "function", "function": function}]
        self._run.message({"role": "assistant", "content": None, "tool_calls": calls})
        answer: dict[str, Any] = {"role": "tool", "tool_call_id": call_id, "name": name}
        try:
            result = self._tools[name](**arguments)
        except Exception as error:
            self._run.message({**answer, "content": f"error: {error}"})
            raise
        self._run.message({**answer, "content": json.dumps(result)})
        return result


def _report(module: str, outline: dict[str, Any], longest: list[dict[str, Any]], matches: list[str]) -> str:
    imports = ", ".join(outline["imports"]) or "nothing"
    lines = [
        f"# {module}",
        "",
        f"{outline['lines']} lines, {outline['functions']} functions, {len(outline['classes'])} classes.",
        f"Imports {imports}.",
        "",
        "Longest functions: " + ", ".join(f"{one['name']} ({one['lines']} lines)" for one in longest) + ".",
        "",
        f"{len(matches)} matches" + (f", the first: `{matches[0]}`" if matches else "") + ".",
    ]
    return "\n".join(lines)


def _judge(library: Library, run: WorkflowRun, answer: dict[str, Any]) -> None:
    """Check the answer by counting again in another way, and say what came of it."""
    with run.task("recount", input={"module": answer["module"]}) as task:
        task.output = counted = library.recount(answer["module"])
    agrees = counted == answer["functions"]
    comment = f"the parser counts {answer['functions']} functions, the text {counted}"
    run.feedback(
        "recount", score=float(agrees), label="agrees" if agrees else "differs", comment=comment, source="demo"
    )


def _as_function(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def tool(**arguments: Any) -> Any:
        return method(**arguments)

    tool.__name__ = tool.__qualname__ = name
    tool.__doc__ = method.__doc__
    return tool


def _definition(name: str, method: Callable[..., Any]) -> dict[str, Any]:
    """A tool as chat models are told of it."""
    kinds = {"str": "string", "int": "integer"}
    parameters = {
        parameter: {"type": kinds.get(str(annotation), "string")}
        for parameter, annotation in method.__annotations__.items()
        if parameter != "return"
    }
    schema = {"type": "object", "properties": parameters, "required": [name for name in parameters if name != "top"]}
    return {"type": "function", "function": {"name": name, "description": method.__doc__, "parameters": schema}}
