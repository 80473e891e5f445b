"""What every page has around its parts: the style, the script, and what browsers may do."""

import base64
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import resources

from kao.reports.parts import escape


def document(title: str, header: str, sections: Iterable[str]) -> str:
    """A page as HTML that needs no other file and no network.

    Args:
        title: Of the window; plain text.
        header: The head of the page; HTML.
        sections: Its parts; HTML, empty ones are left out.
    """
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Browsers then fetch nothing and run this one script, whatever a run's files hold.
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{digest}'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · kao</title>\n<style>\n{_asset('page.css')}</style>\n"
        f"</head>\n<body>\n{header}\n<main>\n"
        + "\n".join(section for section in sections if section)
        + f"\n</main>\n<footer>Written by kao on {day(datetime.now(UTC))}.</footer>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def day(moment: datetime) -> str:
    """A moment for a reader: 21 Nov 2026, 04:10 UTC."""
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"


def _asset(name: str) -> str:
    return resources.files("kao.reports").joinpath(name).read_text(encoding="utf-8")
