"""Documentation pages: their code by its language, their links and their headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    + [path for folder in ("benchmarks", "tests") for path in (ROOT / folder).rglob("README.md")]
)
_FENCED = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: the words behind the fence, its text, and where that begins."""

    page: Path
    words: tuple[str, ...]
    text: str
    line: int

    @property
    def language(self) -> str:
        return self.words[0] if self.words else ""

    @property
    def is_run(self) -> bool:
        """Whether the test of the pages runs it."""
        return self.language == "python" and "no-test" not in self.words


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page):
    """The fenced blocks of a page, in order."""
    text = text_of(page)
    return [
        Block(page, tuple(found[1].split()), found[2], text.count("\n", 0, found.start(2)))
        for found in _FENCED.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def example(words):
    """The one Python block of all pages that has these words."""
    [found] = [block.text for block in BLOCKS if block.language == "python" and words in block.text]
    return found


def prose(page):
    """A page without its fenced blocks."""
    return _FENCED.sub("", text_of(page))


def anchors(page):
    """What a link may name behind ``#``: each heading as code hosts spell it."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower())
        name = words.replace(" ", "-")
        number = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", one) is not None for one in found)
        found.add(f"{name}-{number}" if number else name)
    return found


def links(page):
    """The targets of a page's links and pictures."""
    return re.findall(r"\]\(<?([^)\s>]+)>?\)", re.sub(r"`[^`\n]*`", "", prose(page)))
