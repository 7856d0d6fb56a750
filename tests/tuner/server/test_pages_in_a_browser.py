"""The web pages in Chromium, with a real server and a real worker: from the login to the report."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from storage import open_storage
from tests.chromium import CHROMIUM, Chromium
from tests.cli.workplace import PACELINE
from tests.recorded_grid import write_job
from tests.tuner.report.test_in_a_browser import OVERPRINTED
from tests.tuner.server.seeded import PROBES, ended_job, job_under_way, other_jobs
from tuner.domain.job_queue import NewJob, Role

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("pages"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]

HOSTILE = "<script>document.title='hacked'</script>\"'><img src=x onerror=\"document.title='hacked'\">"
#: Titles of the sections of the report that the page of a job shows.
PARTS = (
    "What would change the answer",
    "Time against",
    "Where the time of a step goes",
    "Batch size and learning rate",
    "Measured curves and their forecasts",
    "Predicted against measured",
    "Asked for and used",
)
TITLES = "[...document.querySelectorAll('#analysis h2')].map((title) => title.innerText)"
SIZES = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
SETTINGS = """
[approval]
node_hours = 0.001
"""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A running server with its database.

    Args:
        address: Address of the pages.
        folder: Folder with the database.
        token: Text of a token of an administrator.
    """

    address: str
    folder: Path
    token: str

    @property
    def storage(self) -> str:
        return f"sqlite:///{self.folder}/service.db"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server and a worker."""
    folder = tmp_path_factory.mktemp("service")
    settings = folder / "serve.toml"
    settings.write_text(SETTINGS)
    storage = f"sqlite:///{folder}/service.db"
    with open_storage(storage) as store:
        _, token = store.tokens.create(HOSTILE, Role.ADMIN)
    serve = [PACELINE, "serve", "--port", "0", "--storage", storage, "--settings", str(settings)]
    work = [PACELINE, "worker", "--storage", storage, "--artifacts", str(folder / "out")]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, cwd=folder) as server:
        assert server.stderr is not None
        with subprocess.Popen(work, cwd=folder, stderr=subprocess.DEVNULL) as worker:
            try:
                lines = []
                while not (found := re.search(r"http://127\.0\.0\.1:\d+", "".join(lines))):
                    lines.append(server.stderr.readline())
                    assert lines[-1], lines
                yield Service(address=found[0], folder=folder, token=token)
            finally:
                for process in (worker, server):
                    process.send_signal(signal.SIGTERM)
                worker.wait(30)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with Chromium(tmp_path) as browser:
        yield browser


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, which finds faults of accessibility."""
    folder, npm = tmp_path_factory.mktemp("axe"), shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: apt-get install npm")
    packed = subprocess.run([npm, "pack", "axe-core@4"], cwd=folder, capture_output=True, timeout=60)
    if packed.returncode != 0:
        pytest.skip("axe-core cannot be fetched from the npm registry")
    with tarfile.open(next(folder.glob("axe-core-*.tgz"))) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def log_in(browser: Chromium, service: Service) -> None:
    browser.open(service.address)
    # Chromium moves the focus with the first frame, which may come after the load.
    browser.wait_for("document.activeElement.id === 'token'")
    browser.type(service.token)
    browser.press("Enter", loads=True)
    assert browser.evaluate("location.pathname") == "/"


def state(browser: Chromium, words: str, seconds: float = 30.0) -> None:
    """Waits until the page shows a state of its job, without loading the page again."""
    browser.wait_for(f"document.querySelector('h1 .state').innerText === {words!r}", seconds)


def check_page(browser: Chromium, service: Service) -> None:
    """Checks that nothing failed, nothing was requested elsewhere, and nothing hostile was run."""
    assert browser.problems == []
    assert {r for r in browser.requests if not r.startswith(service.address)} <= {"about:blank"}
    assert browser.evaluate("document.title").endswith("Paceline")
    assert browser.evaluate("document.images.length") == 0
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("size", SIZES)
def test_a_job_goes_from_the_login_to_the_report(
    browser: Chromium, service: Service, tmp_path: Path, size: str
) -> None:
    width, height, phone = SIZES[size]
    browser.show(width, height, phone=phone)
    log_in(browser, service)
    check_page(browser, service)
    job = write_job(tmp_path)
    browser.open(f"{service.address}/submit")
    browser.choose_file("#job_upload", job)
    browser.wait_for("document.querySelector('#job_file').value.includes('grid.jsonl.gz')")
    assert browser.evaluate("document.querySelector('#name').value") == "replay"
    browser.choose_file("#files", tmp_path / "grid.jsonl.gz")
    browser.click("button[value=plan]")
    assert "will wait for approval" in browser.text()
    assert "24 configurations" in browser.text()
    check_page(browser, service)
    browser.click("form[action='/submit/confirm'] button")
    state(browser, "awaiting approval")
    browser.click("form[action$='/approve'] button")
    state(browser, "succeeded")
    browser.wait_for("document.querySelector('#best h2').innerText === 'Recommendation'")
    assert browser.evaluate("document.querySelectorAll('#curves polyline').length") > 1
    assert "decision" in browser.text()
    browser.wait_for("document.querySelector('#analysis h2') !== null")
    titles = browser.evaluate(TITLES)
    # A replayed recording times no steps, and nothing was overridden.
    missing = [part for part in PARTS if not any(title.startswith(part) for title in titles)]
    assert missing == ["Where the time of a step goes", "Asked for and used"]
    # The styles of the report are at work: the colors and the width of its charts.
    assert browser.evaluate("document.querySelectorAll('#analysis .chart').length") >= 4
    drawn = "getComputedStyle(document.querySelector('#analysis .chart text')).fill"
    assert browser.evaluate(drawn) in ("rgb(22, 25, 29)", "rgb(82, 90, 100)")
    check_page(browser, service)
    browser.click("#next-step a")
    (frame,) = browser.send("Page.getFrameTree")["frameTree"]["childFrames"]
    assert frame["frame"]["url"].endswith("/files/report/report.html")
    assert "unreachableUrl" not in frame["frame"]
    world = browser.send("Page.createIsolatedWorld", frameId=frame["frame"]["id"])["executionContextId"]
    script = "[document.querySelector('h1').innerText, origin, getComputedStyle(document.body).margin]"
    shown = browser.send("Runtime.evaluate", expression=script, contextId=world, returnByValue=True)
    heading, origin, margin = shown["result"]["value"]
    assert "node" in heading
    exported = "fetch('export?target=env&folder=/home/me').then((answer) => answer.text())"
    assert "LEARNING_RATE" in browser.evaluate(exported)
    # It is not of the origin of the pages, and its own styles work.
    assert (origin, margin) == ("null", "0px")
    check_page(browser, service)


