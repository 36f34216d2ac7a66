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

from tqdm import tqdm

from campaigns.children import workloads
from campaigns.children.held_resources import Watch
from campaigns.result import Result
from numerai_sequence import write_shards
from numerai_sequence.synthetic import write_parquet

COUNT = 50  # epochs

LIMIT_MB = 1.0  # over the second half, of ten rounds or more
LIMIT = {"objects": 20, "maps": 3}  # an allocator maps more or less
LIMIT_SECONDS, END_SECONDS = 900, 60

# Forked from a process that has imported TensorFlow, and done nothing with it.
PROCESSES = multiprocessing.get_context("forkserver")
PRELOADED = ["numerai_sequence.feeding.sequence"]


@dataclass(frozen=True)
class Workload:
    """What one process does.

    Attributes
    ----------
    what : str
        With the number of rounds where it says ``{}``.
    work : function
        One of `workloads`.
    share : float
        Rounds for each epoch that is asked for. A round may take longer than an epoch of threads.
    options : dict
    against : str, optional
        The `what` of the workload of plain Keras that this one is compared with.
    is_plain : bool
        Nothing of ours is in it: whatever it loses is what Keras and TensorFlow lose.
    least_rounds : int
        With fewer it is left out: an allocator takes some until it has all that it will need.
    """

    what: str
    work: Callable[..., None]
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
WORKLOADS = (
    Workload(ARRAYS, workloads.fit_arrays, is_plain=True),
    Workload(ARRAYS_K2, workloads.fit_arrays, 0.8, K2, is_plain=True),
    Workload(PLAIN, workloads.fit_plain, 0.4, is_plain=True),
    Workload(PLAIN_STOPPED, workloads.evaluate_plain, 0.8, is_plain=True),
    Workload("{} epochs, 1 thread", workloads.fit, 1, {}, ARRAYS),
    Workload("{} epochs, 4 threads", workloads.fit, 1, FOUR, ARRAYS),
    Workload("{} epochs, 2 processes (fork)", workloads.fit, 1, TWO, ARRAYS),
    Workload(
        "{} epochs, 2 processes (forkserver)", workloads.fit, 0.4, TWO | {"method": "forkserver"}
    ),
    Workload("{} epochs, 2 processes (spawn)", workloads.fit, 0.12, TWO | {"method": "spawn"}),
    Workload("{} epochs, tf_keras, 1 thread", workloads.fit, 0.8, K2, ARRAYS_K2),
    Workload("{} epochs, tf_keras, 4 threads", workloads.fit, 0.8, FOUR | K2, ARRAYS_K2),
    Workload("{} epochs, tf_keras, 2 processes (fork)", workloads.fit, 0.8, TWO | K2, ARRAYS_K2),
    Workload("{} epochs, with validation", workloads.fit, 0.8, FOUR | {"validates": True}, ARRAYS),
    Workload("{} epochs, two models at once", workloads.fit_two_models, 0.8, FOUR, ARRAYS),
    Workload("{} epochs, another thread reading too", workloads.fit_and_read, 0.8, FOUR, ARRAYS),
    Workload(
        "{} epochs, the set written anew for each",
        workloads.fit_anew,
        1.2,
        {},
        PLAIN,
        least_rounds=40,
    ),
    Workload(
        "{} sequences opened, trained on and dropped", workloads.open_and_train, 0.4, {}, PLAIN
    ),
    Workload("{} sequences opened and dropped", workloads.open_sequences, 20),
    Workload("{} sets and slices opened and closed", workloads.open_sets, 20),
    Workload("{} passes dropped half-way", workloads.abandon, 0.8, {}, PLAIN_STOPPED),
)


def run(folder: Path, *, seed: int, count: int) -> list[Result]:
    """Run each workload for `count` epochs, or for as many rounds as take about as long.

    Parameters
    ----------
    folder : path
    seed : int
        Of the data.
    count : int
        A workload is left out where its rounds take so long that there would be too few.
    """
    write_sets(folder, seed)
    PROCESSES.set_forkserver_preload(PRELOADED)
    results: dict[str, Result] = {}
    for workload in tqdm(WORKLOADS, desc="workloads"):
        rounds = round(count * workload.share)
        if rounds >= workload.least_rounds:
            plain = results.get(workload.against or "")
            results[workload.what] = result_of(workload, folder / "set", rounds, plain)
    return list(results.values())


def write_sets(folder: Path, seed: int) -> None:
    """Write two sources, and the first one's shard set."""
    for number, name in enumerate(("a", "b")):
        options = {
            "rows": workloads.ROWS,
            "features": workloads.FEATURES,
            "seed": seed + number,
            "progress": False,
        }
        write_parquet(folder / f"{name}.parquet", **options)
    write_shards(folder / "a.parquet", folder / "set", num_shards=4, progress=False).close()


def result_of(workload: Workload, folder: Path, rounds: int, plain: Result | None) -> Result:
    """Run one workload in a process of its own, and judge what it has held."""
    result = Result(workload.what.format(rounds), rounds)
    answer = ask(workload, folder, rounds)
    if isinstance(answer, str):
        result.failures.append(answer)
        return result
    grown, result.figures = answer
    wrong = [] if workload.is_plain else list(too_much(grown, result, plain))
    result.failures += [f"in the second half of {rounds} rounds: {what}" for what in wrong]
    if not wrong:
        result.outcomes = {"measured" if workload.is_plain else "flat": 1}
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


def ask(
    workload: Workload, folder: Path, rounds: int
) -> str | tuple[dict[str, int], dict[str, Any]]:
    """Return what has grown in the process, and figures; or how it failed."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=answer, args=(sender, workload, folder, rounds))
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


def answer(sender: Connection, workload: Workload, folder: Path, rounds: int) -> None:
    """Run the workload and send what has grown. This runs in the process."""
    gc.freeze()  # what it was forked with: its objects are not counted, and collecting is fast
    watch = Watch(rounds)
    try:
        workload.work(folder, watch, rounds, **workload.options)
    except Exception:
        sender.send(traceback.format_exc())
        return
    grown = watch.grown()
    figures = {"MB grown": round(watch.grown_mb(), 2), "objects grown": grown["objects"]}
    sender.send((grown, figures | watch.most()))
