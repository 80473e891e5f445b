"""Pieces of HTML that every part of the page is made of."""

from collections.abc import Sequence
from html import escape
from typing import Any


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
