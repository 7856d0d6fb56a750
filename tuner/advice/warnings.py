"""Writes the warnings that are shown with a recommendation: reasons why it may be wrong."""

from __future__ import annotations

from search_spaces import Configuration
from tuner.advice.script_warnings import script_warnings
from tuner.advice.strategy_words import ranks_words
from tuner.search.policy import Stop, StopKind
from tuner.search.recheck import cold_start
from tuner.search.state import SearchState


def cautions(state: SearchState, stop: Stop, choice: Configuration) -> list[str]:
    """Returns warnings about reasons why a recommendation may be wrong.

    Examples of reasons are shared cores, artificial delays, failed trainings, the end of the budget, and
    times from a single run.

    Args:
        state: State at the end of the search.
        stop: The last action of the search, with the cause of its end.
        choice: The recommended configuration.

    Returns:
        One or two sentences for each reason.
    """
    lines = []
    shared = state.cluster.oversubscription(choice.nodes)
    if shared > 1:
        lines.append(
            f"{choice.nodes} nodes share the cores of this host ({shared:.1f} threads per core): "
            "training would be faster on separate machines."
        )
    ranks = range(state.cluster.num_ranks(choice.nodes))
    if any(delay.slows(rank) for delay in state.cluster.delays for rank in ranks):
        lines.append(
            "The ranks of this configuration are delayed on purpose. Without these delays, the time to "
            "target would differ, and another strategy may be better."
        )
    recording = state.job.recording()
    if recording is not None:
        lines.append(
            f"All results were replayed from the recording {recording.name}: there is no trained model and "
            "no command. To train this configuration, use the script that made the recording."
        )
    outside = [] if choice == state.job.baseline_configuration() else state.space.reasons_against(choice)
    if outside:
        lines.append(
            "The recommended configuration was measured before [space] changed and is now outside [space]: "
            f"{'; '.join(outside)}."
        )
    lines += script_warnings(state)
    lines += _untold(state, choice)
    lines += _emulated(state)
    lines += _lost(state)
    if state.num_faults:
        lines.append(f"{state.num_faults} of {len(state.probes)} probes failed.{_given_up(state)}")
    if stop.kind is StopKind.BUDGET:
        lines.append("The budget ended the search early: more probes might find a better configuration.")
    if stop.kind is StopKind.INTERRUPTED:
        lines.append("The search was interrupted: more probes might find a better configuration.")
    if stop.kind is StopKind.FAULTS:
        lines.append("Failures ended the search early: more probes might find a better configuration.")
    ends = [run.turned_back for run in state.runs.values() if run.turned_back is not None]
    turned, levelled = sum(not end.levelled_off for end in ends), sum(end.levelled_off for end in ends)
    if turned:
        words = "1 run has" if turned == 1 else f"{turned} runs have"
        lines.append(f"{words} been getting worse since the best value, probably by overfitting.")
    if levelled:
        words = "1 run has" if levelled == 1 else f"{levelled} runs have"
        lines.append(f"{words} levelled off below the target.")
    ended = [run for run in state.runs.values() if run.ended_by_itself]
    if ended and state.terms.ends_itself:
        longest = max(run.measurement.samples for run in ended)
        lines.append(
            f"In {len(ended)} runs, the script ended before the target was reached, at the latest after "
            f"{longest} samples: let the script train for more epochs."
        )
    cold = cold_start(state)
    if cold is not None:
        before, after = (f"{1000 * seconds:.3g} ms" for seconds in cold)
        lines.append(
            f"The present settings ran first and took {before} per step, and {after} in later slices: a step "
            f"of the first slice took {cold[0] / cold[1]:.2g} times as long as later ones. Other load on the "
            "machine, caches or compilation are possible causes. The time to target of these settings "
            "includes the first slice."
        )
    arrived = sum(run.arrived for run in state.runs.values())
    if arrived == 1:
        lines.append(
            "Only one run reached the target: with another order of the data, its time may differ by 10% "
            "or more."
        )
    return lines


def _given_up(state: SearchState) -> str:
    """Writes a sentence on configurations that failed and are not tried again, with the last error."""
    given_up = state.given_up
    if not given_up:
        return ""
    last = next(p for p in reversed(state.probes) if p.outcome.is_fault and p.configuration in given_up)
    error = last.slices[-1].error if last.slices else None
    said = f" ({error.strip().splitlines()[-1].strip()})" if error and error.strip() else ""
    more = f" and {len(given_up) - 1} more" if len(given_up) > 1 else ""
    return f" Not recommended because they failed: {last.configuration}{said}{more}."


def _untold(state: SearchState, choice: Configuration) -> list[str]:
    """Returns warnings about values that the models need and that the user's script did not report."""
    if not state.job.runs_command:
        return []
    lines = []
    largest = max((run.configuration.batch_size for run in state.runs.values()), default=0)
    if choice.batch_size > largest and not any(run.measurement.noise for run in state.runs.values()):
        lines.append(
            f"No run had a batch size above {largest}: the effect of a larger one is a guess, because the "
            "script does not report gradient noise (docs/guides/own_script.md)."
        )
    if state.parameter_bytes == 0 and state.cluster.num_ranks(max(state.cluster.node_counts)) > 1:
        lines.append(
            "workload.parameter_bytes is not set: for numbers of ranks that were not timed, the predicted "
            "communication time is a guess."
        )
    if not any(m.scoring_seconds > 0 for m in state.slices):
        lines.append(
            "The script did not report how long evaluation takes: seconds to target include evaluation."
        )
    return lines


def _emulated(state: SearchState) -> list[str]:
    """Returns a warning if ranks were emulated, because their seconds are computed and not measured."""
    cluster = state.cluster
    if state.terms.is_training:
        return []
    if cluster.at_hand is None:
        return [
            "Ranks were emulated: gradients are real, but seconds are computed from the nodes and links that "
            "[cluster.machine] describes, and are only as accurate as this description."
        ]
    most = cluster.at_hand.node_counts[-1]
    real = sum(not cluster.emulates(probe.configuration) for probe in state.probes)
    return [
        f"{real} of {len(state.probes)} probes trained on real ranks, on up to {most} nodes; on more nodes, "
        "ranks were emulated with real gradients. The seconds of emulated ranks are extrapolated from "
        "[cluster.machine] and from the steps that were timed on real ranks."
    ]


def _lost(state: SearchState) -> list[str]:
    """Returns a warning for each probe (trial training) that continued without some of its ranks."""
    lines = []
    for probe in state.probes:
        lost = sorted({rank for measurement in probe.slices for rank in measurement.lost_ranks})
        if lost:
            were = "was" if len(lost) == 1 else "were"
            shown = ranks_words(lost)
            lines.append(
                f"{shown[0].upper()}{shown[1:]} {were} lost in {probe.name} ({probe.configuration}), and the "
                "other ranks continued: the results of this probe are for fewer ranks."
            )
    return lines
