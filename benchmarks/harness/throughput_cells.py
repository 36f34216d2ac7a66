"""Cells: which combinations of contender, way of feeding, model and memory are measured."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from contenders.catalog import CONTENDERS

LEVELS = ("loader", "fit")
SITUATIONS = ("warm", "cold", "half", "eighth")
SHARES = {"half": 1 / 2, "eighth": 1 / 8}
KERAS = ("keras", "tf_keras")
DTYPES = ("float32", "int8")
# Workers of Keras and whether they are processes; "own" is a contender that is no Sequence.
FEEDINGS = {
    "own": (1, False),
    "1 thread": (1, False),
    "4 threads": (4, False),
    "2 processes": (2, True),
}
EXACT = "numerai_sequence run_rows=1"
# The exact shuffle with room for few of its pages: only as `np.memmap`'s equal, warm.
EXACT_WITHIN = [f"numerai_sequence {how}run_rows=1 512MB" for how in ("", "int8 ")]
FEEDINGS_OF = {
    "numerai_sequence": list(FEEDINGS)[1:],
    **{name: ["4 threads"] for name in (EXACT, *EXACT_WITHIN)},
}


@dataclass(frozen=True)
class Cell:
    """One thing to measure; the loader level knows no Keras and no model."""

    level: str
    contender: str
    dtype: str
    feeding: str
    situation: str
    keras: str = ""
    model: str = ""

    @property
    def panel(self) -> str:
        """The table and the chart that it is in."""
        return " ".join(filter(None, (self.level, self.keras, self.model)))

    @property
    def line(self) -> str:
        """Its row in the table, and its line in the chart."""
        feeding = "" if self.feeding == "own" else f", {self.feeding}"
        return f"{self.contender}, {self.dtype}{feeding}"

    @property
    def key(self) -> str:
        """What its runs are filed under."""
        return f"{self.panel} | {self.line} | {self.situation}"


def choose(
    *,
    levels: Collection[str],
    names: Collection[str],
    dtypes: Collection[str],
    feedings: Collection[str],
    situations: Collection[str],
    keras: Collection[str],
    models: Collection[str],
) -> Iterator[Cell]:
    """Yield the cells that are chosen and that make sense."""
    for level in LEVELS:
        if level not in levels:
            continue
        stacks = [(k, m) for k in keras for m in models] if level == "fit" else [("", "")]
        for keras_name, model in stacks:
            for name in names:
                for dtype in CONTENDERS[name].dtypes:
                    for feeding in feedings_of(level, name):
                        for situation in situations:
                            cell = Cell(level, name, dtype, feeding, situation, keras_name, model)
                            chosen = dtype in dtypes and feeding in (*feedings, "own")
                            if chosen and makes_sense(cell):
                                yield cell


def feedings_of(level: str, name: str) -> list[str]:
    """Return the ways in which Keras may feed from the contender."""
    if level == "loader" or not CONTENDERS[name].is_sequence:
        return ["own"]
    return FEEDINGS_OF.get(name, ["1 thread", "4 threads"])


def makes_sense(cell: Cell) -> bool:
    """Say whether it tells anything that another cell does not tell.

    What is in memory knows no cold files, and is no answer where memory is short. Processes copy
    batches through pipes, whatever the memory. Runs of rows are read only where memory is short.
    """
    contender = CONTENDERS[cell.contender]
    if cell.contender in EXACT_WITHIN:
        return cell.situation == "warm" and cell.level == "loader"
    if contender.is_in_memory or cell.feeding == "2 processes":
        return cell.situation == "warm"
    return cell.contender != EXACT or cell.situation in SHARES
