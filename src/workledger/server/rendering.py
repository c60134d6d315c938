"""Templates: made once, everything escaped, what cannot be seen made visible."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from workledger._version import __version__
from workledger.server import pretty, text, urls
from workledger.server.building import INLINE_BYTES
from workledger.server.views import Value

__all__ = ["Templates"]


class Templates:
    """The pages of one dashboard. `project` and `refresh_s` are on all of them."""

    def __init__(self, *, project: str, refresh_s: float) -> None:
        self._environment = Environment(
            loader=PackageLoader("workledger.server"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters: Any = self._environment.filters
        filters.update(
            visible=text.visible,
            exact=text.exact,
            age=text.age,
            duration=text.duration,
            size=text.size,
            count=text.count,
            laid_out=pretty.laid_out,
            one_line=pretty.one_line,
        )
        shared: Any = self._environment.globals
        shared.update(
            project=project,
            refresh_s=refresh_s,
            version=__version__,
            asset=asset,
            is_inline=is_inline,
            list_url=urls.list_url,
            workflow_url=urls.workflow_url,
            value_url=urls.value_url,
        )

    def live(self, request: Request, name: str, *, here: str, is_calm: bool = False, **context: Any) -> Response:
        """A page with a living part, which htmx asks for again at `here`; less often when it `is_calm`.

        htmx gets that part alone, and 204 when it is what the browser has.
        """
        inner = Markup(self._render(f"_{name}.html", **context))  # noqa: S704  a template's own output
        digest = hashlib.sha256(inner.encode("utf-8", "backslashreplace")).hexdigest()[:16]
        if self.is_partial(request) and request.headers.get("x-seen") == digest:
            return Response(status_code=204)
        living = self._render("live.html", here=here, is_calm=is_calm, inner=inner, digest=digest)
        if self.is_partial(request):
            return _html(living)
        return self.page(f"{name}.html", live=Markup(living), **context)  # noqa: S704  the same

    @staticmethod
    def is_partial(request: Request) -> bool:
        """Say whether htmx asks, for the living part of a page."""
        return request.headers.get("hx-request") == "true" and "hx-history-restore-request" not in request.headers

    def page(
        self, name: str, *, status: int = 200, headers: dict[str, str] | None = None, **context: Any
    ) -> HTMLResponse:
        """A rendered page. Text that UTF-8 cannot hold and that escaped our filters is written as an escape."""
        return _html(self._render(name, **context), status=status, headers=headers)

    def _render(self, name: str, **context: Any) -> str:
        return self._environment.get_template(name).render(**context)


def _html(html: str, *, status: int = 200, headers: dict[str, str] | None = None) -> HTMLResponse:
    return HTMLResponse(html.encode("utf-8", "backslashreplace"), status_code=status, headers=headers)


def is_inline(value: Value) -> bool:
    """Say whether a value is small enough to stand in a page."""
    return value.json is not None and value.size_bytes <= INLINE_BYTES


@cache
def asset(name: str) -> str:
    """The address of a static file, which changes when its content does."""
    content = resources.files("workledger.server").joinpath("static", name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


def _finalize(value: Any) -> Any:
    return text.plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value
