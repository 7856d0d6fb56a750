"""The report stays small and quick in a large study."""

from __future__ import annotations

import pytest

from benchmarks import reports


@pytest.mark.slow
def test_a_report_stays_within_its_bounds() -> None:
    small, large = reports.rows([100, 2000])
    assert small["html_kilobytes"] < 500
    # Memory does not depend on the load of the machine. CPU seconds do: measured 6 and 8 s on two busy cores
    # with a load of 9 to 14, where those of the same program vary by a factor of two.
    assert large["peak_megabytes"] < 200
    assert large["cpu_seconds"] < 10
