"""Keras compat: the one place that knows which Keras is running, and what has to be done about it.

Keras 3 (`keras`), its predecessor as a package of its own (`tf_keras`) and inside TensorFlow up to
2.15 (`keras` 2) each have a ``Sequence`` that their models accept. `sequence_bases` names those of
the Keras packages in use, and `install` changes this in each of them, for our sequences only. The
numbers are those in `relied`, which names what each change needs of Keras.

1. ``fit``, ``evaluate`` and ``predict`` take ``workers``, ``use_multiprocessing`` and
   ``max_queue_size``. They hold for that call and its validation.
   Without it: Keras 3 raises a TypeError, ``evaluate`` a ValueError.
2. Each pass over a sequence has threads and an order of its own (`_get_iterator`,
   `_handle_multiprocessing`).
   Without it: Keras shuffles the batches again, in another order each time. With workers of its own
   Keras 3 hands the batches that a stopped pass has left to the next: a model misses rows and sees
   others twice. Those of Keras 2 wait 5 seconds at the end of each epoch.
3. Keras 3 makes no workers (`__init__`).
   Without it: on JAX and torch the workers of a sequence make each batch again, for nobody.
4. ``fit`` and the others raise the error of a pass as what it is.
   Without it: TensorFlow raises an error of its own. Under Keras 3 its iterator may stay, and
   Python then waits for it at the exit.
5. Lists in a batch become tuples, and y gets the form of the model's outputs
   (`_standardize_batch`).
   Without it: TensorFlow refuses lists. A model with a loss of its own gets a dict for y.
6. Keras 2 takes floats of its own type as they are (`_standardize_batch`).
   Without it: Keras 2 copies each batch.
7. TensorFlow waits for a batch in a thread of its own, and prefetches one (`get_tf_dataset`,
   `get_dataset`).
   Without it: TensorFlow waits in a thread that runs the model. Keras 3 has as many batches made as
   TensorFlow likes; up to 3.5 it shuffles them again. Without the one, each step waits for a batch.
8. Losses and metrics find y and weights by the names in ``target=``; see `containers`.
   Without it: every Keras compares unnamed outputs with the wrong y, or raises an error.
9. At the end of a call Keras's adapter forgets the sequence, and a model of Keras 2 forgets its
   validation data.
   Without it: TensorFlow keeps each sequence and its files. After a fit that was interrupted, the
   next fit on Keras 2 validates on the data of the first.
10. A Ctrl-C ends a call.
    Without it: Keras 3 catches it where it waits for the logs of a step, and training goes on.
11. A callback follows the epochs of ``fit``. The first epoch may begin at any batch
    (`_enumerate_iterator`, `enumerate_epoch`, `steps`).
    Without it: each epoch has the same order. `Resume` runs out of batches in its first epoch.
12. Up to Keras 3.6 each validation begins anew (`enumerate_epoch`).
    Without it: with ``validation_steps`` each epoch is validated on other rows.
13. ``fit`` and the others refuse a sequence that Keras or TensorFlow would divide among devices and
    processes in another way than is meant.
    Without it: processes read the same rows, or some rows are read by none.
14. ``fit`` notes what a model was fed, and ``model.save`` saves that; see `model_input`.
    Without it: a model predicts from features in another order or scale, and nobody is told.

Every other input reaches Keras as it was given. Installing again changes nothing; what another
import of this package has installed is replaced, and its sequences are fed as ours are.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from types import ModuleType
from typing import Any

from ..batching.prefetching import Prefetching, check_options
from ..checks import is_of
from ..errors import NumeraiSequenceError
from .distribution import check_distribution
from .epoch_callback import follow
from .fit_call import Feeding, forget
from .interrupts import heeded
from .keras_changes import Changes
from .keras_private_names import describe_missing, enclosed, missing, root_of, version_of
from .model_input import check_inputs, input_noted, note_input, read_input, write_input
from .output_forms import Form, arrange, arrays_of, find_form, without_lists
from .pass_workers import run_pass
from .targets_by_name import cure_containers_2, cure_containers_3, given_loss
from .y_for_outputs import Names

OPTIONS = Prefetching._fields

_INSTALLED = "_numerai_sequence_installed"
_FEEDING = "_numerai_sequence_feeding"

# By TensorFlow, between our generator and the model. It would take as many as it likes.
_PREFETCHED = 1


def sequence_bases() -> tuple[type, ...]:
    """Return the ``Sequence`` classes that a sequence of ours has to inherit from.

    A Keras that lacks something takes no sequence, unless it is ``tf.keras``: see `install`.
    """
    active = active_keras()
    return tuple(
        package.utils.Sequence
        for package in _keras_packages()
        if package is active or not missing(package)
    )


def callback_bases() -> tuple[type, ...]:
    """Return the ``Callback`` classes that a callback of ours has to inherit from."""
    return tuple(package.callbacks.Callback for package in _keras_packages())


def _keras_packages() -> list[ModuleType]:
    packages = [importlib.import_module("keras")]
    # Keras 3 on JAX or torch runs without TensorFlow: do not load it for a package nobody uses.
    wanted = "tensorflow" in sys.modules or "TF_USE_LEGACY_KERAS" in os.environ
    if "tf_keras" in sys.modules or (wanted and importlib.util.find_spec("tf_keras")):
        with suppress(ImportError):  # made for another TensorFlow: the user cannot use it either
            packages.append(importlib.import_module("tf_keras"))
    return packages


def active_keras() -> ModuleType:
    """Return the Keras that ``tf.keras`` is."""
    is_legacy = os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")
    return importlib.import_module("tf_keras" if is_legacy else "keras")


def carry_inputs() -> None:
    """Let models of the Keras packages that are loaded be saved with what they were fed."""
    for name in ("keras", "tf_keras"):
        model = getattr(sys.modules.get(name), "Model", None)
        found = getattr(model, "load_assets", read_input)  # that of another import of this package
        if model is not None and found.__module__ == read_input.__module__:
            model.save_assets, model.load_assets = write_input, read_input


def install(kind: type) -> None:
    """Make the Keras packages in use ready for sequences of class `kind`.

    Those of another import of this package are known by the name of their class. All that is relied
    on in a package is looked for before anything of it is changed; see `relied`.

    Raises
    ------
    NumeraiSequenceError
        The Keras in use lacks something. One that is not in use says so when it is fed a sequence.
    """
    for package in _keras_packages():
        before = getattr(package, _INSTALLED, None)
        if getattr(before, "made_by", None) is kind:
            continue
        if before is not None:
            before.undo()
            delattr(package, _INSTALLED)
        changes = Changes(kind)
        try:
            _serve(package, kind, changes)
        except BaseException:
            changes.undo()
            raise
        setattr(package, _INSTALLED, changes)


def _serve(package: ModuleType, kind: type, changes: Changes) -> None:
    found = missing(package)
    if not found:
        for name in ("fit", "evaluate", "predict"):
            _give_options(package.Model, name, kind, changes)
        cure = _cure_keras_3 if version_of(package) >= (3, 0) else _cure_keras_2
        cure(package, kind, changes)
        return
    message = describe_missing(package, found)
    if package is active_keras():
        raise NumeraiSequenceError(message)
    for name in ("fit", "evaluate", "predict"):  # the other Keras may be the one that is used
        changes.set(package.Model, name, _refusing(getattr(package.Model, name), kind, message))


def _refusing(original: Callable[..., Any], kind: type, message: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if any(is_of(one, kind) for one in (*args, *kwargs.values())):
            raise NumeraiSequenceError(message)
        return original(self, *args, **kwargs)

    return method


def _give_options(model: type, name: str, kind: type, changes: Changes) -> None:
    """Let a method of Keras's Model take `OPTIONS` where it is fed one of our sequences.

    In ``model.fit(NumeraiSequence(shards), workers=4)`` Python looks ``model.fit`` up before it
    makes the sequence, so a new attribute of the class would come too late. What is replaced is the
    function inside: every Keras wraps these methods to shorten their tracebacks.
    """
    owner = next(parent for parent in model.__mro__ if name in vars(parent))
    cell = enclosed(vars(owner)[name])
    if cell is not None:  # on NumPy no model is fit
        changes.set_cell(cell, _with_options(cell.cell_contents, kind))


def _with_options(original: Callable[..., Any], kind: type) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        ours: list[Any] = [one for one in (*args, *kwargs.values()) if is_of(one, kind)]
        if not ours:
            return original(self, *args, **kwargs)
        options = {}
        if is_of(args[0] if args else kwargs.get("x"), kind):
            options = check_options(
                **{option: kwargs.pop(option) for option in OPTIONS if option in kwargs}
            )
        given = signature.bind_partial(self, *args, **kwargs)
        is_compared = original.__name__ != "predict"  # which looks at no y
        forms = {one: _form(one, self) if is_compared else None for one in ours}
        is_fed = is_of(given.arguments.get("x"), kind)
        is_trained = original.__name__ == "fit" and is_fed
        trained = given.arguments["x"] if is_trained else None
        around = Feeding.present()
        if around is None or not around.has_checked(self, ours):  # as of a fit that validates
            check_inputs(self, original.__name__, ours, trained)
        with heeded(), ExitStack() as stack:
            if original.__name__ == "fit":
                feeding = follow(given.arguments, forms, options, callback_bases(), stack)
                stack.enter_context(feeding)
                # Where one of Keras 2 is interrupted, the next would use it.
                stack.callback(forget, self, "_eval_data_handler")
            else:
                feeding = stack.enter_context(Feeding(forms, options, model=self))
            for one in ours:
                first = feeding.first_batch(one)
                check_distribution(one, self, original.__name__, given.arguments, first)
            if is_compared:
                one = given.arguments["x"] if is_fed else ours[0]
                width = len(one.target) if isinstance(one.target, tuple) else 1
                named = _names(one, trained, self)
                feeding.compare(named, given_loss(self), is_ours=is_fed, width=width)
            if is_trained:
                note_input(self, trained)
            try:
                return original(*given.args, **given.kwargs)
            except Exception as error:
                cause = feeding.cause(error)
                if cause is None:
                    raise
        # TensorFlow's error held its iterator, in a circle. One whose thread is still at work when
        # the interpreter exits would be waited for, for ever.
        gc.collect()
        try:
            raise cause
        finally:
            del cause  # or it would hold itself

    return method


def _names(fed: Any, trained: Any, model: Any) -> Names | None:
    """Return the names of a model's outputs, in order, where only ``target=`` names them."""
    named = tuple(fed.target) if isinstance(fed.target, Mapping) else None
    noted = input_noted(model).outputs
    is_noted = noted is not None and {*(named or ())} <= {*noted}
    return noted if is_noted and trained is None else named


