"""Calls as data: what is recorded of an exception, and what making that must not do."""

import ast
import threading

from workledger.sdk.calls import failure_of


def deep(values):
    return values[0]["a"] + values[1]["b"]


def caught(call):
    try:
        call()
    except Exception as error:
        return error


def fail_while_failing():
    try:
        deep([{}, {}])
    except KeyError:
        raise ExceptionGroup("both", [caught(lambda: deep([])), ValueError("no")]) from caught(lambda: deep(3))


def test_a_failure_has_its_whole_chain_of_tracebacks():
    text = failure_of(caught(fail_while_failing)).error_traceback
    assert "TypeError: 'int' object is not subscriptable" in text
    assert "The above exception was the direct cause" in text
    assert "IndexError: list index out of range" in text
    assert text.count("in deep") == 2
    assert text.count('return values[0]["a"] + values[1]["b"]') == 2


def test_a_failure_is_told_without_parsing_the_program(monkeypatch):
    """In Python 3.11 a thread that parses breaks another that parses at the same time (gh-106905)."""
    parsed, here = [], threading.get_ident()
    monkeypatch.setattr(ast, "parse", lambda *given, **_: threading.get_ident() == here and parsed.append(given))
    assert "in deep" in failure_of(caught(fail_while_failing)).error_traceback
    assert parsed == []
