"""The HTML pages. Each is made once on the server; htmx only fetches the same page again and puts in what changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, Response

from workledger.model.status import TERMINAL, Status
from workledger.server import chat, story
from workledger.server.api import after_from, filters_from, workflow_id_from
from workledger.server.reading import After, Reader
from workledger.server.rendering import Templates
from workledger.server.timeline import timeline
from workledger.server.urls import list_url, path_parts, sent_url
from workledger.server.views import Filters

__all__ = ["router"]

#: The order of the filter chips.
STATUSES: Final = (Status.RUNNING, Status.FAILED, Status.COMPLETED, Status.CANCELLED, Status.PENDING)

_PAGE: Final = 50
#: A value longer than this is shown in part; the whole is one click away, as JSON.
_SHOWN_BYTES: Final = 2_000_000


def router(reader: Reader, templates: Templates) -> APIRouter:
    """The routes of the dashboard."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    @routes.get("/")
    def workflows(
        request: Request,
        filters: Annotated[Filters, Depends(filters_from)],
        older: str | None = None,
        newer: str | None = None,
    ) -> Response:
        page = reader.workflows(filters, older=older or None, newer=newer or None, limit=_PAGE)
        here = list_url(filters, older=older, newer=newer)
        choices = None if templates.is_partial(request) else reader.choices()
        return templates.live(request, "workflows", here=here, page=page, statuses=STATUSES, choices=choices)

    @routes.get("/workflows/{workflow_id:path}")
    def workflow(
        request: Request,
        workflow_id: str,  # noqa: ARG001  read from the path as it was sent
        pages: Annotated[After, Depends(after_from)],
        id: str | None = None,  # noqa: A002  the query's word
    ) -> Response:
        parts = [id] if id is not None else ["/".join(path_parts(request.scope, "/workflows/"))]
        detail = reader.workflow(workflow_id_from(parts), pages)
        return templates.live(
            request,
            "workflow",
            here=sent_url(request.scope),
            is_calm=detail.workflow.status in TERMINAL,
            detail=detail,
            timeline=timeline(detail),
            chat=chat.bubbles(detail.messages.items),
            story=list(story.lines(detail)),
            pages=pages,
        )

    @routes.get("/health")
    def health(request: Request) -> Response:
        return templates.live(request, "health", here="/health", health=reader.health())

    @routes.get("/values/{digest}")
    def value(digest: str) -> Response:
        found = reader.value(digest)
        is_whole = found.size_bytes <= _SHOWN_BYTES
        shown = found if is_whole else replace(found, json=(found.json or "")[:_SHOWN_BYTES])
        return templates.page("value.html", value=shown, is_whole=is_whole)

    return routes
