"""Long runs: fifty epochs, a thousand openings, and nothing that has grown at their end.

A process of its own does one thing over and over. Once a round its descriptors, threads, child
processes, memory maps, tracked objects and anonymous memory are counted. After a warm-up of half
the rounds there must be no more of them; memory may grow by a little, and by as much as where the
same Keras is given NumPy arrays.
"""

import gc
import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lives
from holdings import Watch
from tqdm import tqdm

from numerai_sequence import write_shards
from numerai_sequence.synthetic import write_parquet

from . import Result

COUNT = 50  # epochs

LIMIT_MB = 1.0  # over the second half, of ten rounds or more
LIMIT = {"objects": 20, "maps": 3}  # an allocator maps more or less
LIMIT_SECONDS, END_SECONDS = 900, 60

# Forked from a process that has imported TensorFlow, and done nothing with it.
PROCESSES = multiprocessing.get_context("forkserver")
PRELOADED = ["numerai_sequence.feeding.sequence"]


@dataclass(frozen=True)
class Life:
    """What one process does.

    Attributes
    ----------
    what : str
        With the number of rounds where it says ``{}``.
    live : function
        One of `lives`.
    share : float
        Rounds for each epoch that is asked for. A round may take longer than an epoch of threads.
    options : dict
    against : str, optional
        The `what` of the life of plain Keras that this one is compared with.
    is_plain : bool
        Nothing of ours is in it: whatever it loses is what Keras and TensorFlow lose.
    least_rounds : int
        With fewer it is left out: an allocator takes some until it has all that it will need.
    """

    what: str
    live: Callable[..., None]
    share: float = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    against: str | None = None
    is_plain: bool = False
    least_rounds: int = 4


ARRAYS = "{} epochs of NumPy arrays"
ARRAYS_K2 = "{} epochs of NumPy arrays, tf_keras"
PLAIN = "{} plain sequences trained on and dropped"
PLAIN_STOPPED = "{} passes over a plain sequence dropped half-way"
TWO = {"workers": 2, "use_multiprocessing": True}
K2 = {"keras": "tf_keras"}
FOUR = {"workers": 4}
LIVES = (
    Life(ARRAYS, lives.fit_arrays, is_plain=True),
    Life(ARRAYS_K2, lives.fit_arrays, 0.8, K2, is_plain=True),
    Life(PLAIN, lives.fit_plain, 0.4, is_plain=True),
    Life(PLAIN_STOPPED, lives.evaluate_plain, 0.8, is_plain=True),
    Life("{} epochs, 1 thread", lives.fit, 1, {}, ARRAYS),
    Life("{} epochs, 4 threads", lives.fit, 1, FOUR, ARRAYS),
    Life("{} epochs, 2 processes (fork)", lives.fit, 1, TWO, ARRAYS),
    Life("{} epochs, 2 processes (forkserver)", lives.fit, 0.4, TWO | {"method": "forkserver"}),
    Life("{} epochs, 2 processes (spawn)", lives.fit, 0.12, TWO | {"method": "spawn"}),
    Life("{} epochs, tf_keras, 1 thread", lives.fit, 0.8, K2, ARRAYS_K2),
    Life("{} epochs, tf_keras, 4 threads", lives.fit, 0.8, FOUR | K2, ARRAYS_K2),
    Life("{} epochs, tf_keras, 2 processes (fork)", lives.fit, 0.8, TWO | K2, ARRAYS_K2),
    Life("{} epochs, with validation", lives.fit, 0.8, FOUR | {"validates": True}, ARRAYS),
    Life("{} epochs, two models at once", lives.fit_two_models, 0.8, FOUR, ARRAYS),
    Life("{} epochs, another thread reading too", lives.fit_and_read, 0.8, FOUR, ARRAYS),
    Life(
        "{} epochs, the set written anew for each", lives.fit_anew, 1.2, {}, PLAIN, least_rounds=40
    ),
    Life("{} sequences opened, trained on and dropped", lives.open_and_train, 0.4, {}, PLAIN),
    Life("{} sequences opened and dropped", lives.open_sequences, 20),
    Life("{} sets and slices opened and closed", lives.open_sets, 20),
    Life("{} passes dropped half-way", lives.abandon, 0.8, {}, PLAIN_STOPPED),
)


