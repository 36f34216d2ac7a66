"""Outcome counter: count how the tries of one kind of trouble end, under a progress bar."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from campaigns.result import Result
from numerai_sequence import NumeraiSequenceError


class OutcomeCounter:
    """Counts how the tries of one kind of trouble end."""

    def __init__(self, what: str, tries: int) -> None:
        self.what, self.tries = what, tries
        self.ends: Counter[str] = Counter()
        self.failures: list[str] = []
        self.figures: dict[str, Any] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(tqdm(range(self.tries), desc=self.what, unit=" tries", mininterval=1))

    @contextmanager
    def trying(self, how: str) -> Iterator[None]:
        try:
            yield
        except (AssertionError, OSError, NumeraiSequenceError) as error:
            self.failures.append(f"{how}: {type(error).__name__}: {error}")

    def result(self) -> Result:
        ends = dict(self.ends.most_common())
        return Result(self.what, self.tries, ends, self.failures, self.figures)