def _form(sequence: Any, model: Any) -> Form:
    names = sequence.target
    return find_form(model, names) if isinstance(names, Mapping) else None


def _cure_keras_3(package: ModuleType, kind: type, changes: Changes) -> None:
    """Change the adapter of Keras 3's for sequences.

    An adapter of our own would need as many names of Keras's: Keras takes one from 3.7 on only, and
    asks it for the batches in another way on each backend.
    """
    module = importlib.import_module("keras.src.trainers.data_adapters.py_dataset_adapter")
    adapter = module.PyDatasetAdapter
    made, get_iterator = adapter.__init__, adapter._get_iterator
    get_dataset, standardize = adapter.get_tf_dataset, adapter._standardize_batch

    @functools.wraps(made)
    def init(self: Any, x: Any, *args: Any, **kwargs: Any) -> None:
        made(self, x, *args, **kwargs)
        if is_of(x, kind):
            self.enqueuer = None  # the one for all passes; it has not been started
            _feeding_of(self)  # while it is known

    @functools.wraps(standardize)
    def _standardize_batch(self: Any, batch: Any) -> Any:
        if is_of(self.py_dataset, kind):
            batch = arrange(without_lists(batch), _feeding_of(self).form(self.py_dataset))
        return standardize(self, batch)

    @functools.wraps(get_iterator)
    def _get_iterator(self: Any) -> Any:
        if not is_of(self.py_dataset, kind):
            return get_iterator(self)
        # Others than TensorFlow take the batches in the thread that trains.
        overlaps, feeding = package.backend.backend() == "tensorflow", _feeding_of(self)
        batches = run_pass(self.py_dataset, self.shuffle, feeding, self, overlaps=overlaps)
        return (self._standardize_batch(batch) for batch in batches)

    @functools.wraps(get_dataset)
    def get_tf_dataset(self: Any) -> Any:
        if not is_of(self.py_dataset, kind):
            return get_dataset(self)
        # The pass shuffles, and prefetches. Anything for an enqueuer says that.
        shuffles, self.shuffle, self.enqueuer = self.shuffle, False, self.py_dataset
        try:
            return _on_its_own(get_dataset(self)).prefetch(_PREFETCHED)
        finally:
            self.shuffle, self.enqueuer = shuffles, None

    for owner, name in _epochs_of_keras_3(package):
        method = getattr(owner, name)
        if name == "enumerate_epoch":
            method = _anew(method, kind)
        steps = _shortened(method, kind, "data_adapter", "py_dataset", "_num_batches")
        changes.set(owner, name, steps)
    for name, method in {
        "__init__": init,
        "_get_iterator": _get_iterator,
        "get_tf_dataset": get_tf_dataset,
        "_standardize_batch": _standardize_batch,
    }.items():
        changes.set(adapter, name, method)
    cure_containers_3(importlib.import_module("keras.src.trainers.compile_utils"), changes)


