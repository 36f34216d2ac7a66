"""Pages: the code of the documentation, by page, each Python example by words of it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What follows the language says why a block cannot run where the others of its page do.
_FENCED = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Page:
    """A page of the documentation, such as ``docs/distributed.md``."""

    def __init__(self, name):
        self.name = name
        self.text = (ROOT / name).read_text(encoding="utf-8")
        self.blocks = _FENCED.findall(self.text)

    def example(self, words):
        """The one Python example in which these words are."""
        [code] = [
            code for language, _, code in self.blocks if language == "python" and words in code
        ]
        return code
