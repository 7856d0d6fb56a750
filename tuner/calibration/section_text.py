"""Writes calibrated constants, with their ranges, as the `[cluster.machine]` section of a job file."""

from __future__ import annotations

from tuner.calibration.constants import Constants, Figure, Link

_BITS = 8.0
#: Smallest value of `seconds_per_sample` that is written, because zero is not allowed.
_LEAST_SECONDS_PER_SAMPLE = 1e-12


def machine_section(constants: Constants, *, made_by: str = "") -> str:
    """Returns the text of the section, to be pasted into a job file.

    Args:
        constants: The calibrated constants.
        made_by: Description of how they were measured, written as the first comment; may have several lines.
    """
    lines = [f"# {line}" for line in made_by.splitlines()]
    lines += [f"# Warning: {warning}" for warning in constants.warnings]
    lines += ["[cluster.machine]", *_step_lines(constants), *_link_lines(constants)]
    return "\n".join(lines) + "\n"


def _step_lines(constants: Constants) -> list[str]:
    sizes = constants.batch_sizes_per_rank
    fixed, per_sample = constants.fixed_seconds, constants.seconds_per_sample
    least = max(per_sample.value, _LEAST_SECONDS_PER_SAMPLE)
    slower = constants.neighbour_slowdown - 1
    neighbors = (
        ""
        if abs(slower) < 0.005
        else f"; {abs(slower):.0%} {'slower' if slower > 0 else 'faster'} when neighbors are busy"
    )
    return [
        _line("fixed_seconds", f'"{duration(fixed.value)}"', _seconds_range(fixed)),
        _line("seconds_per_sample", f'"{duration(least)}"', _seconds_range(per_sample)),
        f"# steps of {', '.join(map(str, sizes))} samples differ by up to {constants.step_misfit:.0%} from "
        f"fixed_seconds + samples x seconds_per_sample{neighbors}",
        _line("jitter", f"{constants.jitter.value:.3g}", _range(constants.jitter)),
        _line(
            "persistent",
            f"{constants.persistent:.2g}",
            "share of jitter that lasts longer than a window of steps",
        ),
    ]


def _link_lines(constants: Constants) -> list[str]:
    link, overlap = constants.collective, constants.overlap
    ranks = " and ".join(str(count) for count in constants.rank_counts)
    lines = [
        f"# all-reduces of {ranks} ranks differ by up to {link.misfit:.0%} from the fitted cost model",
        _line("latency", f'"{duration(link.latency.value)}"', f"per hop, {_seconds_range(link.latency)}"),
        _line("bandwidth", f'"{bandwidth(link.seconds_per_byte.value)}"', _bandwidth_range(link)),
        "# overlap is not set: the all-reduce of this model is too short or too long to measure it"
        if overlap is None
        else _line("overlap", f"{overlap.value:.3g}", _range(overlap)),
    ]
    lines += [
        f"# {p} ranks, {num_bytes:,} bytes: predicted {duration(law)}, measured {duration(seen)}"
        for p, num_bytes, law, seen in link.from_law
    ]
    if constants.within_node is not None:
        lines.append(f"# all-reduces within a node, per hop: {_link_words(constants.within_node)}")
    messages = constants.messages
    lines += [
        f"# messages between two ranks (gossip, servers) differ by up to {messages.misfit:.0%} from the "
        "fitted cost model",
        _line("message_latency", f'"{duration(messages.latency.value)}"', _seconds_range(messages.latency)),
        _line(
            "message_bandwidth",
            f'"{bandwidth(messages.seconds_per_byte.value)}"',
            _bandwidth_range(messages),
        ),
    ]
    return lines


def duration(seconds: float) -> str:
    """Formats seconds as a job file writes them: `1.234ms`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            return f"{_digits(seconds / size)}{unit}"
    raise AssertionError("every shorter duration is written in microseconds")


def bandwidth(seconds_per_byte: float) -> str:
    """Formats a bandwidth as a job file writes it: `9.81Gbit/s`."""
    bits = _BITS / max(seconds_per_byte, 1e-15)
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0)):
        if bits >= size or not prefix:
            return f"{_digits(bits / size)}{prefix}bit/s"
    raise AssertionError("every smaller bandwidth is written in bit/s")


def _digits(value: float) -> str:
    """Formats a number to four significant digits, without an exponent, which job files do not allow."""
    if value == 0:
        return "0"
    text = f"{value:.4g}"
    return text if "e" not in text else f"{value:.12f}".rstrip("0").rstrip(".") or "0"


def _line(key: str, value: str, words: str) -> str:
    return f"{f'{key} = {value}':<34}# {words}"


def _seconds_range(figure: Figure) -> str:
    return f"{duration(figure.low)} to {duration(figure.high)} by round"


def _range(figure: Figure) -> str:
    return f"{figure.low:.2g} to {figure.high:.2g}"


def _bandwidth_range(link: Link) -> str:
    slow, fast = bandwidth(link.seconds_per_byte.high), bandwidth(link.seconds_per_byte.low)
    return f"{slow} to {fast} by round"


def _link_words(link: Link) -> str:
    return f"latency {duration(link.latency.value)}, {bandwidth(link.seconds_per_byte.value)}"
