"""Distribution: refuse sequences that Keras or TensorFlow would divide in a wrong way.

They divide a batch among devices, and batches among processes. This module imports neither, because
a package that is not imported divides nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def check_distribution(
    sequence: Any, model: Any, method: str, arguments: Mapping[str, Any], first: int = 0
) -> None:
    """Check that batches can be divided among devices, and rows of ranks are not divided again.

    Parameters
    ----------
    sequence : NumeraiSequence
    model
        Model of any Keras.
    method : {"fit", "evaluate", "predict"}
        Method of the model that gets the sequence.
    arguments : mapping
        Arguments of the method, by name.
    first : int
        First batch of the first pass.

    Raises
    ------
    ValueError
        The message names the distribution or strategy, and the remedy.
    """
    if sequence.world_size > 1:
        _check_divided_once(sequence.world_size, model)
    else:
        _check_undivided()
    if sequence.resident:
        check_one_place(_strategy_of_keras_3(model))
    _check_workers(model, method)
    _check_mesh(sequence)
    if method != "predict":
        is_trained = method == "fit" and arguments.get("x") is sequence
        permutes = is_trained and not sequence.shuffle and arguments.get("shuffle", True)
        _check_replicas(sequence, model, None if permutes else first)
        if is_trained and arguments.get("validation_data") is sequence:
            _check_replicas(sequence, model, 0)


def _check_undivided() -> None:
    """Check that Keras does not divide the batches of a sequence without ranks.

    With Keras 3.16, each process takes a share of the batch numbers, and all would read the first
    batches. Up to 3.15, all processes read the same batches.
    """
    found = _dividing_distribution()
    if found and not _divides_the_model_alone():
        name, remedy = found
        raise ValueError(
            f"world_size: found 1 under {name} of several processes, which divides the batches, "
            f"so all processes would read the same; {remedy}, and give each process its "
            "rank= and the number of processes as world_size="
        )


def _divides_the_model_alone() -> bool:
    """Return whether all processes need the same data, each for a part of one model."""
    found, keras = _keras_distribution(), sys.modules["keras"]
    if not isinstance(found, keras.distribution.ModelParallel):
        return False
    mesh = found.device_mesh
    sizes = dict(zip(mesh.axis_names, mesh.shape, strict=True))
    return bool(sizes.get(found.batch_dim_name, 0) == 1)


def _check_divided_once(world_size: int, model: Any) -> None:
    found = _dividing_distribution() or _dividing_strategy(model)
    if found:
        name, remedy = found
        raise ValueError(
            f"world_size: found {world_size} under {name}, which divides rows among "
            f"processes, so they would be divided twice; {remedy}"
        )


def _dividing_distribution() -> tuple[str, str] | None:
    """Return the name of Keras 3's distribution if it divides data, and the remedy."""
    found = _keras_distribution()
    # Keras's own adapters check the same. Versions without the option always divide.
    divides = getattr(found, "_is_multi_process", False)
    if not (divides and getattr(found, "auto_shard_dataset", True)):
        return None
    name = type(found).__name__
    return f"keras.distribution.{name}", f"use {name}(..., auto_shard_dataset=False)"


def _keras_distribution() -> Any:
    package = getattr(sys.modules.get("keras"), "distribution", None)
    found = getattr(package, "distribution", None)
    return None if found is None else found()


def _dividing_strategy(model: Any) -> tuple[str, str] | None:
    """Return the name of a model's TensorFlow strategy of several processes, and the remedy."""
    strategy = getattr(model, "distribute_strategy", None)
    distribute = getattr(sys.modules.get("tensorflow"), "distribute", None)
    for name in ("MultiWorkerMirroredStrategy", "ParameterServerStrategy"):
        if distribute is not None and isinstance(strategy, getattr(distribute, name, ())):
            return f"tf.distribute.{name}", (
                "with tf_keras leave rank and world_size out; with Keras 3 train on JAX, with "
                "keras.distribution.DataParallel(auto_shard_dataset=False)"
            )
    return None


