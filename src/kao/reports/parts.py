"""Pieces of HTML that every part of the page is made of."""

import html
from collections.abc import Sequence
from typing import Any

from kao.files import readable


def escape(text: str) -> str:
    """Plain text, names that people gave included, as HTML shows it and does not read it."""
    return html.escape(readable(text))


def section(title: str, body: str) -> str:
    """A part of the page; "" where it has nothing to show."""
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    return f"<section>{heading}{body}</section>" if body else ""


def table(rows: Sequence[tuple[str, Any]]) -> str:
    """Names and values, those that are None left out; "" where none is left."""
    cells = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(str(value))}</td></tr>'
        for name, value in rows
        if value is not None
    )
    return f"<table>{cells}</table>" if cells else ""


def columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a name above each column; it is moved sideways where a screen is too narrow.

    Args:
        names: Plain text.
        rows: Cells, HTML; the first of each row says what it is.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="columns"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f"</div>"
    )
