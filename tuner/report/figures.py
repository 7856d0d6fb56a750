"""Draws figures with matplotlib, and returns them as SVG whose colors are CSS variables of the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    # matplotlib takes a second and 60 MB to import, so functions that draw import it themselves.
    from matplotlib.axes import Axes

#: Number of colors for batch sizes, from light to dark. They are the CSS variables `shade0`, `shade1` and so
#: on.
NUM_SHADES = 8
_COLORS = (
    "ink",
    "ink-2",
    "rule",
    "grid",
    "card",
    "accent",
    "missed",
    *(f"shade{k}" for k in range(NUM_SHADES)),
)

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
#: For counts and for durations: lists of round values at which an axis may have ticks, from fine to coarse.
#: An axis uses the finest list that has few enough values within its limits.
_DECADES = [10.0**exponent for exponent in range(-6, 16)]
COUNT_TICKS = tuple([step * ten for ten in _DECADES for step in steps] for steps in ((1, 2, 5), (1, 3), (1,)))
DURATION_TICKS = tuple(
    [step * ten for ten in _DECADES[:7] for step in steps]
    + [10.0 * step for step in tens]
    + [_MINUTE * step for step in minutes]
    + [_HOUR * step for step in hours]
    + [_DAY * step * ten for ten in _DECADES[6:10] for step in steps]
    for steps, tens, minutes, hours in (
        ((1, 2, 5), (1, 2, 3), (1, 2, 5, 10, 20, 30), (1, 2, 5, 12)),
        ((1, 3), (1, 3), (1, 3, 10, 30), (1, 3, 12)),
        ((1,), (1,), (1, 10), (1, 12)),
    )
)

#: Space between the axes and the edges of a figure, in pixels.
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 34, 46
#: Half of the width of a character, in pixels.
_HALF_CHARACTER = 4.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of a figure.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        num_ticks: Maximum number of ticks of the horizontal axis.
        shown_on: `wide` or `narrow` if only wide or narrow pages show the figure; empty if all pages do.
    """

    width: int
    height: int
    num_ticks: int = 5
    shown_on: str = ""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a figure.

    Args:
        title: Name of the quantity, shown beside the axis.
        limits: Lowest and highest value that the axis shows.
        ticks: Values at which ticks are drawn.
        label: Function that returns the text of a tick for its value.
        logarithmic: Whether the scale is logarithmic.
    """

    title: str
    limits: tuple[float, float]
    ticks: Sequence[float]
    label: Callable[[float], str]
    logarithmic: bool = False


def color(name: str) -> str:
    """Returns a placeholder color for matplotlib, which `svg` replaces by the CSS variable `--name`."""
    return f"#f0f0{_COLORS.index(name):02x}"


def padded(low: float, high: float, *, logarithmic: bool, share: float = 0.06) -> tuple[float, float]:
    """Returns axis limits that are a little wider than `low` to `high`, even if both are equal."""
    if logarithmic:
        ratio = max(high / low, 1.05) ** share
        return low / (ratio * 1.02), high * ratio * 1.02
    width = (high - low) or abs(high) * 0.1 or 1.0
    return low - share * width, high + share * width


def log_ticks(limits: tuple[float, float], most: int, tick_lists: Sequence[Sequence[float]]) -> list[float]:
    """Returns at most `most` round values as ticks of a logarithmic axis.

    Args:
        limits: Lowest and highest value of the axis.
        most: Maximum number of ticks that are returned, at least 1.
        tick_lists: Lists of round values, from fine to coarse: `COUNT_TICKS` for an axis of counts,
            `DURATION_TICKS` for an axis of seconds. The ticks are from the first list that has at most `most`
            values within the limits.
    """
    low, high = limits
    inside: list[float] = []
    for ticks in tick_lists:
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) < 2:
            return linear_ticks(limits, most)
        if len(inside) <= most:
            return inside
    return inside[:: -(-len(inside) // most)]


def linear_ticks(limits: tuple[float, float], most: int) -> list[float]:
    """Returns at most `most` round values as ticks of a linear axis."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(nbins=most - 1, steps=[1, 2, 5, 10]).tick_values(*limits)
    return [float(tick) for tick in ticks if limits[0] <= tick <= limits[1]]


