"""The application: HTML pages and `/api/v1` over the same view models, read-only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workledger.errors import InvalidInput, MissingExtra, NotFound, SchemaError, Unavailable, WorkledgerError

try:
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.responses import Response
    from starlette.staticfiles import StaticFiles
    from starlette.types import Scope
except ImportError as error:
    raise MissingExtra(
        "the dashboard needs FastAPI, Jinja2 and uvicorn: pip install 'workledger[server]'", extra="server"
    ) from error

from workledger._version import __version__
from workledger.postgres.pool import ConnectionPool
from workledger.sdk.ledger import Ledger
from workledger.server import api, pages
from workledger.server.guard import Guard, check_token
from workledger.server.reading import Reader
from workledger.server.rendering import Templates
from workledger.server.views import TrainingFacts

__all__ = ["create_app"]

#: Seconds after which a browser that was told 503 may ask again.
RETRY_AFTER_S = 3


def create_app(
    source: Ledger | ConnectionPool,
    *,
    project: str = "workledger",
    token: str | None = None,
    allowed_hosts: Sequence[str] = (),
    training: Callable[[], TrainingFacts | None] | None = None,
    metrics: Callable[[], tuple[str, bytes]] | None = None,
    refresh_s: float = 2.0,
    timeout_s: float = 5.0,
) -> FastAPI:
    """The dashboard and its API over a ledger or a pool of connections, which stay the caller's to close.

    With a `token`, every request must carry it; without one, the `Host` header must be a name of this machine or one
    of `allowed_hosts`. `training` gives the shards of the training store; `metrics` gives the content type and the
    text of `/metrics`, which is there only then. Open pages ask again every `refresh_s` seconds; a page whose SQL
    takes longer than `timeout_s` is given up.
    """
    pool = source.pool if isinstance(source, Ledger) else source
    reader = Reader(pool, training=training, timeout_s=timeout_s)
    templates = Templates(project=project, refresh_s=refresh_s)
    app = FastAPI(
        title="Workledger", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json"
    )
    app.state.needs_token = token is not None
    app.mount("/static", _Static(directory=Path(__file__).parent / "static"))
    app.include_router(api.router(reader))
    app.include_router(pages.router(reader, templates))
    if metrics is not None:
        app.add_api_route("/metrics", _metrics(metrics), include_in_schema=False)
    refuse = _refuser(templates)
    _handle_errors(app, refuse)
    app.add_middleware(Guard, token=check_token(token), hosts=allowed_hosts, refuse=refuse)
    return app


class _Static(StaticFiles):
    """Static files. Under an address that holds their digest they never change."""

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        is_versioned = scope["query_string"].startswith(b"v=")
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_versioned else "no-cache"
        return response


def _metrics(render: Callable[[], tuple[str, bytes]]) -> Callable[[], Response]:
    def metrics() -> Response:
        content_type, body = render()
        return Response(body, headers={"Content-Type": content_type})

    return metrics


def _refuser(templates: Templates) -> Callable[[Scope, int, str, str], Response]:
    def refuse(scope: Scope, status: int, title: str, message: str) -> Response:
        headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}  # noqa: PLR2004
        if scope["path"].startswith("/api/"):
            return api.error(status, title, message, headers=headers)
        return templates.page("error.html", status=status, headers=headers, code=status, title=title, message=message)

    return refuse


def _handle_errors(app: FastAPI, refuse: Callable[[Scope, int, str, str], Response]) -> None:
    def ours(request: Request, error: Exception) -> Response:
        status, title = _status_of(error)
        return refuse(request.scope, status, title, str(error))

    def theirs(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        if status == 404:  # noqa: PLR2004
            return refuse(request.scope, 404, "Not found", f"There is no page at {request.url.path}.")
        return refuse(request.scope, status, "Not like this", str(getattr(error, "detail", error)))

    def malformed(request: Request, error: Exception) -> Response:
        faults = error.errors() if isinstance(error, RequestValidationError) else []
        message = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in faults)
        return refuse(request.scope, 400, "Not like this", message)

    app.add_exception_handler(WorkledgerError, ours)
    app.add_exception_handler(HTTPException, theirs)
    app.add_exception_handler(RequestValidationError, malformed)


def _status_of(error: Exception) -> tuple[int, str]:
    match error:
        case NotFound():
            return 404, "Not found"
        case InvalidInput():
            return 400, "Not like this"
        case Unavailable() | SchemaError():
            return 503, "The ledger cannot be read now"
        case _:
            return 500, "Something broke"
