"""The dashboard as people see it: in headless Chromium, with and without JavaScript."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from server.recorded import HOSTILE_ID, Dashboard
from support import wait_until
from workledger.log.sequencer import sequence

pytestmark = pytest.mark.browser

#: A page may take long to come on a busy machine; what it is expected to show is waited for.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def browser(chromium_path: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS, timeout=2 * PATIENCE_MS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages; at the end, none of them may have said an error, nor a breach of the policy, nor asked a dialog."""
    said: list[str] = []
    contexts = []

    def open_one(url: str, **options: object) -> Page:
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert said == []


def rows(page: Page):
    return page.locator(".list tbody tr")


def test_the_list_shows_the_workflows_and_a_status_narrows_it(dashboard: Dashboard, open_page) -> None:
    page = open_page(dashboard.url)
    expect(rows(page)).to_have_count(50)
    expect(rows(page).first).to_contain_text("section")
    page.get_by_role("link", name=re.compile("Failed")).click()
    expect(page).to_have_url(f"{dashboard.url}/?status=failed")
    expect(rows(page)).to_have_count(2)
    expect(page.locator(".error-line").last).to_contain_text("ValueError: nothing to load")
    page.get_by_role("link", name=re.compile("Failed")).click()
    expect(rows(page)).to_have_count(50)


def test_typing_searches_and_the_address_follows(dashboard: Dashboard, open_page) -> None:
    page = open_page(dashboard.url)
    page.keyboard.press("/")
    page.keyboard.type("nothing to load")
    expect(rows(page)).to_have_count(1)
    expect(page).to_have_url(f"{dashboard.url}/?q=nothing+to+load")
    page.get_by_placeholder("Search").fill("nowhere to be found")
    expect(page.get_by_role("heading", name="No workflow matches")).to_be_visible()
    page.get_by_role("link", name="Clear filters").click()
    expect(rows(page)).to_have_count(50)


def test_a_field_narrows_the_list(dashboard: Dashboard, open_page) -> None:
    page = open_page(dashboard.url)
    page.get_by_placeholder("Subject").fill("user-7")
    expect(rows(page)).to_have_count(1)
    expect(page).to_have_url(f"{dashboard.url}/?subject=user-7")
    page.reload()
    expect(rows(page)).to_have_count(1)
    expect(page.get_by_placeholder("Subject")).to_have_value("user-7")


def test_older_and_newer_lead_there_and_back(dashboard: Dashboard, open_page) -> None:
    page = open_page(dashboard.url)
    first = rows(page).first.get_attribute("id")
    page.get_by_role("link", name="Older").click()
    expect(rows(page)).to_have_count(16)
    page.get_by_role("link", name="Newer").click()
    expect(rows(page)).to_have_count(50)
    assert rows(page).first.get_attribute("id") == first


def test_a_click_leads_to_the_workflow_with_timeline_events_and_conversation(dashboard: Dashboard, open_page) -> None:
    page = open_page(f"{dashboard.url}/?tag=nightly")
    page.get_by_role("link", name="research", exact=True).click()
    expect(page.get_by_role("heading", level=1, name="research")).to_be_visible()
    bars = page.locator(".exec svg.plot rect.bar")
    expect(bars).to_have_count(5)
    # All at once: the page is made anew while it is looked at.
    whole, *parts = bars.evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().toJSON())")
    for inner in parts:
        assert whole["x"] - 1 <= inner["x"] <= whole["x"] + whole["width"] + 1
    fills = bars.evaluate_all("bars => bars.map(bar => getComputedStyle(bar).fill)")
    assert fills[1] != fills[3]
    expect(page.locator(".event")).to_have_count(dashboard.detail("research-1")["events"]["total"])
    expect(page.locator("#chat .msg")).to_have_count(5)
    expect(page.locator("#message-2")).to_contain_text("What is vacuum?")
    expect(page.locator("#message-1 .text")).to_be_hidden()
    page.locator("#message-1 summary").click()
    expect(page.locator("#message-1 .text")).to_be_visible()
    page.locator("#message-3 summary").click()
    expect(page.locator("#message-3")).to_contain_text('"https://a.example"')


def test_a_keyboard_opens_an_execution_and_its_traceback(dashboard: Dashboard, open_page) -> None:
    page = open_page(f"{dashboard.url}/workflows/research-1")
    failed = page.locator(".exec.is-failed").first
    failed.locator("summary").first.focus()
    page.keyboard.press("Enter")
    expect(failed.locator(".exec-body")).to_contain_text("ConnectionError: reset by peer")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(failed.locator(".traceback")).to_contain_text("Traceback (most recent call last)")


def test_a_link_to_an_execution_unfolds_it(dashboard: Dashboard, open_page) -> None:
    execution_id = dashboard.detail("research-1")["executions"]["items"][3]["execution_id"]
    page = open_page(f"{dashboard.url}/workflows/research-1#execution-{execution_id}")
    expect(page.locator(f'[id="execution-{execution_id}"] .exec-body')).to_be_visible()


def test_everything_unfolds_and_folds_at_once(dashboard: Dashboard, open_page) -> None:
    page = open_page(f"{dashboard.url}/workflows/research-1")
    button = page.locator("#timeline button[data-toggle]")
    button.click()
    expect(page.locator(".exec[open]")).to_have_count(5)
    button.click()
    expect(page.locator(".exec[open]")).to_have_count(0)


