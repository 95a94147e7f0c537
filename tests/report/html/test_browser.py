"""The report in a real browser: no complaint, no request, sorting, filtering, records by keyboard, dark, a phone.

Skipped where no Chromium or no chromedriver is installed (Debian: ``apt-get install chromium chromium-driver``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spatialbench.report.html.inputs import Material
from tools.report_figure import WIDTH, chromium, programs, shots

selenium = pytest.importorskip(
    "selenium", reason="selenium is not installed: pip install -e '.[dev]'"
)
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = pytest.mark.skipif(
    programs() is None,
    reason="no chromium or no chromedriver: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("browser"), ("browser", "performance")) as found:
        yield found


@pytest.fixture(scope="module")
def address(page: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def browser(driver: Any, address: str) -> Any:
    """The page, freshly opened."""
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    driver.get(address)
    return driver


def one(browser: Any, selector: str) -> Any:
    return browser.find_element(By.CSS_SELECTOR, selector)


def rows(browser: Any, table: str = "pairs") -> list[str]:
    """The first cell of every line that is shown."""
    lines = browser.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr")
    return [
        line.find_element(By.CSS_SELECTOR, "th").text.split("\n")[0]
        for line in lines
        if line.is_displayed()
    ]


def column(browser: Any, place: int) -> list[float]:
    lines = "[...document.querySelectorAll('#pairs tbody tr:not(.paper)')]"
    values = browser.execute_script(
        f"return {lines}.map(line => line.cells[arguments[0]].dataset.value)", place
    )
    return [float(value) for value in values]


def choose(browser: Any, part: str, value: str) -> None:
    one(browser, f"#browser [data-part={part}] option[value='{value}']").click()


def record(browser: Any) -> str:
    return one(browser, "#browser .thumb[aria-selected=true]").get_attribute("data-record")


def colour(browser: Any, selector: str, name: str = "background-color") -> list[int]:
    text = one(browser, selector).value_of_css_property(name)
    return [int(part) for part in text[text.index("(") + 1 : -1].split(",")[:3]]


def test_no_complaint_no_request_and_nothing_hostile_ran(browser: Any) -> None:
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hacked") is None
    asked = []
    for line in browser.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    assert [url for url in asked if not url.startswith("data:")] == [browser.current_url]


def test_the_policy_stops_what_would_be_put_in(browser: Any) -> None:
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s);"
        "const i = document.createElement('img'); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i);"
    )
    assert browser.execute_script("return window.hacked") is None
    refused = " ".join(entry["message"] for entry in browser.get_log("browser"))
    assert "Content Security Policy" in refused


def test_sorting(browser: Any, material: Material) -> None:
    button = one(browser, "#pairs thead th:nth-child(8) button")  # All
    expected = sorted((row.result.accuracy["all"] or 0 for row in material.rows), reverse=True)
    button.click()
    assert column(browser, 7) == pytest.approx(expected, abs=1e-3)
    head = one(browser, "#pairs thead th:nth-child(8)")
    assert head.get_attribute("aria-sort") == "descending"
    button.send_keys(Keys.ENTER)
    assert column(browser, 7) == pytest.approx(expected[::-1], abs=1e-3)
    assert head.get_attribute("aria-sort") == "ascending"
    one(browser, "#pairs thead th:nth-child(1) button").click()
    assert rows(browser) == ["a", "b", "c", "zeroshot"]
    assert head.get_attribute("aria-sort") is None


def test_papers_stay_below_their_row_and_intervals_are_shown(browser: Any) -> None:
    assert "b, Someone <i>2024</i>" not in rows(browser)
    one(browser, "input[data-class=with-papers]").click()
    one(browser, "#pairs thead th:nth-child(1) button").click()
    assert rows(browser) == ["a", "b", "b, Someone <i>2024</i>", "c", "zeroshot"]
    extra = one(browser, "#pairs td .extra")
    assert not extra.is_displayed()
    one(browser, "input[data-class=with-extra][data-for=pairs]").click()
    assert extra.is_displayed()
    assert " to " in extra.text


def test_filtering(browser: Any) -> None:
    search = one(browser, "input[data-filter=pairs]")
    search.send_keys("ZERO")
    assert rows(browser) == ["zeroshot"]
    assert one(browser, "#pairs-count").text == "1 of 4"
    search.send_keys("nothing")
    assert rows(browser) == []
    search.clear()
    search.send_keys(" ")
    assert len(rows(browser)) == 4


def test_the_interval_on_focus_by_the_arrow_keys(browser: Any) -> None:
    browser.execute_script("document.querySelector('#pairs tbody [tabindex=\"0\"]').focus()")
    tip = one(browser, "#tip")
    assert "95 % interval" in tip.text
    browser.execute_script(
        "document.activeElement.dispatchEvent(new Event('scroll', {bubbles: true}))"
    )
    assert tip.is_displayed(), "moving the focus may scroll"
    before = browser.switch_to.active_element
    before.send_keys(Keys.ARROW_DOWN)
    after = browser.switch_to.active_element
    assert after != before
    assert after.get_attribute("data-tip") == tip.text
    assert (before.get_attribute("tabindex"), after.get_attribute("tabindex")) == ("-1", "0")
    after.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()


def test_records_by_keyboard(browser: Any) -> None:
    listed = one(browser, "#browser [data-part=list]")
    names = [
        thumb.get_attribute("data-record")
        for thumb in listed.find_elements(By.CSS_SELECTOR, ".thumb")
    ]
    assert len(names) == 24
    assert record(browser) == names[0]
    browser.execute_script("arguments[0].focus()", listed)
    for key, place in (
        (Keys.ARROW_RIGHT, 1),
        ("j", 2),
        (Keys.ARROW_LEFT, 1),
        (Keys.END, 23),
        (Keys.HOME, 0),
    ):
        listed.send_keys(key)
        assert record(browser) == names[place]
        assert names[place] in one(browser, "#browser .record").text
        assert listed.get_attribute("aria-activedescendant") == f"record-{place}"
    listed.send_keys("k")
    assert record(browser) == names[0]
    assert not one(browser, "#browser [data-part=back]").is_enabled()
    one(browser, "#browser [data-part=next]").click()
    assert record(browser) == names[1]
    assert len(browser.find_elements(By.CSS_SELECTOR, "#browser .picture rect.box")) == 2


def test_records_by_relation_row_and_answer(browser: Any) -> None:
    data = json.loads(
        browser.execute_script("return document.getElementById('records-data').textContent")
    )
    place = data["rows"].index("a")

    def right(found: dict) -> float:
        return sum(margin > 0 for margin in found["margins"][place]) / 2

    choose(browser, "relation", "left")
    choose(browser, "row", str(place))
    choose(browser, "answer", "wrong")
    expected = [r["id"] for r in data["records"] if r["relation"] == "left" and right(r) < 0.5]
    shown = browser.find_elements(By.CSS_SELECTOR, "#browser .thumb")
    assert [thumb.get_attribute("data-record") for thumb in shown] == expected
    choose(browser, "relation", "any")
    choose(browser, "answer", "split")
    expected = [r["id"] for r in data["records"] if right(r) == 0.5]
    assert one(browser, "#browser [data-part=count]").text == f"{len(expected)} of 24 records"
    choose(browser, "row", "every")
    choose(browser, "answer", "wrong")
    choose(browser, "kind", "easiest")
    assert "No record of the sample is like that." in one(browser, "#browser .record").text


def test_records_that_one_row_has_right_and_another_wrong(browser: Any) -> None:
    data = json.loads(
        browser.execute_script("return document.getElementById('records-data').textContent")
    )
    a, b = (data["rows"].index(name) for name in "ab")
    assert not one(browser, "#browser [data-part=other-answer]").is_enabled()
    choose(browser, "row", str(b))
    choose(browser, "answer", "right")
    choose(browser, "and-row", str(a))
    assert one(browser, "#browser [data-part=other-answer]").get_attribute("value") == "wrong"

    def right(found: dict, place: int) -> float:
        return sum(margin > 0 for margin in found["margins"][place]) / 2

    expected = [r["id"] for r in data["records"] if right(r, b) > 0.5 and right(r, a) < 0.5]
    shown = browser.find_elements(By.CSS_SELECTOR, "#browser .thumb")
    assert [thumb.get_attribute("data-record") for thumb in shown] == expected
    assert 0 < len(expected) < 24
    first = next(r for r in data["records"] if r["id"] == expected[0])
    marks = browser.find_elements(
        By.CSS_SELECTOR, "#browser .answers tbody tr:nth-child(2) .signs span"
    )
    assert [mark.get_attribute("class") for mark in marks] == [
        "right" if m > 0 else "wrong" for m in first["margins"][1]
    ]


def test_one_matrix_at_a_time(browser: Any) -> None:
    def shown() -> list[str]:
        parts = browser.find_elements(By.CSS_SELECTOR, "#verdicts-matrices > div")
        return [part.get_attribute("data-choice") for part in parts if part.is_displayed()]

    assert shown() == ["all"]
    one(browser, "select[data-chooses] option[value=left]").click()
    assert shown() == ["left"]


def test_light_and_dark(browser: Any) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert min(colour(browser, "body")) > 200
    media["features"][0]["value"] = "dark"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert max(colour(browser, "body")) < 60
    assert min(colour(browser, "body", "color")) > 200
    assert max(colour(browser, "section")) < 60
    one(browser, "#theme").click()
    assert min(colour(browser, "body")) > 200


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_no_wider_than_the_screen(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.refresh()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    script = (
        "return [...document.querySelectorAll('section > *, figure, .record > *')].filter(e => e.offsetParent && "
        "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert browser.execute_script(script) == []


CONTRAST = """
const numbers = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
const over = (a, b) => [0, 1, 2].map((k) => a[k] * a[3] + b[k] * (1 - a[3]));
function behind(element) {
  const found = [];
  for (let one = element; one; one = one.parentElement) found.push(numbers(getComputedStyle(one).backgroundColor));
  return found.reverse().reduce((below, colour) => over(colour, below), [255, 255, 255]);
}
function light(colour) {
  const parts = colour.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}
