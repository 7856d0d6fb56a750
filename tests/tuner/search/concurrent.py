"""Synthetic training of several at once, on a clock of events."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from search_spaces import Configuration
from tests.tuner.search.scripted import Killed
from tests.tuner.search.synthetic import SyntheticProber
from tests.tuner.search.world import World
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.probes import ProbeHandle, Until


@dataclass(kw_only=True)
class Under:
    """A slice under way."""

    configuration: Configuration
    folder: Path
    started_at: float
    ends_at: float


@dataclass
class ConcurrentProber(SyntheticProber):
    """Lets time pass to the end of the slice that ends next, when that one is polled; watches what is held.

    Args:
        held: Nodes that were held each time a slice was started.
        doubled: Runs that were started while they were under way.
    """

    under: dict[str, Under] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        now = self.clock.now
        handle = super().start(configuration, purpose, until, folder)
        ends_at, self.clock.now = self.clock.now, now
        self.under[handle.identity] = Under(
            configuration=configuration, folder=folder, started_at=now, ends_at=ends_at
        )
        folders = [running.folder for running in self.under.values()]
        assert len(folders) == len(set(folders)), f"two slices of one probe at once: {folder}"
        self.held.append(sum(running.configuration.nodes for running in self.under.values()))
        self.folders.append(folder)
        return handle

    def poll(self, handle: ProbeHandle) -> Measurement:
        measurement = super().poll(handle)
        running = self.under.get(handle.identity)
        if running is None:
            return measurement
        if running.ends_at > min(other.ends_at for other in self.under.values()):
            return self._running(handle, running, Outcome.RUNNING)
        self.clock.now = max(self.clock.now, running.ends_at)
        del self.under[handle.identity]
        return measurement

    def cancel(self, handle: ProbeHandle) -> None:
        running = self.under.pop(handle.identity, None)
        if running is not None:
            self.cancelled += 1
            part = self._running(handle, running, Outcome.STOPPED)
            self.charged_seconds += part.charged_seconds - self._done[handle.identity].charged_seconds
            self._done[handle.identity] = part

    def now(self) -> float:
        return self.clock.now

    def _running(self, handle: ProbeHandle, running: Under, outcome: Outcome) -> Measurement:
        return Measurement(
            configuration=handle.configuration,
            purpose=handle.purpose,
            outcome=outcome,
            charged_seconds=self.clock.now - running.started_at,
        )


def concurrent_prober(world: World) -> ConcurrentProber:
    """Of a world's law, on its clock."""
    return ConcurrentProber(law=world.law, clock=world.clock, cluster=world.cluster, seed=world.seed)


class ConcurrentDying(ConcurrentProber):
    """Is killed when one slice more than so many is started."""

    left = 4

    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return super().start(configuration, purpose, until, folder)

    def cancel(self, handle: ProbeHandle) -> None:
        """A process that was killed cancels nothing."""
        self.under.pop(handle.identity, None)
