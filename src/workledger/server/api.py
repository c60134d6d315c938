"""`/api/v1`: the view models as JSON."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from workledger.errors import InvalidInput, NotFound
from workledger.model.ids import check_id
from workledger.model.jsonvalue import escape_text
from workledger.model.status import Status
from workledger.server.reading import After, Reader
from workledger.server.urls import path_parts
from workledger.server.views import EventPage, Filters, Health, WorkflowDetail, WorkflowList, to_json

__all__ = ["after_from", "error", "filters_from", "router", "workflow_id_from"]

_PREFIX = "/api/v1/workflows/"
_MAX_PAGE = 1000


def filters_from(
    *,
    status: str = "",
    q: str = "",
    name: str = "",
    type: str = "",  # noqa: A002  the query's word
    tag: str = "",
    subject: str = "",
) -> Filters:
    """The filters of a URL; an empty one is none."""
    if status and status not in set(Status):
        raise InvalidInput(
            f"status {status!r} is none of {', '.join(Status)}", field="status", value=status, limit=list(Status)
        )
    given = {"status": status, "q": q.strip(), "name": name, "type": type, "tag": tag, "subject": subject}
    return Filters(**{key: value or None for key, value in given.items()})


def after_from(*, executions_after: str = "", messages_after: int = 0, events_after: str = "") -> After:
    """Where the pages of one workflow begin."""
    return After(execution=executions_after or None, message=messages_after, event=_event_id(events_after))


def workflow_id_from(parts: list[str]) -> str:
    """The workflow of a path; an id that no workflow can have is not found."""
    try:
        return check_id("workflow_id", parts[0])
    except InvalidInput as error:
        raise NotFound(str(error), entity_type="workflow", entity_id=parts[0]) from error


def router(reader: Reader) -> APIRouter:
    """The routes of the API."""
    routes = APIRouter(prefix="/api/v1", default_response_class=Response)

    @routes.get("/workflows", responses=_describes(WorkflowList))
    def workflows(
        filters: Annotated[Filters, Depends(filters_from)],
        older: str | None = None,
        newer: str | None = None,
        limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 50,
    ) -> Response:
        return _json(reader.workflows(filters, older=older, newer=newer, limit=limit))

    # One route for both, told apart by the path as it was sent: an id may have slashes in it.
    @routes.get("/workflows/{workflow_id:path}/events", responses=_describes(EventPage))
    @routes.get("/workflows/{workflow_id:path}", responses=_describes(WorkflowDetail))
    def workflow(
        request: Request,
        workflow_id: str,  # noqa: ARG001  for the documentation; see above
        pages: Annotated[After, Depends(after_from)],
        after: str = "",
        limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 200,
    ) -> Response:
        parts = path_parts(request.scope, _PREFIX)
        if len(parts) == 1:
            return _json(reader.workflow(workflow_id_from(parts), pages))
        if parts[1:] == ["events"]:
            return _json(reader.events(workflow_id_from(parts), After(event=_event_id(after), events=limit)))
        raise NotFound(f"there is nothing at {request.url.path}", entity_type="page", entity_id=request.url.path)

    @routes.get("/values/{digest}")
    def value(digest: str) -> Response:
        return Response(reader.value(digest).json, media_type="application/json")

    @routes.get("/health", responses=_describes(Health))
    def health() -> Response:
        return _json(reader.health())

    return routes


def error(status: int, title: str, message: str, *, headers: dict[str, str] | None = None) -> Response:
    """An error as the API gives it."""
    body = {"error": {"status": status, "title": title, "message": escape_text(message)}}
    return Response(orjson.dumps(body), status_code=status, headers=headers, media_type="application/json")


def _json(view: object) -> Response:
    return Response(to_json(view), media_type="application/json")


def _describes(model: type[Any]) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}}


def _event_id(text: str) -> str | None:
    if not text:
        return None
    digits = text.replace("-", "")
    if len(digits) != 32 or not set(digits.lower()) <= set("0123456789abcdef"):  # noqa: PLR2004  a UUID
        raise InvalidInput(f"{text[:80]!r} is no event id", field="after", value=text, limit="UUID")
    return text