for (const one of document.querySelectorAll("details")) one.open = true;
const found = {};
for (const element of document.querySelectorAll("body *")) {
  const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!words || !element.checkVisibility() || element.disabled || element.matches("script, option, .boxname")) continue;
  const style = getComputedStyle(element);
  const ground = behind(element);
  const ink = over(numbers(element instanceof SVGElement ? style.fill : style.color), ground);
  const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) found[`${element.tagName}.${element.getAttribute("class")}`] = ratio;
}
return found;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser: Any, theme: str) -> None:
    """WCAG 2.1's contrast, at least 4.5 to 1."""
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_script(  # every shade there is
        "const cells = document.querySelectorAll('#agreement td');"
        "for (let k = 0; k < 10; k++) cells[k].className = `number heat${k}`;"
    )
    assert browser.execute_script(CONTRAST) == {}


def test_everything_has_a_name_and_can_be_reached(browser: Any) -> None:
    nameless = (
        "return [...document.querySelectorAll('button, select, input, img, svg, [role=img], [tabindex=\"0\"]')]"
        ".filter(e => !(e.labels && e.labels.length) && !e.ariaLabel && !e.alt && e.ariaHidden !== 'true' && "
        "!['BUTTON', 'TH', 'TD'].includes(e.tagName)).map(e => e.outerHTML.slice(0, 90))"
    )
    assert browser.execute_script(nameless) == []
    wanted = browser.execute_script(
        "return [...document.querySelectorAll('a, button, select, input, summary, [tabindex=\"0\"]')]"
        ".filter(e => e.checkVisibility() && !e.disabled).length"
    )
    seen = set()
    one(browser, "body").click()
    browser.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    for _ in range(wanted + 5):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        seen.add(browser.switch_to.active_element.id)
    assert len(seen - {one(browser, "body").id}) >= wanted


def test_on_paper_nothing_is_folded_or_dark(browser: Any) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", **media})
    assert max(colour(browser, "body", "color")) < 60
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    folded = "return [...document.querySelectorAll('details')].filter(e => !e.open).length"
    before = browser.execute_script(folded)
    assert before > 0
    assert browser.execute_script(f"dispatchEvent(new Event('beforeprint')); {folded}") == 0
    assert browser.execute_script(f"dispatchEvent(new Event('afterprint')); {folded}") == before


def test_the_pictures_of_two_sections(page: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    table, records = shots(path)
    assert table.width == records.width == WIDTH
    assert min(table.height, records.height) > 300
    assert len(table.getcolors(100_000) or []) > 20, "something is drawn"
