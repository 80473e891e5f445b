"""Check the built site: every local link and anchor is there, and nothing is loaded from outside.

python docs/check_site.py site
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a browser fetches without being asked, by tag."""


class Page(HTMLParser):
    """What one page defines and what it points to.

    Attributes:
        ids: Anchors.
        links: (tag, address), in the order of the page.
    """

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep ids and addresses."""
        values = dict(attrs)
        self.ids.update(values[key] or "" for key in ("id", "name") if key in values)
        address = values.get("href" if tag == "a" else LOADS.get(tag, ""))
        # A page's own address is for search engines; nothing loads it.
        if address and values.get("rel") != "canonical":
            self.links.append((tag, address))


def faults(site: Path) -> Iterator[str]:
    """One line for each link that leads nowhere and each thing that is loaded from outside."""
    site = site.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for tag, address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if tag in LOADS and parts.scheme != "data":
                    yield f"{path}: <{tag}> loads {address}"
                continue
            # 404.html is served in any folder, so its addresses start at the site's root.
            base = site if parts.path.startswith("/") else path.parent
            target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                yield f"{path}: {address} is not there"
            elif parts.fragment and tag == "a" and target.suffix == ".html":
                if unquote(parts.fragment) not in pages[target].ids:
                    yield f"{path}: {address} has no such anchor"


def main() -> int:
    """Print the faults; exit code 1 if there are any."""
    found = list(faults(Path(sys.argv[1])))
    print("\n".join(found) or "All links lead somewhere, and nothing is loaded from outside.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
