"""Readme: the page's code, by its language, and each Python example by words of it."""

from __future__ import annotations

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLES = [code for language, code in _FENCED.findall(README) if language == "python"]
SHELL = [code for language, code in _FENCED.findall(README) if language == "sh"]
PLAIN = [code for language, code in _FENCED.findall(README) if not language]
INLINE = re.findall(r"`([^`]+)`", _FENCED.sub("", README))


def example(words):
    """The one Python example in which these words are."""
    [code] = [code for code in EXAMPLES if words in code]
    return code
