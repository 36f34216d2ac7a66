"""Unpack: packed rows become features inside the model, from the host or from the device."""

from __future__ import annotations

import gc
import pickle
import warnings

import numpy as np
import pytest
from keras_models import PROCESSES, THREADS, keras, keras_3_only, to_numpy
from shard_sets import write_set

from numerai_sequence import (
    EraScores,
    FeatureError,
    NumeraiSequence,
    NumeraiSequenceError,
    Resume,
    Unpack,
    export_predict,
    open_shards,
    predict,
)
from numerai_sequence.feeding.device import Device, check_room
from numerai_sequence.feeding.unpack import _on_device

ROWS, FEATURES, BATCH = 501, 14, 60
CHOSEN = tuple(f"feature_{number:03}" for number in (5, 2, 13, 0, 7))
PACKED = {"dtype": "packed"}
RESIDENT = {"dtype": "packed", "resident": True}
slow = pytest.mark.slow
each_feed = pytest.mark.parametrize("fed", [PACKED, RESIDENT], ids=["packed", "resident"])

pytestmark = keras_3_only


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder for each encoding, of the same rows."""
    folder = tmp_path_factory.mktemp("unpack")
    made = {}
    for encoding in ("packed", "int8"):
        (folder / encoding).mkdir()
        made[encoding] = write_set(
            folder / encoding, rows=ROWS, features=FEATURES, encoding=encoding
        )
    return made


@pytest.fixture
def folder(sets):
    return sets["packed"]


def core_of_floats(features=FEATURES):
    keras.utils.set_random_seed(3)
    layers = keras.layers
    hidden = [layers.Dense(8, "relu"), layers.Dropout(0.2), layers.Dense(1)]
    return keras.Sequential([keras.Input((features,)), *hidden])


def compiled(model):
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model


def wrapped(core, *sequences):
    return compiled(keras.Sequential([Unpack.of(*sequences), core]))


def unpacked(layer, x):
    return to_numpy(layer(keras.ops.convert_to_tensor(x)))


def same(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


# The values.


@pytest.mark.parametrize("features", [2, 47, *(pytest.param(n, marks=slow) for n in (1, 3, 4, 5))])
@pytest.mark.parametrize("encoding", ["packed", "int8"])
def test_any_features_in_any_order_are_those_of_float32(tmp_path, features, encoding):
    made = write_set(tmp_path, rows=60, features=features, encoding=encoding)
    rng = np.random.default_rng(features)
    with open_shards(made) as shards:
        names = shards.features
        lists = [None, names[::-1], *(list(rng.permutation(names)[:n]) for n in (1, features))]
        for chosen in lists:
            expected = NumeraiSequence(shards, 60, features=chosen)[0][0]
            for fed in (PACKED, RESIDENT):
                sequence = NumeraiSequence(shards, 60, features=chosen, **fed)
                found = unpacked(Unpack.of(sequence), sequence[0][0])
                assert found.dtype == np.float32
                np.testing.assert_array_equal(found, expected)


def test_all_bytes_are_exact():
    digits = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    x = (digits @ [1, 5, 25]).astype(np.uint8)[:, np.newaxis]
    for columns in (None, [2, 0, 1], [1]):
        found = unpacked(Unpack("packed", 3, columns), x)
        np.testing.assert_array_equal(found, digits[:, columns or [0, 1, 2]] / 4)


@each_feed
@pytest.mark.parametrize(
    "policy",
    [
        "mixed_bfloat16",
        *(pytest.param(p, marks=slow) for p in ("mixed_float16", "float16", "float64")),
    ],
)
def test_mixed_precision_loses_nothing(folder, fed, policy):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64, unless it is asked for before anything else")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        sequence = NumeraiSequence(folder, BATCH, features=CHOSEN, shuffle=False, **fed)
        layer = Unpack.of(sequence)
        model = keras.Sequential([layer, keras.layers.Dense(1)])
        model.predict(sequence, verbose=0)
        found = layer(keras.ops.convert_to_tensor(sequence[1][0]))
        assert keras.backend.standardize_dtype(found.dtype) == policy.removeprefix("mixed_")
        expected = NumeraiSequence(folder, BATCH, features=CHOSEN, shuffle=False)[1][0]
        np.testing.assert_array_equal(to_numpy(keras.ops.cast(found, "float32")), expected)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    "options",
    [
        {"run_rows": 1},
        {"run_rows": 8, "seed": 5},
        pytest.param({"shuffle": False}, marks=slow),
        {"batch_by": "era", "batch_size": 2},
        {"eras": slice(1, None, 2), "drop_remainder": True},
        {"rank": 1, "world_size": 3},
        {"missing_target": "mask", "target": ["target", "target_b"]},
        {"sample_weight": "target", "target": {"a": "target", "b": "target_b"}},
        pytest.param({"sample_weight": lambda eras, y: y + 1}, marks=slow),
        pytest.param({"target": None, "features": CHOSEN}, marks=slow),
    ],
)
@each_feed
def test_batches_are_those_of_float32(sets, options, fed):
    options = {"batch_size": BATCH, **options}
    for encoding in ("packed", "int8"):
        floats = NumeraiSequence(sets[encoding], **options)
        sequence = NumeraiSequence(sets[encoding], **options, **fed)
        layer = Unpack.of(sequence)
        assert len(sequence) == len(floats)
        for epoch in range(2):
            for number in range(len(floats)):
                x, *others = as_tuple(sequence[number])
                expected_x, *expected = as_tuple(floats[number])
                np.testing.assert_array_equal(unpacked(layer, x), expected_x)
                assert same(arrays_in(others), arrays_in(expected)), (epoch, number)
            sequence.on_epoch_end()
            floats.on_epoch_end()


def as_tuple(batch):
    return batch if isinstance(batch, tuple) else (batch,)


def arrays_in(parts):
    return [a for part in parts for a in (part.values() if isinstance(part, dict) else [part])]


def test_packed_batches_are_the_bytes_of_the_file(sets):
    with open_shards(sets["packed"]) as shards:
        rows = np.arange(10, dtype=np.int64)
        encoded, _ = shards.row_reader.gather(rows, ())
        x, _ = NumeraiSequence(shards, 10, shuffle=False, features=CHOSEN, **PACKED)[0]
        assert (x.dtype, x.shape) == (np.uint8, (10, 5))
        np.testing.assert_array_equal(x, encoded)
    x, _ = NumeraiSequence(sets["int8"], 10, shuffle=False, **PACKED)[0]
    assert (x.dtype, x.shape) == (np.uint8, (10, FEATURES))
    resident = NumeraiSequence(sets["int8"], 10, shuffle=False, **RESIDENT)
    with pytest.raises(NumeraiSequenceError, match="the rows are not on the device yet"):
        resident[1]
    Unpack.of(resident)
    x, _ = resident[1]
    assert (x.dtype, x.tolist()) == (np.int32, list(range(10, 20)))


# Training.


@pytest.fixture(scope="module")
def trained(sets):
    """The weights, the history and the predictions of a fit on floats."""

    def fit(features):
        model = compiled(core_of_floats(FEATURES if features is None else len(features)))
        options = {"features": features}
        training = NumeraiSequence(sets["packed"], BATCH, **options)
        validation = NumeraiSequence(sets["packed"], 50, shuffle=False, **options)
        fit = {"epochs": 3, "validation_data": validation, "verbose": 0, **THREADS}
        history = model.fit(training, **fit).history
        return model.get_weights(), history, model.predict(validation, verbose=0)

    return {features: fit(features) for features in (None, CHOSEN)}


@pytest.mark.parametrize("features", [None, CHOSEN], ids=["all", "chosen"])
@pytest.mark.parametrize("encoding", ["packed", pytest.param("int8", marks=slow)])
@each_feed
def test_weights_are_the_same_bits(sets, trained, features, encoding, fed, tmp_path):
    options = {"features": features, **fed}
    training = NumeraiSequence(sets[encoding], BATCH, **options)
    validation = NumeraiSequence(sets[encoding], 50, shuffle=False, **options)
    core = core_of_floats(FEATURES if features is None else len(features))
    model = wrapped(core, training, validation)
    history = model.fit(training, epochs=3, validation_data=validation, verbose=0, **THREADS)
    weights, expected, values = trained[features]
    assert same(core.get_weights(), weights)
    assert history.history == expected
    np.testing.assert_array_equal(model.predict(validation, verbose=0), values)
    # The rows are no part of the model.
    assert same(model.get_weights(), weights)
    assert model.count_params() == core.count_params()
    if encoding == "packed":
        _check_saved(model, validation, values, tmp_path)


def _check_saved(model, validation, values, tmp_path):
    model.save(tmp_path / "whole.keras")
    loaded = keras.models.load_model(tmp_path / "whole.keras")
    if validation.resident:
        with pytest.raises(NumeraiSequenceError, match="not on the device"):
            loaded.predict(validation, verbose=0)
        loaded.layers[0].hold(validation)
    np.testing.assert_array_equal(loaded.predict(validation, verbose=0), values)


@slow
@each_feed
def test_compiled_by_xla_the_bits_are_the_same(folder, fed):
    found = []
    for options in ({}, fed):
        sequence = NumeraiSequence(folder, BATCH, features=CHOSEN, **options)
        core = core_of_floats(len(CHOSEN))
        model = keras.Sequential([Unpack.of(sequence), core]) if options else core
        model.compile(
            keras.optimizers.SGD(1e-6), "mse", jit_compile=keras.backend.backend() != "torch"
        )
        model.fit(sequence, verbose=0)
        found.append(core.get_weights())
    assert same(*found)


@each_feed
def test_core_is_scored_saved_predicts_and_is_exported(folder, fed, tmp_path):
    options = {"features": CHOSEN, **fed}
    training, validation = (NumeraiSequence(folder, BATCH, **options) for _ in range(2))
    core = core_of_floats(len(CHOSEN))
    model = wrapped(core, training, validation)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        history = model.fit(training, callbacks=[EraScores(validation)], verbose=0).history
        floats = compiled(core_of_floats(len(CHOSEN)))  # and the seed of torch's dropout
        plain = EraScores(NumeraiSequence(folder, features=CHOSEN))
        plain_training = NumeraiSequence(folder, BATCH, features=CHOSEN)
        assert floats.fit(plain_training, callbacks=[plain], verbose=0).history == history
        expected = predict(floats, folder, progress=False)
        core.save(tmp_path / "core.keras")
        model.save(tmp_path / "whole.keras")
        for one in (core, model, tmp_path / "core.keras", tmp_path / "whole.keras"):
            assert predict(one, folder, progress=False).equals(expected)
        assert predict(core, folder, like=training, progress=False).equals(expected)
        export_predict(model, tmp_path / "model.pkl")
        export_predict(floats, tmp_path / "floats.pkl")
    import pandas as pd

    live = pd.DataFrame(np.arange(15).reshape(3, 5) % 5, columns=CHOSEN).astype("int8")
    upload, expected = (
        pickle.loads((tmp_path / name).read_bytes())(live) for name in ("model.pkl", "floats.pkl")
    )
    assert upload.equals(expected)
    scores = EraScores(validation, exposure=True)  # of the features, not of their bytes
    table = EraScores(NumeraiSequence(folder, features=CHOSEN), exposure=True).score(floats)
    assert scores.score(model).equals(table)
    assert scores.score(core).equals(table)


@pytest.mark.parametrize("form", ["flat", pytest.param("functional", marks=slow), "inputs"])
def test_model_behind_the_layer_need_not_be_a_model(folder, form):
    inputs = {"others": ["target_b"]} if form == "inputs" else None
    options = {"features": CHOSEN, "inputs": inputs}
    sequence = NumeraiSequence(folder, BATCH, **options, **PACKED)
    layer, floats = Unpack.of(sequence), NumeraiSequence(folder, BATCH, **options)

    def made(first, x):
        keras.utils.set_random_seed(1)
        dense = [keras.layers.Dense(4, "relu"), keras.layers.Dense(1)]
        if form == "flat":
            return compiled(keras.Sequential([x, *first, *dense]))
        features = first[0](x) if first else x
        if form == "functional":
            return compiled(keras.Model(x, dense[1](dense[0](features))))
        other = keras.Input((1,), name="others")
        joined = keras.layers.Concatenate()([dense[0](features), other])
        return compiled(keras.Model({"features": x, "others": other}, dense[1](joined)))

    model = made([layer], keras.Input((layer.row_bytes,), dtype="uint8", name="features"))
    plain = made([], keras.Input((len(CHOSEN),), name="features"))
    for one, fed in ((model, sequence), (plain, floats)):
        one.fit(fed, verbose=0)
    assert same(model.get_weights(), plain.get_weights())
    found, expected = (predict(m, folder, inputs=inputs, progress=False) for m in (model, plain))
    assert found.equals(expected)


@pytest.mark.parametrize("form", ["before", "after", "one output"])
def test_what_is_computed_around_a_core_is_not_lost(folder, form):
    packed, floats = (NumeraiSequence(folder, BATCH, **fed) for fed in (PACKED, {}))

    def made(layer, x):
        core = core_of_floats()
        if form == "one output":
            x_of_core = keras.Input((FEATURES,))
            outputs = [keras.layers.Dense(1)(x_of_core) for _ in range(2)]
            core = keras.Model(x_of_core, outputs)
        x_of_core = layer(x) if layer else x
        y = core(x_of_core * 2 - 1 if form == "before" else x_of_core)
        y = y[1] if form == "one output" else keras.ops.sigmoid(y) if form == "after" else y
        return compiled(keras.Model(x, y))

    layer = Unpack.of(packed)
    model = made(layer, keras.Input((layer.row_bytes,), dtype="uint8"))
    model.fit(packed, verbose=0)
    plain = made(None, keras.Input((FEATURES,)))  # and the seed of torch's dropout
    plain.fit(floats, verbose=0)
    found, expected = (predict(one, folder, progress=False) for one in (model, plain))
    np.testing.assert_array_equal(found["prediction"], expected["prediction"])


def test_a_sequential_that_was_changed_is_cut_again(folder):
    sequence = NumeraiSequence(folder, BATCH, **PACKED)
    model = compiled(keras.Sequential([Unpack.of(sequence), keras.layers.Dense(1)]))
    model.fit(sequence, verbose=0)
    before = predict(model, folder, progress=False)
    model.pop()
    model.add(keras.layers.Dense(1))
    compiled(model).fit(sequence, verbose=0)
    plain = NumeraiSequence(folder, 1000, shuffle=False, target=None, **PACKED)
    found = predict(model, folder, progress=False)["prediction"].to_numpy()
    assert not np.array_equal(found, before["prediction"])
    np.testing.assert_allclose(found, model.predict(plain, verbose=0)[:, 0], rtol=1e-6)


def test_rows_of_a_layer_are_not_exchanged(folder):
    first, second = (
        NumeraiSequence(folder, BATCH, eras=eras, **RESIDENT) for eras in (slice(4), slice(5, 9))
    )
    layer = Unpack.of(first)
    layer.hold(first)
    with pytest.raises(NumeraiSequenceError, match="already holds other rows"):
        layer.hold(second)


@slow
@each_feed
def test_training_that_was_stopped_is_resumed(folder, fed, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                raise InterruptedError

    def fit(*callbacks):
        sequence = NumeraiSequence(folder, BATCH, **fed)
        core = core_of_floats()
        wrapped(core, sequence).fit(sequence, epochs=2, callbacks=list(callbacks), verbose=0)
        return core.get_weights()

    expected, resume = fit(), Resume(tmp_path / "state", every=3)
    with pytest.raises(InterruptedError):
        fit(resume, Stop())
    assert same(fit(Resume(tmp_path / "state", every=3)), expected)


@slow
@each_feed
def test_worker_processes_feed_the_same(folder, fed):
    found = []
    for workers in (THREADS, PROCESSES):
        core = core_of_floats()
        sequence = NumeraiSequence(folder, BATCH, **fed)
        wrapped(core, sequence).fit(sequence, verbose=0, **workers)
        found.append(core.get_weights())
    assert same(*found)


# Rows on the device.


def test_rows_are_placed_once_and_go_with_their_models(folder):
    gc.collect()
    before = len(_on_device)
    options = {"features": CHOSEN, **RESIDENT}
    training = NumeraiSequence(folder, BATCH, eras=slice(0, 6), **options)
    validation = NumeraiSequence(folder, BATCH, eras=slice(7, None), **options)
    first = Unpack.of(training, validation)
    assert len(first._rows.starts) == 2
    assert validation[0][0].min() >= training.rows
    again = NumeraiSequence(folder, 33, eras=slice(0, 6), seed=9, **options)
    assert Unpack.of(again)._rows is Unpack.of(validation, training)._rows is first._rows
    other = NumeraiSequence(folder, BATCH, eras=slice(0, 5), **options)
    assert Unpack.of(other)._rows is not first._rows
    for copied in (pickle.loads(pickle.dumps(validation)), validation.in_order(20)):
        np.testing.assert_array_equal(np.sort(rows_of(copied)), np.sort(rows_of(validation)))
    del first, again, other, copied, training, validation
    gc.collect()
    assert len(_on_device) <= before


def rows_of(sequence):
    batches = (as_tuple(sequence[number])[0] for number in range(len(sequence)))
    return np.concatenate(list(batches))


def test_rows_that_do_not_fit_are_refused():
    needed = 6_853_308 * 1185
    check_room(Device("NVIDIA", True, needed), 6_853_308, 1185)
    check_room(Device("NVIDIA", True, None), 6_853_308, 1185)
    with pytest.raises(NumeraiSequenceError) as caught:
        check_room(Device("NVIDIA", True, needed - 1), 6_853_308, 1185)
    for part in ("8.1 GB", "NVIDIA", "features=", "eras=", "dtype='packed' alone"):
        assert part in str(caught.value)


def test_rows_that_an_interrupted_step_took_with_it_are_placed_again(folder):
    sequence = NumeraiSequence(folder, BATCH, **RESIDENT)
    layer = Unpack.of(sequence)
    for variable in layer._rows.variables:  # of JAX, which deletes what a step was given
        variable.value.delete()
    again = Unpack.of(sequence)
    assert (again._rows is layer._rows) is (not layer._rows.variables)
    expected = NumeraiSequence(folder, BATCH)[0][0]
    np.testing.assert_array_equal(unpacked(again, sequence[0][0]), expected)


class Halved(NumeraiSequence):
    """A class that makes y of its own."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x, y / 2


