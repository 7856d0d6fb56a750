"""A plot in SVG: axes, grid and markers; colors come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.svg_markup import Markup, element
from benchmarks.svg_scales import Scale

_CHARACTER_PIXELS = 6.2


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a plot is drawn; each is drawn for a wide and for a narrow page.

    Args:
        name: `wide` or `narrow`: the page shows the one that fits.
        width: Pixels.
        height: Pixels.
        num_ticks: Most ticks of a horizontal axis.
    """

    name: str
    width: float
    height: float
    num_ticks: int

    @property
    def is_narrow(self) -> bool:
        """Whether labels must be short."""
        return self.name == "narrow"


def text_width(text: str) -> float:
    """About how wide a text is in the plots' font, in pixels."""
    return len(text) * _CHARACTER_PIXELS


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis: what it shows and where its ticks are.

    Args:
        title: The quantity with its unit.
        ticks: Values with their words.
    """

    title: str
    ticks: Sequence[tuple[float, str]]


def ticks_of(values: Sequence[float], words: Callable[[float], str]) -> list[tuple[float, str]]:
    """Ticks with what is written beside them."""
    return [(value, words(value)) for value in values]


@dataclass(kw_only=True)
class Plot:
    """Collects shapes and renders them; later ones lie on top.

    Args:
        size: How large.
        x: Horizontal scale, in pixels of the plot.
        y: Vertical scale; `start` is the bottom.
        summary: What the plot shows, for those who do not see it.
    """

    size: Size
    x: Scale
    y: Scale
    summary: str
    _parts: list[Markup] = field(default_factory=list)

    def axes(self, x_axis: Axis, y_axis: Axis) -> None:
        """Draws grid, ticks and titles; the vertical title stands above its axis, to be read upright."""
        left, right = self.x.start, self.x.end
        bottom, top = self.y.start, self.y.end
        for value, words in y_axis.ticks:
            height = self.y(value)
            self._add("line", x1=left, x2=right, y1=height, y2=height, class_="grid")
            self._add("text", words, x=left - 8, y=height + 4, class_="tick end")
        for value, words in x_axis.ticks:
            place = self.x(value)
            self._add("line", x1=place, x2=place, y1=bottom, y2=bottom + 4, class_="axis")
            self._add("text", words, x=place, y=bottom + 18, class_="tick middle")
        self._add("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis")
        self._add("text", x_axis.title, x=right, y=bottom + 36, class_="title end")
        self._add("text", y_axis.title, x=4, y=top - 14, class_="title")

    def line(self, points: Sequence[tuple[float, float]], style: str, title: str | None = None) -> None:
        """A line through points given as values; a single point is left to its marker."""
        if len(points) < 2:
            return
        path = "M" + "L".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self._add("path", *_title(title), d=path, class_=f"line {style}")

    def point(self, x: float, y: float, style: str, title: str, radius: float = 4.0) -> None:
        """A round marker."""
        self._add("circle", *_title(title), cx=self.x(x), cy=self.y(y), r=radius, class_=f"dot {style}")

    def diamond(self, x: float, y: float, style: str, title: str) -> None:
        """A marker for what is not of the series."""
        across, down, half = self.x(x), self.y(y), 6.0
        path = f"M{across:.1f},{down - half:.1f}l{half},{half}l-{half},{half}l-{half},-{half}z"
        self._add("path", *_title(title), d=path, class_=f"dot {style}")

    def interval(self, x: float, low: float, high: float, style: str, title: str) -> None:
        """A bar from low to high; an arrow stands at an end that lies beyond the plot."""
        across = self.x(x)
        parts = [*_title(title)]
        parts.append(element("line", x1=across, x2=across, y1=self.y(low), y2=self.y(high)))
        if high > self.y.high:
            top = self.y.end
            parts.append(element("path", d=f"M{across - 4:.1f},{top + 6:.1f}l4,-6l4,6", class_="arrow"))
        if low < self.y.low:
            end = self.y.start
            parts.append(element("path", d=f"M{across - 4:.1f},{end - 6:.1f}l4,6l4,-6", class_="arrow"))
        self._add("g", *parts, class_=f"interval {style}")

    def level(self, value: float, words: str) -> None:
        """A dashed line across the plot, named at its left end."""
        height = self.y(value)
        self._add("line", x1=self.x.start, x2=self.x.end, y1=height, y2=height, class_="level")
        self.label(self.x.start + 6, height - 6, words, "strong")

    def label(self, across: float, down: float, words: str, style: str = "") -> None:
        """Words at a place given in pixels."""
        self._add("text", words, x=across, y=down, class_=f"label {style}".strip())

    def leader(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A thin line from a marker to its label, in pixels."""
        self._add("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_="leader")

    def render(self) -> Markup:
        """The plot as one `svg` element."""
        return element(
            "svg",
            *self._parts,
            viewBox=f"0 0 {self.size.width:g} {self.size.height:g}",
            class_=f"chart {self.size.name}",
            role="img",
            aria_label=self.summary,
        )

    def _add(self, name: str, *children: str, **attributes: str | float | None) -> None:
        self._parts.append(element(name, *children, **attributes))


def _title(words: str | None) -> list[Markup]:
    return [] if words is None else [element("title", words)]
