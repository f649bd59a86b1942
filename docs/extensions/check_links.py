"""Check the links of a built site: that each leads to a file, and to an anchor that is in it.

python docs/extensions/check_links.py docs/_build/html      # links to other sites are not followed
"""

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page, and where it links to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = {"", "top"}
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect them."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value and tag != "link":
                self.links.append(value)


page = cache(Page)


def broken(path: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    found = []
    for link in page(path).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file() or (
            target.suffix == ".html" and unquote(parts.fragment) not in page(target).anchors
        ):
            found.append(link)
    return found


def main() -> None:
    """Print every broken link; exit with 1 if there is one."""
    site = Path(sys.argv[1]).resolve()
    pages = sorted(site.rglob("*.html"))
    if not pages:
        sys.exit(f"check_links: no pages in {site}; build the site first")
    lines = [f"{path.relative_to(site)}: {link}" for path in pages for link in broken(path)]
    links = sum(len(page(path).links) for path in pages)
    print(*lines, f"{len(pages)} pages, {links} links, {len(lines)} broken", sep="\n")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