def run(folder: Path, *, seed: int, count: int) -> list[Result]:
    """Live each life for `count` epochs, or as many rounds as it takes in their stead.

    Parameters
    ----------
    folder : path
    seed : int
        Of the data.
    count : int
        A life whose rounds take so long that there would be too few is left out.
    """
    write_sets(folder, seed)
    PROCESSES.set_forkserver_preload(PRELOADED)
    results: dict[str, Result] = {}
    for life in tqdm(LIVES, desc="lives"):
        rounds = round(count * life.share)
        if rounds >= life.least_rounds:
            plain = results.get(life.against or "")
            results[life.what] = result_of(life, folder / "set", rounds, plain)
    return list(results.values())


def write_sets(folder: Path, seed: int) -> None:
    """Write two sources, and the first one's shard set."""
    for number, name in enumerate(("a", "b")):
        options = {
            "rows": lives.ROWS,
            "features": lives.FEATURES,
            "seed": seed + number,
            "progress": False,
        }
        write_parquet(folder / f"{name}.parquet", **options)
    write_shards(folder / "a.parquet", folder / "set", num_shards=4, progress=False).close()


def result_of(life: Life, folder: Path, rounds: int, plain: Result | None) -> Result:
    """Live one life in a process of its own, and judge what it has held."""
    result = Result(life.what.format(rounds), rounds)
    answer = ask(life, folder, rounds)
    if isinstance(answer, str):
        result.failures.append(answer)
        return result
    grown, result.figures = answer
    wrong = [] if life.is_plain else list(too_much(grown, result, plain))
    result.failures += [f"in the second half of {rounds} rounds: {what}" for what in wrong]
    if not wrong:
        result.outcomes = {"measured" if life.is_plain else "flat": 1}
    return result


def too_much(grown: dict[str, int], result: Result, plain: Result | None) -> Iterator[str]:
    """Yield what there is more of than the limits, and plain Keras, allow."""
    lost = plain.figures if plain else {}
    times = max(1, result.tried / plain.tried) if plain else 1
    for name, more in grown.items():
        if more > LIMIT.get(name, 0) + times * lost.get(f"{name} grown", 0):
            yield f"{more} {name} more"
    # The second half of a few rounds is warming up, too.
    allowed = LIMIT_MB * max(1, 10 / result.tried) + max(0.0, lost.get("MB grown", 0.0))
    if result.figures["MB grown"] > allowed:
        yield f"{result.figures['MB grown']} MB more, with {allowed:.2f} MB allowed"


def ask(life: Life, folder: Path, rounds: int) -> str | tuple[dict[str, int], dict[str, Any]]:
    """Return what has grown in the process, and figures; or how it failed."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=answer, args=(sender, life, folder, rounds))
    process.start()
    sender.close()
    try:
        told = receiver.recv() if receiver.poll(LIMIT_SECONDS) else f"took {LIMIT_SECONDS} s"
        process.join(END_SECONDS)
        return told if process.exitcode == 0 else f"{told}; exit code {process.exitcode}"
    except EOFError:
        process.join()
        return f"the process ended with exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()


def answer(sender: Connection, life: Life, folder: Path, rounds: int) -> None:
    """Live, and tell: what runs in the process."""
    gc.freeze()  # what it was forked with: its objects are not counted, and collecting is fast
    watch = Watch(rounds)
    try:
        life.live(folder, watch, rounds, **life.options)
    except Exception:
        sender.send(traceback.format_exc())
        return
    grown = watch.grown()
    figures = {"MB grown": round(watch.grown_mb(), 2), "objects grown": grown["objects"]}
    sender.send((grown, figures | watch.most()))
