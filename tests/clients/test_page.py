"""The page `/` in a real Chromium: what it shows, what it lets one try, that it needs nothing else."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import run
from playwright.sync_api import sync_playwright

BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
PICTURES = run.KEPT / "pictures"

ROWS = [
    {"note": "it's <b>fragile</b>", "parcels": 1},
    {"note": 'say "hello" & {{twice}} $HOME `id` \\ ünïcode 🚲', "parcels": 9_007_199_254_740_993},
]
DAYS = '{"predictions":[2.15,4.2]}'
LABELS = [f"{row['note']} ×{row['parcels']}" for row in ROWS]

LOOKS = {
    "desk-light": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"},
    "desk-dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone-light": {"viewport": {"width": 360, "height": 740}, "color_scheme": "light"},
    "phone-dark": {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True},
}


@pytest.fixture(scope="module")
def url():
    with run.served("orders", os.environ["ORDERS_PROGRAM"]) as address:
        yield f"{address}/"


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip(f"NO BROWSER: none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        # Its sandbox is for strangers' pages, and does not start for the user root.
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def visited(browser, url, **look):
    """The page, whom it asks, and what the browser complains of."""
    context = browser.new_context(**look)
    page, asked, complaints = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: complaints.append(said.text) if said.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    assert page.goto(url).ok
    yield page, asked, complaints
    context.close()


@pytest.fixture(params=LOOKS)
def look(request):
    return request.param


@pytest.fixture
def page(browser, url, look):
    with visited(browser, url, **LOOKS[look]) as (page, asked, complaints):
        yield page
        assert [each for each in asked if not each.startswith((url, "data:"))] == []
        # A browser counts every refusal as an error; the page shows them.
        assert [said for said in complaints if "status of 4" not in said] == []


def section(page, function):
    return page.locator("section").filter(has=page.get_by_role("heading", name=function, exact=True))


def rows_of(table):
    return [row.locator("td, th").all_inner_texts() for row in table.get_by_role("row").all()]


def call(part):
    """What the page says once a call is answered."""
    part.get_by_role("button").click()
    status = part.get_by_role("status")
    status.get_by_text(" ms").wait_for()
    return status


def body(part):
    return part.get_by_label("The body of a call")


def test_the_page_says_what_is_served(page):
    assert page.title() == page.get_by_role("heading", level=1).inner_text() == "orders"
    tags = page.locator(".tags span").all_inner_texts()
    assert tags == ["business_line=womens", "owner=logistics & more", "region=US"]
    assert page.get_by_text("When will it be there? <Asked> by the shop & the call centre.").is_visible()
    part = section(page, "days_until")
    assert part.get_by_text("Twice as many at weekends; `note` is for people").is_visible()
    takes = rows_of(part.get_by_role("table", name="takes"))
    assert takes[1:] == [
        ["kilograms", "float64", "may be null"],
        ["weekend", "bool", ""],
        ["parcels", "int64", ""],
        ["note", "utf8", ""],
        ["ordered", "timestamp[us]", ""],
    ]
    assert rows_of(part.get_by_role("table", name="gives"))[1][1] == "float64"


def test_the_example_is_answered(page):
    assert call(section(page, "days_until")).locator("pre").inner_text() == DAYS
    # To the last digit.
    labels = call(section(page, "label")).locator("pre").inner_text()
    assert json.loads(labels) == {"predictions": LABELS}


def test_what_one_fills_in_is_what_is_asked(page):
    part = section(page, "days_until")
    row = {"kilograms": 50, "weekend": True, "parcels": 1, "note": "", "ordered": "2026-05-06T00:00:00"}
    body(part).fill(json.dumps({"data": [row]}))
    assert call(part).locator("pre").inner_text() == '{"predictions":[14.0]}'


def test_a_bad_value_is_named_with_row_and_column(page, look):
    part = section(page, "days_until")
    example = body(part).input_value()
    body(part).fill(example.replace("9007199254740993", '"<i>many</i>"'))
    status = call(part)
    assert status.get_by_text(
        'row 1, column `parcels`: wrong type, expected int64, got "<i>many'
    ).is_visible()
    assert rows_of(status.get_by_role("table")) == [
        ["row", "column", "expected", "got"],
        ["1", "parcels", "int64", '"<i>many</i>"'],
    ]
    call(section(page, "label"))
    for summary in page.locator("summary").all():
        summary.click()
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{look}.png", full_page=True)
    body(part).fill(example)
    assert call(part).locator("pre").inner_text() == DAYS


def test_what_is_no_json_is_answered_as_well(page):
    part = section(page, "days_until")
    body(part).fill("{")
    assert call(part).inner_text().startswith("400 Bad Request")


def test_the_keyboard_is_enough(page):
    part = section(page, "days_until")
    for _ in range(10):
        if body(part).evaluate("element => element === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type('{"data": []}')
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "one sees where one is"
    page.keyboard.press("Enter")
    status = part.get_by_role("status")
    status.get_by_text("200 OK").wait_for()
    assert status.locator("pre").inner_text() == '{"predictions":[]}'
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert part.get_by_text("curl -s").is_visible()


def test_nothing_is_wider_than_the_screen(page):
    for summary in page.locator("summary").all():
        summary.click()
    part = section(page, "label")
    body(part).fill(body(part).input_value().replace("ünïcode", "x" * 300))
    call(part)
    wide, screen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= screen


def test_colours_are_those_that_the_reader_likes(page, look):
    red, *_ = page.evaluate("getComputedStyle(document.body).color.match(/\\d+/g).map(Number)")
    assert red > 200 if look.endswith("dark") else red < 60


@pytest.mark.parametrize("function", ["days_until", "label"])
@pytest.mark.parametrize("language", ["curl", "Python"])
def test_what_is_shown_can_be_run(browser, url, function, language):
    with visited(browser, url) as (page, _, _):
        part = section(page, function)
        part.get_by_text(f"With {language}").click()
        shown = part.locator("details").filter(has_text=f"With {language}").locator("pre").inner_text()
    command = ["sh", "-c", shown] if language == "curl" else [sys.executable, "-c", shown]
    given = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    if function == "label":
        expected = LABELS
    else:
        expected = json.loads(DAYS)["predictions"]
    if language == "curl":
        assert json.loads(given) == {"predictions": expected}
    else:
        assert given == f"{expected}\n"


INTRUDERS = {
    "script-src-elem": "const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s)",
    "script-src-attr": "document.body.setAttribute('onclick', 'window.ran = 1'); document.body.click()",
    "img-src": "new Image().src = 'http://127.0.0.2:9/'",
    "connect-src": "fetch('http://127.0.0.2:9/').catch(() => 0)",
    "frame-src": "document.body.append(Object.assign(document.createElement('iframe'), {src: '/healthz'}))",
}


@pytest.mark.parametrize("directive", INTRUDERS)
def test_the_policy_keeps_out_what_is_not_of_the_page(browser, url, directive):
    with visited(browser, url) as (page, _, complaints):
        page.evaluate(
            "addEventListener('securitypolicyviolation', e => window.refused = e.effectiveDirective)"
        )
        page.evaluate(f"() => {{ {INTRUDERS[directive]} }}")
        page.wait_for_function("window.refused")
        assert page.evaluate("[window.refused, window.ran]") == [directive, None]
        assert len(complaints) >= 1