def check_one_place(strategy: Any = None) -> None:
    """Check that each device holds all resident rows, or that there is one device.

    With JAX, DataParallel gives each device a copy of data that is not a batch.

    Parameters
    ----------
    strategy : tf.distribute.Strategy, optional
        Strategy of the model. None for TensorFlow's present strategy.

    Raises
    ------
    ValueError
        Several devices would divide the rows.
    """
    found, distribute = (
        _keras_distribution(),
        getattr(sys.modules.get("tensorflow"), "distribute", None),
    )
    if strategy is None and distribute is not None:
        strategy = distribute.get_strategy()
    name = None
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        name = f"tf.distribute.{type(strategy).__name__}"
    elif found is not None:
        is_copied = type(found).__name__ == "DataParallel"
        if not is_copied or getattr(found, "_is_multi_process", False):
            name = f"keras.distribution.{type(found).__name__}"
    if name is not None:
        raise ValueError(
            f"resident: found True under {name} of several devices, which cannot share resident "
            "rows; use dtype='packed' without resident=True, or a process and a rank= for each "
            "device"
        )


def _check_workers(model: Any, method: str) -> None:
    """Check that several TensorFlow workers do not train a Keras 3 model, which would fail."""
    strategy, found = _strategy_of_keras_3(model), _dividing_strategy(model)
    if strategy is None or found is None or method == "predict":
        return
    replicas, here = strategy.num_replicas_in_sync, len(strategy.extended.worker_devices)
    if here < replicas:
        raise ValueError(
            f"{method}: found {found[0]} of {replicas} devices, {here} of them in this process, "
            "under Keras 3, which cannot read batches of a sequence there; train on JAX, with "
            "keras.distribution.DataParallel(auto_shard_dataset=False) and rank=, world_size= of "
            "the sequence; or train with tf_keras"
        )


def _strategy_of_keras_3(model: Any) -> Any:
    """Return the strategy that a model of Keras 3's runs under on TensorFlow, or None."""
    keras = sys.modules.get("keras")
    is_3 = isinstance(model, getattr(keras, "Model", ())) and hasattr(keras, "ops")
    return getattr(model, "distribute_strategy", None) if is_3 else None


def _check_replicas(sequence: Any, model: Any, first: int | None) -> None:
    """Check the first batch, of which Keras 3 adds up the devices' parts to learn their shape.

    None where it may be any.
    """
    strategy = _strategy_of_keras_3(model)
    replicas = strategy.num_replicas_in_sync if strategy is not None else 1
    found = sequence.indivisible(replicas, first) if replicas > 1 else None
    if found is not None:
        name = f"tf.distribute.{type(strategy).__name__}"
        why = "Keras 3 needs equal parts of the first batch, which may be any batch"
        going_on = "; or, to resume at this batch, use one device" if first else ""
        raise ValueError(_indivisible(sequence, found, replicas, name, why) + going_on)


def _check_mesh(sequence: Any) -> None:
    """Check that JAX can lay out each batch on its devices."""
    keras, found = sys.modules.get("keras"), _keras_distribution()
    if keras is None or found is None or keras.backend.backend() != "jax":
        return
    layout = found.get_data_layout((1, 1))
    sizes = dict(zip(layout.device_mesh.axis_names, layout.device_mesh.shape, strict=True))
    parts = max(1, sizes.get(layout.axes[0], 1) // sys.modules["jax"].process_count())
    rows = sequence.indivisible(parts) if parts > 1 else None
    if rows is not None:
        name = f"keras.distribution.{type(found).__name__}"
        why = "JAX needs equal parts of each batch"
        raise ValueError(_indivisible(sequence, rows, parts, name, why))


def _indivisible(sequence: Any, rows: int, parts: int, name: str, why: str) -> str:
    kept = 'batch_by="rows", ' if sequence.batch_by != "rows" else ""
    return (
        f"batch_size: found a batch of {rows:,} rows under {name}, which divides it among {parts} "
        f"devices, expected a multiple of {parts}: {why}; use {kept}a batch_size that is a "
        f"multiple of {parts}, not larger than the number of rows, and drop_remainder=True"
    )
