"""Markup that is escaped by construction: what is not `Markup` already is text, and text is escaped."""

from __future__ import annotations

import html
import math

_VOID = frozenset({"br", "hr", "meta"})

Attribute = str | int | float | None


class Markup(str):
    """A string that is markup already; only `element` and `joined` make it from what others wrote."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """Text as markup; markup stays as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(text))


def joined(*parts: str) -> Markup:
    """Several pieces in a row, each escaped unless it is markup."""
    return Markup("".join(escaped(part) for part in parts))


def element(tag: str, /, *children: str, **attributes: Attribute) -> Markup:
    """One element.

    Args:
        tag: Its name.
        children: Text, which is escaped, or markup.
        attributes: A trailing underscore is dropped, others become hyphens (`class_`, `stroke_width`);
            None leaves an attribute out. Numbers must be finite and are written to two decimals.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{joined(*children)}</{tag}>")


def _attribute(value: str | int | float) -> str:
    if isinstance(value, str):
        return html.escape(value)
    assert math.isfinite(value), "an attribute must be a finite number"
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