def style() -> AbstractContextManager[None]:
    """Context manager for drawing, which replaces the user's matplotlib settings by those of the report."""
    import matplotlib

    defaults: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
    del defaults["backend"]
    ours: dict[Any, Any] = {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 12.0,
        "lines.solid_joinstyle": "round",
    }
    return matplotlib.rc_context({**defaults, **ours})


def new_figure(size: Size, x: Axis, y: Axis, *, right: int = _RIGHT, compact: bool = False) -> Axes:
    """Creates an empty figure with a horizontal grid; call it inside the context of `style`, and draw there.

    Args:
        size: Size of the figure.
        x: Horizontal axis.
        y: Vertical axis; its title is written horizontally above the axis.
        right: Space to the right of the axes for labels, in pixels.
        compact: Whether to leave no space for titles of the axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size.width / 72, size.height / 72), dpi=72)
    left, top, bottom = (44, 8, 24) if compact else (_LEFT, _TOP, _BOTTOM)
    inner = (size.width - left - right) / size.width, (size.height - top - bottom) / size.height
    axes = figure.add_axes((left / size.width, bottom / size.height, *inner), facecolor="none")
    figure.patch.set_visible(False)
    axes.set_xscale("log" if x.logarithmic else "linear")
    axes.set_yscale("log" if y.logarithmic else "linear")
    axes.set_xlim(*x.limits)
    axes.set_ylim(*y.limits)
    axes.set_xticks(list(x.ticks), [x.label(tick) for tick in x.ticks])
    axes.set_yticks(list(y.ticks), [y.label(tick) for tick in y.ticks])
    for tick, label in zip(x.ticks, axes.get_xticklabels(), strict=True):
        # A label in the middle of a tick near the right edge would leave the figure.
        middle = axes.transData.transform((tick, y.limits[0]))[0]
        if middle + _HALF_CHARACTER * len(label.get_text()) > size.width:
            label.set_horizontalalignment("right")
    axes.minorticks_off()
    axes.tick_params(axis="x", length=4, color=color("ink-2"), labelcolor=color("ink-2"))
    axes.tick_params(axis="y", length=0, pad=6, labelcolor=color("ink-2"))
    axes.grid(axis="y", color=color("grid"), linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(color("ink-2"))
    titles: dict[str, Any] = {"color": color("ink"), "weight": "bold"}
    axes.set_xlabel(x.title, loc="right", **titles)
    figure.text(4 / size.width, 1 - 18 / size.height, y.title, **titles)
    return axes


def point(
    axes: Axes, x: float, y: float, name: str, tip: str, *, hollow: bool = False, marker: str = "o"
) -> None:
    """Draws a symbol at one point of a figure, with a tooltip.

    Args:
        axes: The axes that `new_figure` has created.
        x: Horizontal position, in data units.
        y: Vertical position, in data units.
        name: Name of the color in which it is drawn.
        tip: Text of the tooltip.
        hollow: Whether only the outline has the color.
        marker: Symbol that is drawn, as matplotlib names it, such as `o` for a circle.
    """
    fill, edge = (color("card"), color(name)) if hollow else (color(name), color("card"))
    axes.plot(
        [x], [y], marker=marker, markersize=8, linestyle="none", color=fill, markeredgecolor=edge, gid=tip,
        markeredgewidth=2 if hollow else 1.2, zorder=4,
    )  # fmt: skip


def interval(
    axes: Axes, x: float, ends: tuple[float, float], name: str, tip: str, *, bold: bool = False
) -> None:
    """Draws a vertical bar with a tooltip. An end outside the limits of the axis is drawn as an arrow.

    Args:
        axes: The axes that `new_figure` has created.
        x: Horizontal position, in data units.
        ends: Lower and upper end, in data units.
        name: Name of the color in which it is drawn.
        tip: Text of the tooltip.
        bold: Whether the bar is thick.
    """
    bottom, top = axes.get_ylim()
    bar: dict[str, Any] = {"color": color(name), "alpha": 0.65 if bold else 0.45, "zorder": 3}
    low, high = max(ends[0], bottom), min(ends[1], top)
    axes.plot([x, x], [low, high], linewidth=3.5 if bold else 1.6, gid=tip, **bar)
    if ends[1] > top:
        axes.plot([x], [top], marker="^", markersize=7, linestyle="none", **bar)
    if ends[0] < bottom:
        axes.plot([x], [bottom], marker="v", markersize=7, linestyle="none", **bar)


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, gap: float = 14.0) -> None:
    """Writes labels of points to the right of the axes, with a line from each label to its point.

    Args:
        axes: The axes that `new_figure` has created.
        ends: For each label: x and y of its point, its text, and the name of its color.
        gap: Minimum vertical distance between labels, in pixels; it is reduced if there are too many labels.
    """
    if not ends:
        return
    bottom, top, right = axes.bbox.y0 + 4, axes.bbox.y1 - 4, axes.bbox.x1 + 12
    ordered = sorted(ends, key=lambda end: end[1])
    gap = min(gap, (top - bottom) / max(len(ends) - 1, 1))
    heights: list[float] = []
    for x, y, _, _ in ordered:
        wanted = min(max(axes.transData.transform((x, y))[1], bottom), top)
        heights.append(max(wanted, heights[-1] + gap) if heights else wanted)
    for k in range(len(heights) - 1, -1, -1):
        heights[k] = min(heights[k], top - gap * (len(heights) - 1 - k))
    for (x, y, text, name), height in zip(ordered, heights, strict=True):
        axes.annotate(
            text, (x, y), (right, height), textcoords="figure pixels", color=color(name), weight="bold",
            verticalalignment="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color("rule"), "shrinkA": 0, "shrinkB": 6},
        )  # fmt: skip


def svg(axes: Axes, size: Size, summary: str) -> Markup:
    """Returns a figure as one `svg` element for an HTML page.

    Args:
        axes: The axes that `new_figure` has created.
        size: Size of the figure.
        summary: Text alternative for screen readers.
    """
    import matplotlib

    figure = axes.get_figure(root=True)
    assert figure is not None
    for artist in figure.findobj():
        artist.set_clip_on(False)
    text = io.StringIO()
    # The ids of shapes are hashes with a salt, so they differ between the figures of a page.
    salt = f"{summary} {size}"
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
        # matplotlib's font may lack a glyph, but the browser draws the text with its own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(text, format="svg", metadata=nothing)
    # XML allows no control characters, but names in a job may contain them.
    root = ElementTree.fromstring(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "", text.getvalue()))
    root.remove(root[0])  # a style sheet, which would apply to the whole page
    for element in list(root.iter()):
        # Phones, which show the narrow figures, show no tooltips.
        _clean(element, tooltips=size.shown_on != "narrow")
    _flatten(root)
    view = root.attrib["viewBox"]
    root.attrib.clear()
    name = f"chart {size.shown_on}".strip()
    root.attrib.update({"viewBox": view, "class": name, "role": "img", "aria-label": summary})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _flatten(element: ElementTree.Element) -> None:
    """Replaces groups without attributes and without a tooltip by their content."""
    children: list[ElementTree.Element] = []
    for child in element:
        _flatten(child)
        plain = child.tag == "g" and not child.attrib and not any(part.tag == "title" for part in child)
        children += list(child) if plain else [child]
    element[:] = children


def _clean(element: ElementTree.Element, *, tooltips: bool) -> None:
    """Simplifies an SVG element: removes namespaces, fonts, white space and unneeded digits.

    The id of a group, if it is the text of a tooltip, becomes a `title` element, which browsers show.
    """
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    if element.text is not None and not element.text.strip():
        element.text = None
    attributes = element.attrib
    for name in list(attributes):
        value = attributes.pop(name)
        name = name.rpartition("}")[2]
        if name == "id" and element.tag == "g":
            if tooltips and not re.fullmatch(r"(matplotlib\.)?[a-z0-9]+_\d+", value):
                title = ElementTree.Element("title")
                title.text = value
                element.insert(0, title)
        elif name == "style":
            # The web pages of the service allow no styles in their HTML.
            attributes.update(_presentation(value))
        elif not value.startswith("rotate(-0 "):
            attributes[name] = _rounded(value)


def _presentation(style: str) -> dict[str, str]:
    """Returns an inline style as SVG attributes, with CSS variables for the placeholder colors."""
    pairs = [part.partition(":") for part in style.split(";") if part.strip()]
    values = {name.strip(): value.strip() for name, _, value in pairs}
    values.pop("font-family", None)
    if values.get("font-size") == "12px":
        del values["font-size"]
    return {
        name: re.sub(r"#f0f0([0-9a-f]{2})", lambda place: f"var(--{_COLORS[int(place[1], 16)]})", value)
        for name, value in values.items()
    }


def _rounded(path: str) -> str:
    return re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", path.replace("\n", " "))
