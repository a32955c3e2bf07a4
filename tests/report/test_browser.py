"""The page in a real browser: headless Chromium, from a file, with every request and every console line watched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modicum.report import ReportContent, page

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs the package selenium")

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
)
READY = "return !!document.querySelector('#chart .main-svg')"


@pytest.fixture(scope="module")
def address(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(content), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def opened(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser with the page, opened once; tests leave it as they found it or do not mind."""
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        load(driver, address)
        yield driver
    finally:
        driver.quit()


def load(driver: Any, address: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(address)
    WebDriverWait(driver, 10, 0.05).until(lambda d: d.execute_script(READY))


def one(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def click(driver: Any, selector: str) -> None:
    element = one(driver, selector)
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    element.click()


def shown(driver: Any) -> list[str]:
    """The methods in the table, in order, that are not filtered out."""
    script = "return [...document.querySelectorAll('#results tbody tr')].filter(r => r.checkVisibility())"
    return list(driver.execute_script(f"{script}.map(r => r.cells[0].innerText.trim().split(/\\s/)[0])"))


def visible_series(driver: Any) -> set[str]:
    script = "return document.querySelector('#chart').data.filter(t => t.visible !== false).map(t => t.name)"
    return set(driver.execute_script(script)) - {"recommended"}


def width(driver: Any, pixels: int, mobile: bool) -> None:
    size = {"width": pixels, "height": 800, "deviceScaleFactor": 1, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def until_drawn(driver: Any) -> None:
    """Wait until the chart has followed the width of the page."""
    from selenium.webdriver.support.ui import WebDriverWait

    script = "const c = document.querySelector('#chart'); return c.clientWidth === c._fullLayout.width"
    WebDriverWait(driver, 5, 0.02).until(lambda d: d.execute_script(script))


def test_it_loads_without_errors_and_without_requests(opened: Any, address: str) -> None:
    assert [line for line in opened.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []
    events = [json.loads(line["message"])["message"] for line in opened.get_log("performance")]
    sent = [
        e["params"]["request"]["url"]
        for e in events
        if e["method"] == "Network.requestWillBeSent" and not e["params"]["documentURL"].startswith("chrome:")
    ]
    assert address in sent
    assert {url for url in sent if not url.startswith(("data:", "blob:"))} == {address}


def test_a_request_would_have_been_seen_and_is_refused(opened: Any) -> None:
    opened.execute_script(
        "const i = new Image(); i.src = 'https://192.0.2.1/pixel.png'; document.body.append(i); i.remove()"
    )
    lines = [line["message"] for line in opened.get_log("browser")]
    assert any("Content Security Policy" in line for line in lines)


def test_the_table_filters_and_says_how_many(opened: Any, content: ReportContent) -> None:
    box = one(opened, "#filter input")
    box.send_keys("shapley 10%")
    assert shown(opened) == ["knn-shapley"]
    assert one(opened, "#shown").text == f"1 of {len(content.rows)} rows"
    assert one(opened, "#shown").get_attribute("aria-live") == "polite"
    box.clear()
    box.send_keys(" ")
    one(opened, "#filter select[name=family] option[value=distillation]").click()
    assert shown(opened) == ["dm"] * 3
    one(opened, "#filter select[name=budget] option[value='30%']").click()
    assert shown(opened) == ["dm"]
    one(opened, "#filter select[name=family] option[value='']").click()
    one(opened, "#filter select[name=budget] option[value='']").click()
    assert len(shown(opened)) == len(content.rows)


def test_every_column_sorts_by_keyboard(opened: Any, content: ReportContent) -> None:
    from selenium.webdriver.common.keys import Keys

    heads = opened.find_elements("css selector", "#results thead th")
    for head in heads:
        head.find_element("css selector", "button").send_keys(Keys.ENTER)
        assert head.get_attribute("aria-sort") == "ascending"
    assert len(opened.find_elements("css selector", "#results [aria-sort]")) == 1
    test = next(h for h in heads if h.text.startswith("Test"))
    for ordered in (sorted(content.rows, key=lambda r: r.test_mean), sorted(content.rows, key=lambda r: -r.test_mean)):
        test.find_element("css selector", "button").send_keys(Keys.SPACE)
        assert shown(opened)[:8] == [r.method for r in ordered][:8]
    assert test.get_attribute("aria-sort") == "descending"
    gap = next(h for h in heads if h.text.startswith("Against random"))
    for _ in range(2):
        gap.find_element("css selector", "button").send_keys(Keys.ENTER)
        last = opened.find_elements("css selector", "#results tbody tr")[-1]
        assert last.find_elements("css selector", "td")[4].text == "–", "what is not known comes last either way"


def test_a_series_hides_and_a_control_cannot(opened: Any, content: ReportContent) -> None:
    controls = {r.method for r in content.rows if r.control}
    every = {r.method for r in content.rows}
    assert visible_series(opened) == every
    click(opened, "button[data-series=el2n]")
    assert one(opened, "button[data-series=el2n]").get_attribute("aria-pressed") == "false"
    assert visible_series(opened) == every - {"el2n"}
    for control in opened.find_elements("css selector", ".series.control"):
        control.click()
    assert visible_series(opened) == every - {"el2n"}
    click(opened, "[data-show=none]")
    assert visible_series(opened) == controls
    click(opened, "[data-show=all]")
    assert visible_series(opened) == every


def test_the_axis_changes_and_the_chart_zooms(opened: Any, content: ReportContent) -> None:
    def axis(name: str) -> list[float]:
        return [
            float(v) for v in opened.execute_script(f"return document.querySelector('#chart')._fullLayout.{name}.range")
        ]

    flops = axis("xaxis")
    assert flops[0] < 8.4 < 9.4 < flops[1], "a logarithmic axis around 240 MFLOP to 3 GFLOP"
    click(opened, "[data-view=in]")
    assert axis("xaxis")[1] - axis("xaxis")[0] == pytest.approx(0.7 * (flops[1] - flops[0]))
    click(opened, "[data-view=target]")
    low, high = axis("yaxis")
    assert content.target - 0.1 < low < content.target < high
    click(opened, "[data-view=all]")
    click(opened, "input[value=samples] + span")
    assert 3 < axis("xaxis")[0] < axis("xaxis")[1] < 5
    click(opened, "input[value=flops] + span")
    assert axis("xaxis") == pytest.approx(flops)
    ticks = opened.execute_script("return [...document.querySelectorAll('#chart .xtick text')].map(t => t.textContent)")
    assert "1 G" in ticks


@pytest.mark.parametrize("pixels", [360, 1280])
def test_hovering_tells_every_column(opened: Any, pixels: int) -> None:
    width(opened, pixels, False)
    until_drawn(opened)
    opened.execute_script("Plotly.Fx.hover('chart', [{curveNumber: 4, pointNumber: 0}])")
    label = one(opened, "#chart .hoverlayer").text
    box = opened.execute_script(
        "const b = s => document.querySelector(s).getBoundingClientRect(); const [h, c] = [b('#chart .hovertext'), b('#chart')]; return [h.left - c.left, c.right - h.right]"
    )
    assert min(box) >= 0, "the label stays within the chart"
    for part in ("el2n at 10%", "Test: ", "MFLOP (choosing ", "Peak memory: ", "Seeds: 3"):
        assert part in label


def test_the_chart_saves_as_a_picture_under_the_policy(opened: Any) -> None:
    opened.get_log("browser")
    script = "const done = arguments[0]; Plotly.toImage('chart', {format: 'png', width: 300, height: 200}).then(done, e => done(String(e)))"
    assert opened.execute_async_script(script).startswith("data:image/png;base64,iVBOR")
    assert opened.get_log("browser") == []


def test_panels_switch(opened: Any) -> None:
    def panels(name: str) -> list[Any]:
        return [p for p in opened.find_elements("css selector", f"[data-panel={name}]") if p.is_displayed()]

    one(opened, "[data-switch=cost] select[data-key=budget] option[value='60%']").click()
    one(opened, "[data-switch=cost] select[data-key=unit] option[value=time]").click()
    (panel,) = panels("cost")
    assert "Time at a budget of 60%" in panel.text
    one(opened, "[data-switch=keep] select option[value='30%']").click()
    (panel,) = panels("keep")
    assert "at a budget of 30%" in panel.text
    one(opened, "#class option[value='3']").click()
    assert len(opened.find_elements("css selector", "path.one.shown")) == len(
        opened.find_elements("css selector", ".histogram")
    )


def test_dark_toggles_the_page_and_the_chart(opened: Any) -> None:
    def colors() -> tuple[str, str]:
        script = "const c = document.querySelector('#chart'); return [getComputedStyle(document.body).backgroundColor, c._fullLayout.font.color]"
        page_color, chart_color = opened.execute_script(script)
        return page_color, chart_color

    before = colors()
    click(opened, "#theme")
    dark = colors()
    assert one(opened, "#theme").get_attribute("aria-pressed") == "true"
    assert dark[0] != before[0]
    assert dark[1] != before[1]
    click(opened, "#theme")
    assert colors() == before


def test_the_system_preference_is_followed(opened: Any, address: str) -> None:
    opened.execute_script("localStorage.clear(); delete document.documentElement.dataset.theme")
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    assert opened.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 27)"
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{**feature, "value": "light"}]})
    assert opened.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(250, 249, 247)"


