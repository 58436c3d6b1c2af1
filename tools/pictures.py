"""Photograph the pages that people see, on the made-up scans of ``lamina demo``.

make demo
python tools/pictures.py demo      # writes docs/pictures
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
LAMINA = (sys.executable, "-m", "lamina")
WAIT_MS = 300_000
READY = "#screen[data-ready]"


def main() -> None:
    """Write the pictures of a demonstration's report, of its scans, of the viewer and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="folder that lamina demo wrote")
    demo = parser.parse_args().demo
    scan = min((demo / "scans" / "imagesTs").glob("*.nii.gz"))
    PICTURES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, browser() as chromium:
        place = Path(folder)
        subprocess.run([*LAMINA, "report", demo / "run", "-o", place / "report.html"], check=True)
        subprocess.run([*LAMINA, "doctor", demo / "scans", "--report", place / "doctor"])
        with opened(chromium, (place / "report.html").as_uri()) as page:
            keep(page, "report")
            page.locator("#cases").evaluate("section => section.scrollIntoView()")
            keep(page, "cases")
        with opened(chromium, (place / "doctor" / "index.html").as_uri()) as page:
            keep(page, "doctor")
        view = ("view", scan, demo / "predicted" / scan.name, "--no-browser")
        with serving(*view) as url, opened(chromium, url, color_scheme="dark") as page:
            page.wait_for_selector(READY)
            keep(page, "viewer")
        serve = ("serve", "--models", demo / "run", "--data", place, "--port", "0")
        with serving(*serve) as url, opened(chromium, url) as page:
            page.wait_for_selector(".choice")
            page.set_input_files("#files", scan)
            page.click("#go")
            page.wait_for_selector(READY)
            keep(page, "server")


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield Chromium without a screen."""
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        with started:
            yield started


@contextmanager
def opened(
    chromium: Browser, url: str, color_scheme: Literal["light", "dark"] = "light"
) -> Iterator[Page]:
    """Yield the page at an address."""
    size = ViewportSize(width=1280, height=860)
    with chromium.new_context(viewport=size, color_scheme=color_scheme) as context:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(url)
        yield page


@contextmanager
def serving(*arguments: object) -> Iterator[str]:
    """Yield the address at which a command answers."""
    command = [*LAMINA, *map(str, arguments), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            document = "".join(takewhile(lambda line: line != "}\n", process.stdout)) + "}"
            yield json.loads(document)["url"]
        finally:
            process.terminate()


def keep(page: Page, name: str) -> None:
    """Write what the window shows."""
    page.wait_for_timeout(1500)  # surfaces are drawn after the page is there
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shown.save(PICTURES / f"{name}.webp", quality=90, method=6)


if __name__ == "__main__":
    main()
