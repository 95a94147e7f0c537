"""The README's picture of the report: ``python -m tools.report_figure`` writes results/figures/report.png.

The table and the browser of records of a report made for it, as headless Chromium draws them, one above the other. The
same rows, fonts and browser give the same bytes.
"""

from __future__ import annotations

import base64
import io
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from spatialbench.report.html.page import write_report
from spatialbench.utils.errors import SpatialbenchError, atomic_path

SECTIONS = ("table", "records")
WIDTH = 1100
"""Of the page in pixels: the text stays readable where the README shows the picture 900 wide."""
BACKGROUND = "#fbfbfa"
COLOURS = 256
"""Of the file: a third of the bytes, and no difference that one sees."""
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --window-size=1280,900"
)
MISSING = "it needs selenium, chromium and chromedriver: pip install -e '.[dev]' and apt-get install chromium chromium-driver"


def programs() -> tuple[str, str] | None:
    """Chromium and its driver; None where one of them is not installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return None if browser is None or driver is None else (browser, driver)


@contextmanager
def chromium(profile: Path, logs: Sequence[str] = ()) -> Iterator[Any]:
    """A headless browser.

    Args:
        profile: an empty folder for its files.
        logs: kinds of log that it keeps.

    Raises:
        SpatialbenchError: it is not installed.
    """
    found = programs()
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        found = None
    if found is None:
        raise SpatialbenchError(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    if logs:
        options.set_capability("goog:loggingPrefs", dict.fromkeys(logs, "ALL"))
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    try:
        yield driver
    finally:
        driver.quit()


def shots(report: Path, names: Sequence[str] = SECTIONS, width: int = WIDTH) -> list[Image.Image]:
    """Sections of a report in light colours, each as one picture of its whole height."""
    with TemporaryDirectory() as profile, chromium(Path(profile)) as driver:
        metrics = {"width": width, "height": 4000, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
        driver.get(report.resolve().as_uri())
        box = "const box = document.getElementById(arguments[0]).getBoundingClientRect();"
        script = f"{box} return [box.y + scrollY, box.height]"
        found = []
        for name in names:
            top, height = driver.execute_script(script, name)
            clip = {"x": 0, "y": top - 4, "width": width, "height": height + 8, "scale": 1}
            asked = {"format": "png", "captureBeyondViewport": True, "clip": clip}
            content = driver.execute_cdp_cmd("Page.captureScreenshot", asked)["data"]
            found.append(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
        return found


def stacked(pictures: Sequence[Image.Image], background: str = BACKGROUND) -> Image.Image:
    """Pictures one above the other, in few colours."""
    size = max(one.width for one in pictures), sum(one.height for one in pictures)
    whole, top = Image.new("RGB", size, background), 0
    for one in pictures:
        whole.paste(one, (0, top))
        top += one.height
    return whole.quantize(COLOURS, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)


def main(argv: Sequence[str] = ()) -> int:
    """Writes the picture.

    Args:
        argv: a report that is there already, where one need not be made.
    """
    path = Path("results/figures/report.png")
    try:
        if programs() is None:
            raise SpatialbenchError(MISSING)
        with TemporaryDirectory() as folder:
            report = (
                Path(argv[0])
                if argv
                else write_report(Path(folder) / "report.html", relevance=False)
            )
            picture = stacked(shots(report))
    except SpatialbenchError as error:
        print(f"{path} not made: {error}", file=sys.stderr)
        return 1
    with atomic_path(path) as temporary:
        picture.save(temporary, "PNG", optimize=True)
    print(f"wrote {path}: {picture.width} x {picture.height}, {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
