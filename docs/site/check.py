"""Checks the built site: check.py SITE. Zensical checks links between Markdown pages; this checks what a browser gets.

Every link leads to a file of the site and to an anchor in it, a browser loads nothing from another host, every page is
in the navigation, and no list is left as text: one below another item is indented by four spaces, and one after a
paragraph follows a blank line. Each finding is a line on standard error, and the exit code is 1 if there is any.
"""

import pathlib
import re
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

SITE = pathlib.Path(sys.argv[1])
VERBATIM = {"code", "pre", "script", "style"}


class Page(HTMLParser):
    """Collects the anchors of a page, its links, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.path, self.anchors, self.links, self.loaded = path, set(), [], []
        self.verbatim, self.lists = 0, []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.update(attrs[name] for name in ("id", "name") if attrs.get(name))
        for name in ("href", "src", "data", "poster"):
            if attrs.get(name):
                (self.links if tag == "a" else self.loaded).append(attrs[name])

        self.verbatim += tag in VERBATIM

    def handle_endtag(self, tag):
        self.verbatim -= tag in VERBATIM

    def handle_data(self, data):
        if not self.verbatim:
            self.lists += re.findall(r"^ *(?:[-*]|\d+\.) .*", data, re.MULTILINE)

    def target(self, link):
        """The file that a link leads to."""
        path = unquote(urlsplit(link).path)
        if not path:
            return self.path
        base = SITE if path.startswith("/") else self.path.parent
        target = (base / path.lstrip("/")).resolve()
        return target / "index.html" if target.is_dir() else target


pages = {path.resolve(): Page(path.resolve()) for path in SITE.rglob("*.html")}
findings = []
for path, page in pages.items():
    name = path.relative_to(SITE.resolve())
    findings += [f"{name}: a list is left as text: {line}" for line in page.lists]
    for link in page.links + page.loaded:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            if link in page.loaded and parts.scheme != "data":
                findings.append(f"{name}: loads {link}")
        elif not page.target(link).is_file():
            findings.append(f"{name}: {link} leads to no file")
        elif parts.fragment and page.target(link) in pages:
            if unquote(parts.fragment) not in pages[page.target(link)].anchors:
                findings.append(f"{name}: {link} leads to no anchor")

nav = pages[(SITE / "404.html").resolve()]  # has nothing else
listed = {nav.target(link) for link in nav.links}
for path in pages.keys() - listed - {nav.path}:
    findings.append(f"{path.relative_to(SITE.resolve())}: not in the navigation (docs/site/mkdocs.yml)")

print("\n".join(sorted(findings)), file=sys.stderr, end="\n" if findings else "")
sys.exit(bool(findings))
