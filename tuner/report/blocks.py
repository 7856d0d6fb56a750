"""HTML building blocks of a report: tables, lists and folded parts."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.domain.format import sentence
from tuner.report.markup import Markup, element
from tuner.report.tables import Table


def table_html(table: Table, style: str = "full") -> Markup:
    """A table that scrolls sideways where the page is narrower."""

    def side(position: int) -> str | None:
        return None if position < table.num_words_columns else "number"

    titles = [element("th", title, class_=side(k), scope="col") for k, title in enumerate(table.columns)]
    rows = [
        element("tr", *(element("td", cell, class_=side(k)) for k, cell in enumerate(row)))
        for row in table.rows
    ]
    inner = element("table", element("thead", element("tr", *titles)), element("tbody", *rows), class_=style)
    return element("div", inner, class_="scroll")


def folded(summary: str, *children: str) -> Markup:
    """A part that is shown when its summary is clicked; no script is needed."""
    return element("details", element("summary", summary), *children)


def sentence_list(sentences: Sequence[str]) -> Markup:
    """Sentences as a list."""
    return element("ul", *(element("li", sentence(words)) for words in sentences))