@pytest.mark.parametrize(("pixels", "mobile"), [(320, True), (360, True), (768, False), (1280, False)])
def test_the_page_never_scrolls_sideways(opened: Any, pixels: int, mobile: bool) -> None:
    width(opened, pixels, mobile)
    page_width, room = opened.execute_script(
        "const r = document.documentElement; return [r.scrollWidth, r.clientWidth]"
    )
    assert page_width == room <= pixels
    until_drawn(opened)
    inner = opened.execute_script(
        "const s = document.querySelector('.scroll.tall'); return [s.scrollWidth, s.clientWidth]"
    )
    assert inner[0] > inner[1], "the table scrolls inside its own container"


def test_the_keyboard_starts_at_a_skip_link_with_a_visible_focus(opened: Any, address: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    width(opened, 1280, False)
    opened.execute_script("scrollTo(0, 0); document.activeElement.blur()")
    load(opened, address)
    ActionChains(opened).send_keys(Keys.TAB).perform()
    skip = opened.switch_to.active_element
    assert skip.get_attribute("class") == "skip"
    assert skip.value_of_css_property("outline-style") == "solid"
    skip.send_keys(Keys.ENTER)
    assert opened.switch_to.active_element.get_attribute("id") == "main"


def test_it_reads_without_scripts(opened: Any, address: str, content: ReportContent) -> None:
    opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened.get(address)
        assert one(opened, "h1").text == content.recommendation.sentence
        assert len(opened.find_elements("css selector", "#results tbody tr")) == len(content.rows)
        assert one(opened, "noscript .notice").is_displayed()
        assert not one(opened, "#filter").is_displayed()
        assert not one(opened, "#theme").is_displayed()
    finally:
        opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_screenshot_is_not_blank(opened: Any, address: str, tmp_path: Path) -> None:
    import io

    import numpy as np
    from PIL import Image

    width(opened, 1280, False)
    load(opened, address)
    one(opened, "#chart")
    opened.execute_script("document.querySelector('#chart').scrollIntoView({behavior: 'instant'})")
    (tmp_path / "chart.png").write_bytes(png := opened.get_screenshot_as_png())
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colors = len(np.unique(pixels[::7] // 32, axis=0))
    assert colors > 20, "lines of ten colors and their edges"