@each_feed
def test_a_class_of_ones_own_is_fed_through_the_layer(folder, fed):
    found = []
    for options in ({}, fed):
        sequence = Halved(folder, BATCH, **options)
        core = core_of_floats()
        model = wrapped(core, sequence) if options else compiled(core)
        model.fit(sequence, verbose=0)
        found.append(core.get_weights())
    assert same(*found)
    other = Halved(folder, BATCH, eras=slice(2), features=CHOSEN, **fed)
    with pytest.raises(NumeraiSequenceError):
        model.fit(other, verbose=0)


# What does not fit together.


def test_sequences_that_do_not_fit_a_model_are_refused(sets, folder, tmp_path):
    packed = NumeraiSequence(folder, BATCH, **PACKED)
    model = wrapped(core_of_floats(), packed)
    with pytest.raises(FeatureError, match="found dtype='float32', but the model begins with an"):
        model.fit(NumeraiSequence(folder, BATCH), verbose=0)
    for other in (
        NumeraiSequence(sets["int8"], BATCH, **PACKED),
        NumeraiSequence(folder, BATCH, features=CHOSEN, **PACKED),
    ):
        with pytest.raises(FeatureError, match="in the same order"):
            model.fit(packed, validation_data=other, verbose=0)
    # Another set, of as many features: their names differ, and so the model's note.
    more = write_set(tmp_path, rows=60, features=FEATURES + 1)
    names = open_shards(more).features[1:]
    with pytest.raises(FeatureError):
        model.evaluate(NumeraiSequence(more, BATCH, features=names, **PACKED), verbose=0)
    resident = NumeraiSequence(folder, BATCH, **RESIDENT)
    with pytest.raises(ValueError, match="resident: found True, expected False"):
        model.fit(resident, verbose=0)
    held = wrapped(core_of_floats(), resident)
    lacking = NumeraiSequence(folder, BATCH, eras=slice(0, 3), **RESIDENT)
    with pytest.raises(NumeraiSequenceError, match="not on the device"):
        held.fit(resident, validation_data=lacking, verbose=0)
    plain = compiled(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.warns(UserWarning, match="without an Unpack layer in the model"):
        plain.fit(packed, verbose=0)


def test_arguments_that_contradict_each_other_are_refused(folder):
    with pytest.raises(ValueError, match="resident: found dtype='float32', expected dtype='pac"):
        NumeraiSequence(folder, resident=True)
    with pytest.raises(ValueError, match="y would be packed bytes"):
        NumeraiSequence(folder, target="features", **PACKED)
    with pytest.raises(ValueError, match="found a sequence with dtype='int8', expected"):
        Unpack.of(NumeraiSequence(folder, dtype="int8"))
    packed, resident = (NumeraiSequence(folder, **fed) for fed in (PACKED, RESIDENT))
    with pytest.raises(ValueError, match="resident: found False, expected True"):
        Unpack.of(resident, packed)
    for shape, kind in (((), "float32"), ((), "uint8"), ((), "int16"), ((1,), "int32")):
        with pytest.raises(ValueError, match=r"keras.Input\(\(\), dtype='int32'\)"):
            Unpack.of(resident)(keras.Input(shape, dtype=kind))
    for shape, kind in (((5,), "float32"), ((14,), "uint8"), ((), "int32")):
        with pytest.raises(ValueError, match=r"keras.Input\(\(5,\), dtype='uint8'\)"):
            Unpack.of(packed)(keras.Input(shape, dtype=kind))
    model = wrapped(core_of_floats(), packed)
    model.predict(packed, verbose=0)
    with pytest.raises(Exception, match="expected packed rows"):
        model.predict(np.zeros((3, 14), np.float32), verbose=0)
    with pytest.raises(AttributeError, match="resident"):
        resident.resident = False
    assert "14 features as numbers of packed rows" in repr(resident)
