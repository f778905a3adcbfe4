"""The real App: its server as a subprocess, its page in headless Chromium, nothing else reachable.

Selectors are FiftyOne 1.22's ``data-cy`` marks, roles and texts; they all live in :class:`App`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.animations import write_gif

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COUNT = itertools.count(1)
VIEWPORT = {"width": 1400, "height": 900}
PATIENCE_MS = 90_000
PICTURES = Path(__file__).parents[2] / "docs" / "images"
#: Attribute of the page's root that names its theme
THEME = "data-mui-color-scheme"
#: Hosts that FiftyOne's own page asks for fonts.
FONTS = {"fonts.googleapis.com", "fonts.gstatic.com"}


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    reason = _why_not()
    for item in items:
        if here in Path(item.path).parents:
            item.add_marker(pytest.mark.app)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def _why_not() -> str | None:
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed: pip install playwright"
    if _browser() is None:
        return f"no Chromium on PATH (looked for {', '.join(BROWSERS)}): apt-get install chromium"
    return None


def _browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class App:
    """A page of the App, in the words of a person who uses it."""

    def __init__(self, page, address: str) -> None:
        self.page = page
        self.address = address
        self._frames: list[tuple[bytes, float]] = []

    def open(self, dataset, *, wait_for_grid: bool = True) -> None:
        self.page.goto(f"{self.address}/datasets/{dataset.name}")
        if wait_for_grid:
            self.tiles.first.wait_for()
        self._clear_selection()

    @property
    def tiles(self):
        return self.page.locator('[data-cy="looker"]:has(canvas[canvas-loaded="true"])')

    @property
    def form(self):
        return self.page.locator('[data-cy="operators-prompt-modal"]')

    @property
    def dialog(self):
        """Progress, summary and errors of a running operator."""
        return self.page.locator('[data-cy="operators-prompt-view-modal"]')

    @property
    def toasts(self):
        return self.page.locator(".notistack-Snackbar")

    def select(self, count: int) -> None:
        for index in range(count):
            tile = self.page.locator('[data-cy="looker"]').nth(index)
            tile.hover()
            tile.locator('label[data-cy^="looker-checkbox-"]').click()
        self.page.locator('[data-cy="selection-count-container"]', has_text=str(count)).wait_for()

    def _clear_selection(self) -> None:
        """The server remembers what an earlier page had selected."""
        if self.page.locator('[data-cy="selection-count-container"]').is_visible():
            self.page.locator('[data-cy="action-manage-selected"]').click()
            self.page.locator('[data-cy="item-action-clear-selected-samples"]').click()
            self.page.locator('[data-cy="selection-count-container"]').wait_for(state="hidden")

    def find_operator(self, label: str, *, with_default: str | None = "Label field") -> None:
        """Opens the operator from the operator browser.

        Args:
            label: of the operator
            with_default: an input of its form that has a default, if any
        """
        self.search_operators(label)
        self.choose_operator(label, with_default=with_default)

    def search_operators(self, label: str) -> None:
        self.page.keyboard.press("Backquote")
        self.page.locator('[data-cy="operators-browser-search"]').wait_for()
        self.page.keyboard.type(label)

    def choose_operator(self, label: str, *, with_default: str | None = "Label field") -> None:
        """Clicks what :meth:`search_operators` has found."""
        browser = self.page.locator('[data-cy="operators-browser"]')
        browser.get_by_text(label, exact=True).first.click()
        if with_default is not None:
            self._wait_for_defaults(with_default)

    def press_placement(self, icon: str) -> None:
        """Opens the operator from its button above the grid."""
        self.page.locator(f'[data-cy="fo-grid-actions"] img[src*="{icon}"]').first.click()
        self._wait_for_defaults()

    def _wait_for_defaults(self, label: str = "Label field") -> None:
        """Defaults arrive after the form is first painted and undo what was typed before."""
        from playwright.sync_api import expect

        expect(self.item(label).locator("input")).not_to_have_value("")
        self.page.wait_for_timeout(500)

    def item(self, label: str):
        """The part of the form with this label."""
        exact = self.page.get_by_text(label, exact=True)
        return self.form.locator(".MuiGrid-item").filter(has=exact).last

    def fill(self, label: str, text: str) -> None:
        box = self.item(label).locator("input, textarea:not([readonly])").first
        box.fill(text)

    def choose(self, label: str, option: str) -> None:
        self.item(label).get_by_role("combobox").click()
        self.page.get_by_role("option").filter(has_text=option).first.click()

    def wait_until_valid(self) -> None:
        """The App validates a moment after the last change."""
        from playwright.sync_api import expect

        expect(self.form.get_by_role("button", name="Execute")).to_be_enabled()
        self.page.wait_for_timeout(300)
        expect(self.form.get_by_role("button", name="Execute")).to_be_enabled()

    def execute(self) -> None:
        self.wait_until_valid()
        self.form.get_by_role("button", name="Execute").click()

    def close_dialog(self) -> None:
        self.dialog.get_by_role("button", name="Done").click()
        self.dialog.wait_for(state="hidden")

    def use_theme(self, theme: str) -> None:
        """Presses the button in the page's header if the theme is the other one."""
        if self.theme != theme:
            # By script: a form that is open covers the header
            button = self.page.get_by_title(f"{theme.title()} mode", exact=True).first
            button.dispatch_event("click")
            self.page.wait_for_function(f"document.documentElement.matches('[{THEME}={theme}]')")
        self.page.wait_for_timeout(400)  # colours fade

    @property
    def theme(self) -> str:
        return self.page.locator("html").get_attribute(THEME)

    def screenshot(self, name: str, *, height_px: int = VIEWPORT["height"]) -> None:
        """Rewrites ``docs/images/<name>.png`` if ZS_TEST_UPDATE_SCREENSHOTS is set."""
        if not os.environ.get("ZS_TEST_UPDATE_SCREENSHOTS"):
            return
        self.page.set_viewport_size({**VIEWPORT, "height": height_px})
        self.page.wait_for_timeout(800)  # fades and ripples end
        self.page.screenshot(path=PICTURES / f"{name}.png")
        self.page.set_viewport_size(VIEWPORT)

    def frame(self, seconds: float) -> None:
        """Takes a picture of the page for :meth:`animation`, if ZS_TEST_UPDATE_SCREENSHOTS is set.

        Args:
            seconds: how long it is shown
        """
        if os.environ.get("ZS_TEST_UPDATE_SCREENSHOTS"):
            self.page.wait_for_timeout(800)  # fades and ripples end
            self._frames.append((self.page.screenshot(), seconds))

    def animation(self, name: str) -> None:
        """Rewrites ``docs/images/<name>.gif`` with the frames that were taken, if there are any."""
        if self._frames:
            write_gif(PICTURES / f"{name}.gif", self._frames)


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """Address of a running App server on the tests' own database and plugin folder."""
    port = _free_port()
    log = tmp_path_factory.mktemp("server") / "server.log"
    command = [sys.executable, "-m", "fiftyone.server.main"]
    command += ["--port", str(port), "--address", "127.0.0.1"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(server, f"http://127.0.0.1:{port}/fiftyone", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def browser(address, tmp_path_factory):
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=_browser(),
            headless=True,
            viewport=VIEWPORT,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                # Playwright's own routes would keep the App's scripts from being cached
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        context.add_init_script("window.IS_PLAYWRIGHT = true")
        yield context
        context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    app = item.funcargs.get("app") if hasattr(item, "funcargs") else None
    if app is not None and report.when == "call" and report.failed:
        picture = Path(tempfile.gettempdir(), "zs-app-failures", f"{item.name}.png")
        picture.parent.mkdir(exist_ok=True)
        app.page.screenshot(path=picture)
        report.sections.append(("page at the failure", str(picture)))
    return report


@pytest.fixture
def app(browser, address):
    """The App in a fresh page, from which nothing else can be reached."""
    page = browser.new_page()
    outside = set()

    def note(request):
        if not request.url.startswith(address):
            outside.add(urlsplit(request.url).hostname)

    page.on("request", note)
    yield App(page, address)
    page.close()
    outside.discard(None)  # what is in the page itself: data and blobs
    assert outside <= FONTS, "the page asked for something outside its server"


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(server: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(url, timeout=5).read()
            return
        time.sleep(0.2)
    server.kill()
    pytest.fail(f"the App server did not start:\n{log.read_text(errors='replace')[-3000:]}")


@pytest.fixture
def unreadable_model(tmp_path):
    """Folder of a CLIP whose weights are damaged, which no form can tell."""
    from zs_operators.weights import plan_weights

    folder = tmp_path / "broken-model"
    folder.mkdir()
    shutil.copy(f"{plan_weights('clip', 'shapes-tiny').path}/open_clip_config.json", folder)
    (folder / "open_clip_model.safetensors").write_bytes(b"no weights")
    return folder


@pytest.fixture
def scenes(tmp_path_factory, request):
    """12 scenes of one to six objects with their boxes in ``objects``."""
    from zs_operators.shapes.dataset import load_shapes_dataset

    task = request.module.__name__.rpartition("test_")[2]
    folder = tmp_path_factory.getbasetemp() / f"{task}-scenes"
    # The server remembers selection and view of a dataset by its name
    dataset = load_shapes_dataset(f"{task}-{next(COUNT)}", num_scenes=12, folder=folder)
    dataset.delete_samples(dataset.match_tags("object"))
    dataset.delete_sample_field("ground_truth")
    for sample in dataset.iter_samples(autosave=True):
        for detection in sample.objects.detections:
            detection.mask = None  # all masks that are drawn come from the run
    yield dataset
    dataset.delete()
