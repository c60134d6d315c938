"""The addresses of pages: what a filter, a workflow, a value is called in a URL."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlencode

from starlette.types import Scope

from workledger.server.views import Filters

__all__ = ["list_url", "path_parts", "sent_path", "sent_url", "value_url", "workflow_url"]

#: Browsers resolve these before they send them; such a workflow is addressed by its query instead.
_DOT_SEGMENTS = frozenset({".", ".."})


def list_url(filters: Filters, *, base: str = "/", **changes: str | None) -> str:
    """The list with these filters, some of them changed; None takes one away."""
    wanted = {name: value for name, value in {**filters.given(), **changes}.items() if value}
    return f"{base}?{urlencode(wanted)}" if wanted else base


def workflow_url(workflow_id: str, **query: str | int | None) -> str:
    """The page of a workflow, whatever characters its id has."""
    wanted = {name: str(value) for name, value in query.items() if value}
    if workflow_id in _DOT_SEGMENTS:
        wanted = {"id": workflow_id, **wanted}
        workflow_id = ""
    path = f"/workflows/{quote(workflow_id, safe='')}"
    return f"{path}?{urlencode(wanted)}" if wanted else path


def value_url(digest: str) -> str:
    """The page of a stored value."""
    return f"/values/{quote(digest, safe='')}"


def path_parts(scope: Scope, prefix: str) -> list[str]:
    """The parts of a path below a prefix, decoded one by one: a slash inside an id was sent as %2F and stays in it."""
    return [unquote(part) for part in sent_path(scope).removeprefix(prefix).split("/")]


def sent_path(scope: Scope) -> str:
    """The path of a request as it was sent, still encoded."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.split(b"?", 1)[0].decode("latin-1")


def sent_url(scope: Scope) -> str:
    """Path and query of a request as they were sent."""
    query = scope["query_string"].decode("latin-1")
    return f"{sent_path(scope)}?{query}" if query else sent_path(scope)
