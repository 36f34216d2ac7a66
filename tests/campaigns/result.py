"""Result: how the tries of one kind of trouble ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Result:
    """The tries of one kind of trouble, and how they ended.

    Attributes
    ----------
    what : str
        The trouble, in a few words.
    tried : int
    outcomes : dict of str to int
        The ends that keep the promise, such as "refused", and how often each came.
    failures : list of str
        Everything else, one text each, with what it takes to do it again.
    figures : dict of str to str or number
        What was measured on the way, such as the slowest one, with units in the names.
    """

    what: str
    tried: int
    outcomes: Mapping[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    figures: Mapping[str, str | float] = field(default_factory=dict)