def test_a_running_job_is_watched_and_cancelled(browser: Chromium, service: Service) -> None:
    browser.show(1280, 900, dark=True)
    log_in(browser, service)
    browser.open(f"{service.address}/submit?example=true")
    # The target is far away, so that the job does not end by itself.
    browser.evaluate("(() => { job_file.value = job_file.value.replace('0.95', '0.9999') })()")
    browser.click("button[value=plan]")
    browser.click("form[action='/submit/confirm'] button")
    browser.click("form[action$='/approve'] button")
    state(browser, "running")
    assert "without one there is no answer" in browser.text()
    browser.wait_for("document.querySelector('#decisions').innerText.includes('decision')", 30)
    browser.click(".confirm summary", loads=False)
    browser.press("Escape")
    assert browser.evaluate("document.querySelector('.confirm').open") is False
    browser.press("Enter")
    browser.click("form[action$='/cancel'] button")
    state(browser, "cancelled")
    browser.wait_for("document.querySelector('#change').hidden")
    browser.open(f"{service.address}/workers")
    assert "idle" in browser.text()
    check_page(browser, service)


def test_all_pages_are_accessible_and_show_hostile_names_as_text(
    browser: Chromium, service: Service, axe: str
) -> None:
    with open_storage(service.storage) as store:
        report = "<!doctype html><html lang=en><title>r</title><body>report</body></html>"
        # Before the worker sees them, they are taken by another one.
        ended = ended_job(store, None, report, HOSTILE, labels=("gpu",), priority=9)
        running = job_under_way(store, None, HOSTILE, labels=("gpu",), priority=9)
        store.queue.add_event(running, "decision", HOSTILE)
        store.queue.submit(NewJob(name=HOSTILE, job_file=HOSTILE, labels=("gpu",)))
        other_jobs(store, None, labels=("gpu",))
    browser.show(1280, 900)
    found = []
    browser.open(service.address)
    found += accessibility(browser, axe)
    log_in(browser, service)
    paths = ["/", "/submit?example=true", "/workers", "/tokens", "/audit", "/?name=nothing"]
    paths += [f"/jobs/{running}", *(f"/jobs/{ended}{part}" for part in ("", "/plan", "/report", "/log"))]
    for dark, phone in ((False, False), (True, False), (False, True)):
        browser.show(390 if phone else 1280, 844, dark=dark, phone=phone)
        for path in paths:
            browser.open(f"{service.address}{path}")
            found += [f"{path}: {fault}" for fault in accessibility(browser, axe)]
            if path in ("/", f"/jobs/{running}", f"/jobs/{ended}"):
                assert HOSTILE in browser.text()
            if path == f"/jobs/{ended}":
                check_analysis(browser)
            check_page(browser, service)
    assert found == []


def check_analysis(browser: Chromium) -> None:
    """Checks that the page of a job shows each part of its analysis, and that no text is printed over."""
    titles = browser.evaluate(TITLES)
    assert [part for part in PARTS if not any(title.startswith(part) for title in titles)] == []
    assert browser.evaluate("document.querySelectorAll('#analysis figure svg.chart').length") == len(PROBES)
    assert browser.evaluate("document.querySelectorAll('#analysis svg.bar').length") == 3
    assert browser.evaluate(OVERPRINTED) == []
    browser.evaluate("document.querySelectorAll('#analysis details').forEach((part) => { part.open = true })")


def accessibility(browser: Chromium, axe: str) -> list[str]:
    """Returns the serious and critical faults of a page that axe-core finds."""
    browser.evaluate(f"{axe};null")
    # The report in its frame has no access to axe-core, and axe-core none to the report.
    options = '{resultTypes: ["violations"], iframes: false}'
    faults = f"""axe.run(document, {options}).then((result) => result.violations
        .filter((fault) => ["serious", "critical"].includes(fault.impact))
        .map((fault) => `${{fault.id}} ${{fault.nodes[0].html}}`))"""
    return list(browser.evaluate(faults))
