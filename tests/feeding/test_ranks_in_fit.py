"""Ranks under Keras: a model sees its rank's rows, and nothing may divide them once more."""

from __future__ import annotations

import numpy as np
import pytest
from keras_models import (
    IS_TENSORFLOW,
    PACKAGE,
    RowCounts,
    assert_each_row_once,
    counting_model,
    each_threads,
    keras,
    tf,
)
from shard_sets import write_set

from numerai_sequence import EraScores, NumeraiSequence
from numerai_sequence.feeding.distribution import _check_undivided

ROWS, FEATURES = 301, 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("dividing"), rows=ROWS, features=FEATURES)


def sequence_of(folder, rank=0, world_size=2):
    return NumeraiSequence(folder, 20, rank=rank, world_size=world_size)


def make_model():
    return counting_model(RowCounts(ROWS), FEATURES)


@pytest.mark.slow
@each_threads
def test_models_of_all_ranks_see_each_row_once(folder, workers, nothing_left):
    found = []
    for rank in range(3):
        model, recorder = make_model()  # one each: Keras may take a fresh one an epoch further
        model.fit(sequence_of(folder, rank, 3), callbacks=[recorder], verbose=0, **workers)
        found += recorder.fit
    assert_each_row_once(sum(found))


def test_eras_are_scored_by_all_rows_on_each_rank(folder):
    model, _ = make_model()
    found = []
    for rank in range(2):
        scores = EraScores(sequence_of(folder, rank))
        scores.set_model(model)
        logs = {}
        scores.on_epoch_end(0, logs)
        found.append(logs)
    assert found[0] == found[1]
    assert found[0]


is_tensorflow = pytest.mark.skipif(not IS_TENSORFLOW, reason="TensorFlow's strategies")


@is_tensorflow
def test_strategy_of_several_workers_is_refused(folder):
    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        model, _ = make_model()
    expected = "world_size: found 2 under tf.distribute.MultiWorkerMirroredStrategy, .* leave rank"
    ours, arrays = sequence_of(folder), np.zeros((2, FEATURES))
    with pytest.raises(ValueError, match=expected):
        model.fit(ours, verbose=0)
    with pytest.raises(ValueError, match=expected):
        model.evaluate(ours, verbose=0)
    begun = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: begun.append(True))
    for whole in ((arrays, arrays[:, 0]), (sequence_of(folder, 0, 1),)):
        with pytest.raises(ValueError, match=expected):
            model.fit(*whole, validation_data=ours, callbacks=[watch], verbose=0)
    assert not begun  # and not only when validation begins


@is_tensorflow
def test_strategy_of_one_process_and_no_ranks_are_not_refused(folder):
    with tf.distribute.MirroredStrategy(["cpu:0"]).scope():
        model, recorder = make_model()
    for rank in range(2):
        model.fit(sequence_of(folder, rank), callbacks=[recorder], verbose=0)
    assert_each_row_once(sum(recorder.fit))


@pytest.fixture
def distribution(monkeypatch):
    """Keras's, as it is in one of two processes.

    Their number is set by hand: JAX only counts processes that really wait for each other.
    """
    if PACKAGE != "keras" or not hasattr(keras, "distribution"):
        pytest.skip("Keras 3's distributions")
    found = keras.distribution.DataParallel(devices=["cpu:0"])
    monkeypatch.setattr(found, "_is_multi_process", True)
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(found)
    yield found
    keras.distribution.set_distribution(before)


def test_distribution_that_divides_data_is_refused(folder, distribution):
    model, _ = make_model()
    with pytest.raises(ValueError, match=r"DataParallel, .* use DataParallel\(\.\.\., auto_shard"):
        model.predict(sequence_of(folder), verbose=0)


def test_distribution_that_leaves_data_alone_is_not_refused(folder, distribution):
    model, _ = make_model()
    distribution.auto_shard_dataset = False
    assert len(model.predict(sequence_of(folder), verbose=0)) == 150


def test_distribution_of_a_single_process_is_not_refused(folder, distribution, monkeypatch):
    monkeypatch.undo()
    assert distribution.auto_shard_dataset
    model, _ = make_model()
    assert len(model.predict(sequence_of(folder), verbose=0)) == 150


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_distribution_that_divides_batches_of_no_ranks_is_refused(folder, distribution, method):
    model, _ = make_model()
    ours = sequence_of(folder, 0, 1)
    expected = r"world_size: found 1 under keras\.distribution\.DataParallel .* auto_shard_dataset"
    with pytest.raises(ValueError, match=expected):
        getattr(model, method)(ours, verbose=0)
    distribution.auto_shard_dataset = False
    getattr(model, method)(ours, verbose=0)


def test_validation_of_no_ranks_is_refused_before_training(folder, distribution):
    model, recorder = make_model()
    arrays = np.zeros((2, FEATURES), np.float32)
    with pytest.raises(ValueError, match="world_size: found 1 under"):
        model.fit(
            arrays,
            arrays[:, 0],
            validation_data=sequence_of(folder, 0, 1),
            callbacks=[recorder],
            verbose=0,
        )
    assert not recorder.fit


@pytest.mark.parametrize(("sizes", "is_refused"), [((1, 1), False), ((2, 1), True)])
def test_processes_that_share_one_model_read_the_same(monkeypatch, sizes, is_refused):
    if PACKAGE != "keras" or not hasattr(keras, "distribution"):
        pytest.skip("Keras 3's distributions")
    package = keras.distribution
    devices = ["cpu:0", "cpu:1"][: sizes[0] * sizes[1]]
    mesh = package.DeviceMesh(sizes, ["batch", "model"], devices)
    found = package.ModelParallel(layout_map=package.LayoutMap(mesh), batch_dim_name="batch")
    monkeypatch.setattr(found, "_is_multi_process", True)
    monkeypatch.setattr(package, "distribution", lambda: found)
    if is_refused:
        with pytest.raises(
            ValueError, match=r"world_size: found 1 under keras\.distribution\.Model"
        ):
            _check_undivided()
    else:
        _check_undivided()
