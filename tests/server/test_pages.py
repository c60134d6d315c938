from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urlencode

import pytest

from server.recorded import HOSTILE_ID, HOSTILE_TEXT, Dashboard

VOID = {"meta", "link", "input", "br", "img", "hr"}


class Page(HTMLParser):
    """A page as its elements: names, attributes, and whether what was opened is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def ids(self, prefix: str) -> list[str]:
        found = [attributes.get("id") or "" for _, attributes in self.elements]
        return [name.removeprefix(prefix) for name in found if name.startswith(prefix)]

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.elements for key, value in attributes.items() if key == name]


def test_the_list_shows_what_the_api_lists(dashboard: Dashboard) -> None:
    for query in ("", "?status=failed", "?q=small", "?tag=nightly&type=agent"):
        listed = dashboard.api(f"/workflows{query}")
        page = Page(dashboard.get(f"/{query}").text)
        assert page.ids("w-") == [workflow["workflow_id"] for workflow in listed["workflows"]]
        text = "".join(page.text)
        assert all(workflow["status"] in text for workflow in listed["workflows"])


def test_the_list_pages_as_the_api_does(dashboard: Dashboard) -> None:
    first = Page(dashboard.get("/").text)
    (older,) = [link for link in first.attributes("href") if "older=" in link]
    second = Page(dashboard.get(older).text)
    assert (len(first.ids("w-")), len(second.ids("w-"))) == (50, 16)
    (newer,) = [link for link in second.attributes("href") if "newer=" in link]
    assert Page(dashboard.get(newer).text).ids("w-") == first.ids("w-")


@pytest.mark.parametrize("workflow_id", ["research-1", "load-1", HOSTILE_ID, "digest", "small-007"])
def test_a_workflow_shows_what_the_api_gives(dashboard: Dashboard, workflow_id: str) -> None:
    detail = dashboard.detail(workflow_id)
    page = Page(dashboard.page(workflow_id))
    assert set(page.ids("execution-")) == {item["execution_id"] for item in detail["executions"]["items"]}
    assert page.ids("event-")[-detail["events"]["total"] :] == [item["event_id"] for item in detail["events"]["items"]]
    assert page.ids("message-") == [str(item["seq"]) for item in detail["messages"]["items"]]
    assert page.ids("feedback-") == [item["feedback_id"] for item in detail["feedback"]]
    links = [unquote(link) for link in page.attributes("href")]
    assert all(f"/workflows/{child['workflow_id']}" in links for child in detail["children"])


def test_a_workflow_tells_its_error_and_where_it_came_from(dashboard: Dashboard) -> None:
    text = "".join(Page(dashboard.page("load-1")).text)
    assert "ValueError: nothing to load from a.csv" in " ".join(text.split())
    assert "Traceback (most recent call last)" in text
    assert 'in record_failure\n    raise ValueError("nothing to load from a.csv")' in text
    assert "Started by" in dashboard.page("section-0")


def test_hostile_content_adds_no_element_and_no_attribute(dashboard: Dashboard) -> None:
    html = dashboard.page(HOSTILE_ID)
    page = Page(html)
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert all(set(attributes) == {"src", "defer"} for attributes in scripts)
    assert {tag for tag, _ in page.elements}.isdisjoint({"img", "b-", "iframe", "style", "object", "embed", "i"})
    names = {name for _, attributes in page.elements for name in attributes}
    assert not [name for name in names if name.startswith("on")]
    assert "style" not in names
    assert not [link for link in page.attributes("href") if not link.startswith(("/", "#"))]


@pytest.mark.parametrize(
    "path", ["/", f"/workflows/{quote(HOSTILE_ID, safe='')}", f"/?{urlencode({'q': HOSTILE_TEXT}, errors='replace')}"]
)
def test_what_cannot_be_seen_is_made_visible(dashboard: Dashboard, path: str) -> None:
    html = dashboard.get(path).text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufdd0]", html)
    if path != "/":
        assert all(escape in html for escape in ("\\u0000", "\\u202e", "\\u001b"))
        assert "\u05e9\u05dc\u05d5\u05dd" in html


def test_a_megabyte_of_text_stays_out_of_the_page_and_has_a_page_of_its_own(dashboard: Dashboard) -> None:
    html = dashboard.page(HOSTILE_ID)
    assert len(html) < 200_000
    links = {link for link in Page(html).attributes("href") if link.startswith("/values/")}
    assert len(links) == 2
    for link in links:
        value = dashboard.get(link)
        assert value.status == 200
        assert value.text.count("A line of text that repeats, with &lt;b&gt;tags&lt;/b&gt; &amp; signs.") >= 20_000


def test_htmx_gets_the_living_part_alone_and_nothing_when_it_is_unchanged(dashboard: Dashboard) -> None:
    for path in ("/workflows/load-1", "/?status=failed", "/health"):
        assert dashboard.get(path, HX_Request="true").text.startswith('<div id="live"')
    path = "/?q=nothing+of+the+kind"  # a page on which no age is told
    part = dashboard.get(path, HX_Request="true").text
    assert part.strip() in dashboard.get(path).text
    (digest,) = Page(part).attributes("data-digest")
    again = dashboard.get(path, HX_Request="true", X_Seen=digest)
    assert (again.status, again.body) == (204, b"")
    assert dashboard.get(path, HX_Request="true", X_Seen="another").text == part


def test_going_back_in_history_gets_the_whole_page(dashboard: Dashboard) -> None:
    answer = dashboard.get("/", HX_Request="true", HX_History_Restore_Request="true")
    assert answer.text.startswith("<!doctype html>")


def test_an_empty_project_says_what_to_do_next(own_ledger, serve_app) -> None:
    dashboard = serve_app(own_ledger, project="fresh")
    page = dashboard.get("/").text
    assert "Nothing recorded yet" in page
    assert "workledger demo" in page
    assert "Nobody reads the log yet" in dashboard.get("/health").text


def test_a_filter_that_matches_nothing_says_so_and_leads_back(dashboard: Dashboard) -> None:
    page = dashboard.get("/?q=%3Cb%3Enowhere").text
    assert "No workflow matches" in page
    assert "&lt;b&gt;nowhere" in page
    assert "Clear filters" in page


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/workflows/unknown", 404), ("/?status=x", 400)])
def test_what_is_not_there_or_not_right_is_said_on_a_page(dashboard: Dashboard, path: str, status: int) -> None:
    answer = dashboard.get(path)
    assert answer.status == status
    assert answer.headers["content-type"].startswith("text/html")
    assert f">{status}<" in answer.text


def test_an_id_that_browsers_would_resolve_is_reached_by_its_query(own_ledger, serve_app) -> None:
    with own_ledger.start_workflow("dots", workflow_id=".."):
        pass
    dashboard = serve_app(own_ledger)
    (link,) = {link for link in Page(dashboard.get("/").text).attributes("href") if link.startswith("/workflows")}
    assert link == "/workflows/?id=.."
    assert 'id="workflow-id">..<' in dashboard.get(link).text


def test_static_files_may_be_kept_for_ever_under_their_digest(dashboard: Dashboard) -> None:
    page = Page(dashboard.get("/").text)
    assets = [link for link in page.attributes("href") + page.attributes("src") if link.startswith("/static/")]
    assert len(assets) == 4
    for link in assets:
        answer = dashboard.get(link)
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
    assert dashboard.get("/static/dashboard.css").headers["cache-control"] == "no-cache"
    assert dashboard.get("/static/../app.py").status == 404
    assert dashboard.get("/static/%2e%2e/app.py").status == 404
    assert dashboard.get("/").headers["cache-control"] == "no-store"


def test_a_long_workflow_is_shown_page_by_page_with_a_way_to_the_end(own_ledger, serve_app) -> None:
    with own_ledger.start_workflow("long", workflow_id="long") as run:
        for number in range(205):
            with run.task(f"step-{number}"):
                pass
    dashboard = serve_app(own_ledger)
    first = Page(dashboard.page("long"))
    assert len(first.ids("execution-")) == 200
    links = [link for link in first.attributes("href") if "executions_after=" in link]
    assert len(links) == 2
    following, last = (Page(dashboard.get(link.split("#")[0]).text) for link in links)
    assert len(following.ids("execution-")) == 5
    assert len(last.ids("execution-")) == 200
    assert last.ids("execution-")[-1] == following.ids("execution-")[-1]


def test_the_newest_branch_is_shown_and_says_which_message_it_follows(own_ledger, serve_app) -> None:
    with own_ledger.start_workflow("chat", workflow_id="chat") as run:
        for text in ("one", "two"):
            run.message("user", text)
        own_ledger.conversation("chat").add("user", "two, said again", parent_seq=1)
    dashboard = serve_app(own_ledger)
    messages = dashboard.detail("chat")["messages"]["items"]
    assert [(message["seq"], message["parent_seq"]) for message in messages] == [(1, None), (3, 1)]
    assert dashboard.detail("chat")["messages"]["total"] == 2
    page = dashboard.page("chat")
    assert page.count("branch: follows") == 1
    assert 'branch: follows <a href="#message-1">#1</a>' in page