def _epochs_of_keras_3(keras: ModuleType) -> list[tuple[Any, str]]:
    """Return the classes, and the name of the method in each, that go through an epoch's steps."""
    epochs = importlib.import_module("keras.src.trainers.epoch_iterator").EpochIterator
    if version_of(keras) >= (3, 7):
        return [(epochs, "_enumerate_iterator")]
    found = [(epochs, "enumerate_epoch")]
    if keras.backend.backend() == "tensorflow":
        trainer = importlib.import_module("keras.src.backend.tensorflow.trainer")
        found.append((trainer.TFEpochIterator, "enumerate_epoch"))
    return found


def _anew(method: Callable[[Any], Iterator[Any]], kind: type) -> Callable[[Any], Iterator[Any]]:
    """Return a method that begins a new pass each time, unless it trains.

    Up to Keras 3.6 one that is validated with a part of its batches goes on where the last
    validation has ended, with other rows.
    """

    @functools.wraps(method)
    def steps(self: Any) -> Iterator[Any]:
        adapter = self.data_adapter
        sequence = getattr(adapter, "py_dataset", None)
        if is_of(sequence, kind) and not _feeding_of(adapter).trains(adapter):
            self._current_iterator = None
        yield from method(self)

    return steps


def _cure_keras_2(package: ModuleType, kind: type, changes: Changes) -> None:
    root = root_of(package)
    adapter = importlib.import_module(f"{root}.engine.data_adapter").KerasSequenceAdapter
    handle, standardize = adapter._handle_multiprocessing, adapter._standardize_batch
    get_dataset = adapter.get_dataset

    @functools.wraps(handle)
    def _handle_multiprocessing(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_of(x, kind):
            return handle(self, x, *args, **kwargs)
        feeding, shuffles = _feeding_of(self), self._shuffle_sequence
        # The adapter holds the sequence, not this function.
        return lambda: run_pass(self._keras_sequence, shuffles, feeding, self)

    @functools.wraps(standardize)
    def _standardize_batch(self: Any, data: Any) -> Any:
        if is_of(self._keras_sequence, kind):
            # The first call is from the adapter's constructor.
            data = arrange(without_lists(data), _feeding_of(self).form(self._keras_sequence))
            floats = {array.dtype.name for array in arrays_of(data) if array.dtype.kind == "f"}
            if floats <= {package.backend.floatx()}:
                return data  # and no copy of each array, which is no longer aligned
        return standardize(self, data)

    @functools.wraps(get_dataset)
    def _get_dataset(self: Any) -> Any:
        dataset = get_dataset(self)
        return _on_its_own(dataset) if is_of(self._keras_sequence, kind) else dataset

    handler = importlib.import_module(adapter.__module__).DataHandler
    steps = _shortened(handler.steps, kind, "_adapter", "_keras_sequence", "_inferred_steps")
    changes.set(handler, "steps", steps)
    for name, method in {
        "_handle_multiprocessing": _handle_multiprocessing,
        "_standardize_batch": _standardize_batch,
        "get_dataset": _get_dataset,
    }.items():
        changes.set(adapter, name, method)
    cure_containers_2(importlib.import_module(f"{root}.engine.compile_utils"), changes)


def _shortened(
    method: Callable[[Any], Iterator[Any]], kind: type, adapter: str, source: str, count: str
) -> Callable[[Any], Iterator[Any]]:
    """Return a method that goes through an epoch's steps, without those that were trained before.

    The last three are attributes: its adapter, the adapter's sequence, and the number of steps.
    """

    @functools.wraps(method)
    def steps(self: Any) -> Iterator[Any]:
        fed = getattr(self, adapter)
        sequence = getattr(fed, source, None)
        if not is_of(sequence, kind):
            yield from method(self)
            return
        whole = getattr(self, count)
        setattr(self, count, whole - _feeding_of(fed).place(fed, sequence).batch)
        try:
            yield from method(self)
        finally:
            setattr(self, count, whole)

    return steps


def _feeding_of(adapter: Any) -> Feeding:
    """Return the call of a model's method that an adapter was made in; first asked for in there."""
    feeding: Feeding | None = vars(adapter).get(_FEEDING)
    if feeding is None:
        feeding = Feeding.of(adapter)
        setattr(adapter, _FEEDING, feeding)
    return feeding


def _on_its_own(dataset: Any) -> Any:
    """Give a TensorFlow dataset a thread of its own, which waits for batches."""
    tensorflow = importlib.import_module("tensorflow")
    options = tensorflow.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    return dataset.with_options(options)
