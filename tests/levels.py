"""The two levels of the suite: `make test` runs the fast one, `make test-all` runs every test.

`pytest --fast` is what `make test` runs. It leaves out tests marked `slow` and draws fewer examples for each
property. It also enforces what the level promises: no test is skipped, and a test that takes more than
`LONGEST_SECONDS` fails. Without `--fast`, every test runs and properties get more examples.

The marker `slow` is for a test that takes long or needs what a fresh machine lacks: a server, a system
package, root, a framework, recordings. A test that uses `skipif` or one of `SLOW_FIXTURES` gets it by itself.
Tests that share a server or an expensive fixture run on one worker of pytest-xdist, one after the other.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable

import pytest
from hypothesis import settings

#: Fixtures that need what a fresh machine lacks, with the group of tests that share what they start.
SLOW_FIXTURES = {
    "slurm_cluster": "slurm",
    "ray_cluster": "ray",
    "two_hosts": "hosts",
    "four_hosts": "hosts",
    "postgres_url": None,
    "_fashion_mnist": None,
    "small_disk": None,
}
#: Fixtures of a whole session that are expensive: tests that use one run on one worker.
SHARED_FIXTURES = {"tuned": "tuned", "reported": "reported"}
#: A test of the fast level that takes longer (seconds) is listed at the end of the run.
REPORTED_SECONDS = 5.0
#: A test of the fast level that takes longer (seconds) on a quiet machine fails.
LONGEST_SECONDS = 30.0
#: Processes that want to run per core while the suite alone runs; with more of them, other work slows tests.
QUIET_LOAD = 3.0

settings.register_profile("fast", deadline=None, max_examples=50)
settings.register_profile("full", deadline=None, max_examples=200)


def examples(count: int) -> settings:
    """Settings of a property: half of `count` examples in the fast level, twice as many in the full one."""
    return settings(max_examples=max(count * settings().max_examples // 100, 1))


def mostly_slow(values: Iterable[object], *, fast: Collection[object]) -> list[object]:
    """Values (or tuples of them) for `pytest.mark.parametrize`, all marked slow but those in `fast`.

    Raises:
        ValueError: One in `fast` is not among the values.
    """
    values = list(values)
    unknown = [value for value in fast if value not in values]
    if unknown:
        raise ValueError(f"not among the values: {unknown}")
    return [
        value
        if value in fast
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values
    ]


def longest_seconds() -> float:
    """How long a test of the fast level may take now: longer on a machine that is busy with other work."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return LONGEST_SECONDS * max(1.0, load / QUIET_LOAD)


class FastLevel:
    """Holds each test of the fast level to its promises, and lists those that take long."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turns a skip or a test that took too long into a failure."""
        report = yield
        self._seconds[item.nodeid] += report.duration
        if report.skipped:
            report.outcome = "failed"
            report.longrepr = f"skipped in the fast level, mark it slow: {report.longrepr}"
        elif report.passed and report.when == "teardown":
            seconds, allowed = self._seconds[item.nodeid], longest_seconds()
            if seconds > allowed:
                report.outcome = "failed"
                report.longrepr = (
                    f"took {seconds:.1f} s; a test of the fast level may take {allowed:.0f} s: "
                    "make it faster or mark it slow"
                )
        return report


class SlowTests:
    """Lists at the end of a run which tests took long."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Adds up setup, call and teardown of each test."""
        self._seconds[report.nodeid] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Prints the tests that took longer than `REPORTED_SECONDS`, longest first."""
        long = [(s, name) for name, s in self._seconds.items() if s > REPORTED_SECONDS]
        if long:
            terminalreporter.section(f"tests that took more than {REPORTED_SECONDS:g} s")
        for seconds, name in sorted(long, reverse=True):
            terminalreporter.write_line(f"{seconds:6.1f} s  {name}")


def configure(config: pytest.Config) -> None:
    """Chooses the level: hypothesis's profile, and in the fast level the promises."""
    fast = bool(config.getoption("--fast"))
    settings.load_profile("fast" if fast else "full")
    if fast:
        config.pluginmanager.register(FastLevel(), "paceline-fast-level")
        # With pytest-xdist the tests run in workers, and the controller prints.
        if not hasattr(config, "workerinput"):
            config.pluginmanager.register(SlowTests(), "paceline-slow-tests")


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the tests of slow fixtures, groups those that share something, and leaves out what is slow."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        # A test that may have to be skipped needs something that a fresh machine lacks.
        if names & set(SLOW_FIXTURES) or item.get_closest_marker("skipif") is not None:
            item.add_marker(pytest.mark.slow)
        group = next(_groups(names), None)
        if group is not None and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group))
    if config.getoption("--fast"):
        left_out = [item for item in items if item.get_closest_marker("slow") is not None]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("slow") is None]


def _groups(fixtures: set[str]) -> Iterable[str]:
    for fixture, group in {**SLOW_FIXTURES, **SHARED_FIXTURES}.items():
        if group is not None and fixture in fixtures:
            yield group
