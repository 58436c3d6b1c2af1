"""A browser for the page, which notes what went wrong in it and what it asked of others."""

import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
)
WAIT_MS = 150_000


@pytest.fixture(scope="session")
def browser():
    """Chromium without a screen."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield started
        started.close()


class Faults(list):
    """Errors on the console, exceptions, violations of the policy, and requests to others."""

    def watch(self, page):
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda said: said.type == "error" and self.append(said.text))
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("request", self._check)

    def _check(self, request):
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.hostname != "127.0.0.1":
            self.append(f"asked {request.url}")


@contextmanager
def visited(browser, url, faults, width=1280, height=900, **options):
    """Yield the page at an address, opened in a fresh browser."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    faults.watch(page)
    page.goto(url)
    yield page
    context.close()


@pytest.fixture
def faults():
    """What went wrong; there must be nothing at the end."""
    noted = Faults()
    yield noted
    assert not noted


@pytest.fixture
def visit(browser, faults):
    """Open a page: ``with visit(url, width=390) as page``."""
    return lambda url, **options: visited(browser, url, faults, **options)