def test_the_id_is_copied(dashboard: Dashboard, open_page) -> None:
    page = open_page(f"{dashboard.url}/workflows/research-1", permissions=["clipboard-read", "clipboard-write"])
    button = page.get_by_role("button", name="Copy workflow id")
    # It says so for a second only, which can pass unseen.
    wait_until(lambda: (button.click(), page.locator(".copy.done").count())[1], timeout_s=60)
    assert page.evaluate("navigator.clipboard.readText()") == "research-1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_content_is_shown_and_does_nothing(dashboard: Dashboard, open_page, scheme: str) -> None:
    page = open_page(dashboard.url, color_scheme=scheme)
    page.get_by_role("link", name="<script>alert('name')</script>").click()
    expect(page.locator("#workflow-id")).to_have_text(HOSTILE_ID)
    for button in page.locator("button[data-toggle]").all():
        button.click()
    expect(page.locator("#message-1 .text")).to_contain_text(
        r"<script>alert(1)</script> </summary></div> NUL \u0000 lone \ud800"
    )
    assert page.locator("#live img, #live script, #live iframe").count() == 0
    page.get_by_role("link", name="Open").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("A stored value")


def test_what_runs_is_seen_moving_and_what_was_opened_stays_open(own_ledger, serve_app, open_page) -> None:
    dashboard = serve_app(own_ledger)
    page = open_page(dashboard.url)
    expect(page.get_by_role("heading", name="Nothing recorded yet")).to_be_visible()
    with own_ledger.start_workflow("moving", workflow_id="moving", total_steps=3) as run:
        page.get_by_role("link", name="moving").click()
        expect(page.locator(".pill").first).to_have_text("running")
        with run.task("first", input={"n": 1}) as task:
            task.output = "done"
        expect(page.locator(".exec")).to_have_count(1)
        page.locator(".exec summary").first.click()
        with run.task("second"):
            expect(page.locator(".exec.is-running")).to_have_count(1)
        run.message("user", "Are you there?")
        expect(page.locator("#message-1")).to_contain_text("Are you there?")
        with own_ledger.pool.connection() as connection:
            sequence(connection, schema="workledger")
        expect(page.locator(".event .position").first).to_have_text("2")
        expect(page.locator(".exec[open]")).to_have_count(1)
    expect(page.locator(".pill").first).to_have_text("completed")
    expect(page.locator(".exec[open]")).to_have_count(1)


def test_a_reader_can_pause(own_ledger, serve_app, open_page) -> None:
    dashboard = serve_app(own_ledger)
    page = open_page(dashboard.url)
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("button", name="Paused")).to_be_visible()
    page.wait_for_load_state("networkidle")  # what was asked before has been answered
    with own_ledger.start_workflow("unseen"):
        pass
    page.wait_for_timeout(600)
    expect(rows(page)).to_have_count(0)
    page.get_by_role("button", name="Paused").click()
    expect(rows(page)).to_have_count(1)


def test_without_javascript_everything_is_there(dashboard: Dashboard, open_page) -> None:
    page = open_page(dashboard.url, java_script_enabled=False)
    expect(rows(page)).to_have_count(50)
    page.get_by_placeholder("Search").fill("nothing to load")
    page.get_by_role("button", name="Apply").click()
    expect(rows(page)).to_have_count(1)
    page.get_by_role("link", name="load", exact=True).click()
    expect(page.locator("svg.plot rect.bar")).to_have_count(1)
    page.locator(".exec summary").first.click()
    expect(page.locator(".exec-body")).to_contain_text('"a.csv"')
    page.locator(".event > summary").last.click()
    expect(page.locator(".event-body").last).to_contain_text("nothing to load from a.csv")
    page.get_by_role("link", name="Health").click()
    expect(page.locator(".tile-number").first).not_to_have_text("0")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_page_is_wider_than_the_window(dashboard: Dashboard, open_page, width: int) -> None:
    page = open_page(dashboard.url, viewport={"width": width, "height": 800})
    for path in ("/", "/workflows/research-1", "/health", "/workflows/unknown"):
        if path.endswith("unknown"):
            page.set_content(dashboard.get(path).text)
        else:
            page.goto(dashboard.url + path)
        for details in page.locator(".exec > summary, .event > summary").all()[:6]:
            details.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(dashboard: Dashboard, open_page, scheme: str) -> None:
    """WCAG 2 AA: a contrast of 4.5 for the inks and the status colours on their grounds."""
    page = open_page(dashboard.url, color_scheme=scheme)
    pairs = [(ink, ground) for ink in ("ink", "ink-2", "ink-3", "accent") for ground in ("bg", "card", "sunk")]
    pairs += [(name, f"{name}-soft") for name in ("ok", "fail", "run", "wait", "off")]
    ratios = page.evaluate(
        """pairs => {
            const style = getComputedStyle(document.documentElement);
            const luminance = name => {
                const hex = style.getPropertyValue(`--${name}`).trim().slice(1);
                const parts = [0, 2, 4].map(at => parseInt(hex.slice(at, at + 2), 16) / 255)
                    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
                return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
            };
            return pairs.map(([a, b]) => {
                const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
                return (light + 0.05) / (dark + 0.05);
            });
        }""",
        pairs,
    )
    assert {pair: round(ratio, 2) for pair, ratio in zip(pairs, ratios, strict=True) if ratio < 4.5} == {}


def test_an_open_page_asks_once_in_its_time_and_gets_nothing_when_nothing_changed(
    own_ledger, serve_app, open_page
) -> None:
    dashboard = serve_app(own_ledger, refresh_s=0.5)
    page = open_page(f"{dashboard.url}/?q=nothing")
    answers: list[int] = []
    page.on("response", lambda response: answers.append(response.status) if "q=nothing" in response.url else None)
    began_s = time.monotonic()
    while len(answers) < 5:
        assert time.monotonic() - began_s < 120
        page.wait_for_timeout(100)
    # Neither twice in its time, nor without a pause; one may have come late, and the next in time.
    assert len(answers) <= (time.monotonic() - began_s) / 0.5 + 2
    assert set(answers) == {204}
