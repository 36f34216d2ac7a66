"""Portable: an exported model is data that the oldest Keras of Numerai's reads, or is refused."""

from __future__ import annotations

import ast
import collections
import functools
import inspect
import json
import pickle
import pickletools

import numpy as np
import pytest
from exported_kinds import FEATURES, KINDS, inputs, live_frame, predicted, trained, value
from networks import keras

from numerai_sequence import NumeraiSequenceError, export_predict
from numerai_sequence.predicting.portable_config import portable_config
from numerai_sequence.predicting.source_pickle import TEXTS

L = keras.layers
ops = getattr(keras, "ops", None)
pytestmark = [
    pytest.mark.skipif(ops is None, reason="Keras 2 has other configs"),
    pytest.mark.filterwarnings("ignore:features. the model does not remember"),
]

QUICK = [
    "attention_over_an_era",
    "batch_normalization",
    "discretization",
    "dropout",
    "int8_input",
    "layer_normalization",
    "mixed_precision",
    "nested",
    "own_start",
    "several_outputs",
    "sequential_without_an_input",
    "subclass_with_its_own_training",
]


def refused(outputs, tmp_path, *, x=None):
    """Return what is said of a model that cannot be exported."""
    model = keras.Model(x, outputs)
    with pytest.raises(NumeraiSequenceError) as error:
        export_predict(model, tmp_path / "p.pkl", features=FEATURES)
    assert not (tmp_path / "p.pkl").exists()
    return str(error.value)


@pytest.mark.parametrize("name", QUICK)
def test_the_file_gives_the_values_of_the_model(tmp_path, name):
    model, options = KINDS[name]()
    path = export_predict(model, tmp_path / "p.pkl", features=FEATURES, ranked=False, **options)
    live = live_frame(40)
    found = pickle.loads(path.read_bytes())(live)["prediction"]
    assert np.ptp(found) > 1e-3
    np.testing.assert_allclose(found, predicted(model, live, options), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def pickled(tmp_path_factory):
    i = inputs()
    hidden = L.BatchNormalization()(L.Dense(8, "relu", kernel_regularizer="l2")(i))
    path = tmp_path_factory.mktemp("pickled") / "p.pkl"
    return export_predict(trained(keras.Model(i, value(hidden))), path, features=FEATURES)


def packed(predict):
    """What the function knows of its only model."""
    [known] = predict.__globals__["known"]["models"]
    return known


def test_the_pickle_is_source_text_and_data(pickled):
    """It calls eval once, and holds no bytecode, and no array of one NumPy."""
    ops_of_pickle = [(op.name, value) for op, value, _ in pickletools.genops(pickled.read_bytes())]
    names = [name for name, _ in ops_of_pickle]
    strings = [text for name, text in ops_of_pickle if "UNICODE" in name]
    assert names.count("STACK_GLOBAL") == names.count("REDUCE") == 1
    assert {"GLOBAL", "INST", "OBJ", "NEWOBJ", "BUILD"}.isdisjoint(names)
    assert strings[:2] == ["builtins", "eval"]
    sources = [text for text in strings if text.startswith('"""')]
    assert sources == [inspect.getsource(module) for module in TEXTS]
    assert sum("def make_predict" in text for text in sources) == 1
    assert not any("numerai_sequence" in text for text in sources)
    assert pickled.read_bytes()[:2] == b"\x80\x04"


def test_the_texts_that_become_one_module_share_no_name():
    names = collections.Counter()
    for module in TEXTS:
        tree = ast.parse(inspect.getsource(module))
        made = [one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.ClassDef)]
        targets = [one.targets[0] for one in tree.body if isinstance(one, ast.Assign)]
        names.update({*made, *(n.id for one in targets for n in ast.walk(one) if hasattr(n, "id"))})
    assert {"make_predict", "rank_in_eras", "neutralized", "_RANGE", "_LARGEST"} <= set(names)
    assert set(names.values()) == {1}


def test_what_the_oldest_keras_lacks_is_left_out(pickled):
    known = packed(pickle.loads(pickled.read_bytes()))
    layers = json.loads(known["config"])["config"]["layers"]
    [batch] = [one for one in layers if one["class_name"] == "BatchNormalization"]
    expected = "name trainable dtype axis momentum epsilon center scale synchronized"
    assert " ".join(batch["config"]) == expected
    for word in ("quantization_config", "renorm", "build_config", "initializer", "regularizer"):
        assert word not in known["config"], word
    assert len(known["weights"]) == 8


def test_keys_that_a_newer_keras_adds_at_their_default_are_left_out(monkeypatch):
    config = keras.saving.serialize_keras_object(L.Dense(3))

    class Newer(L.Dense):
        def __init__(self, *a, sharpness=(1, 2), **options):
            super().__init__(*a, **options)

    monkeypatch.setattr(keras.layers, "Dense", Newer)
    config["config"]["sharpness"] = [1, 2]
    assert "sharpness" not in portable_config(config, keras)["config"]
    config["config"]["sharpness"] = [1, 3]
    with pytest.raises(NumeraiSequenceError, match=r"Dense\(sharpness=\[1, 3\]\) of Keras 3"):
        portable_config(config, keras)


def test_a_layer_or_argument_that_the_oldest_keras_lacks_is_an_error(tmp_path):
    i = inputs()
    if hasattr(L, "AdaptiveAveragePooling1D"):
        x = L.Flatten()(L.AdaptiveAveragePooling1D(4)(L.Reshape((14, 1))(i)))
        assert "AdaptiveAveragePooling1D of Keras 3" in refused(value(x), tmp_path, x=i)
    if "renorm" in L.BatchNormalization().get_config():
        said = refused(value(L.BatchNormalization(renorm=True)(i)), tmp_path, x=i)
        assert "BatchNormalization(renorm=True) of Keras 3" in said
        assert "is not in Keras 3.10, which Numerai also runs; build" in said
    if hasattr(ops, "sinc"):
        assert "Sinc of Keras 3" in refused(value(ops.sinc(i)), tmp_path, x=i)


def test_operations_that_the_oldest_keras_takes_other_arguments_of_are_errors():
    zeros = keras.Model(i := inputs(), ops.zeros_like(i, dtype="int32"))
    assert portable_config(saved(keras.Model(i, ops.zeros_like(i))), keras)
    with pytest.raises(NumeraiSequenceError, match=r"ZerosLike\(dtype=int32\)"):
        portable_config(saved(zeros), keras)


def built_wrongly():
    """What Keras 3.10 has by its keys, but builds with other shapes or not at all."""
    return {
        "Argmax(axis=1, keepdims=True)": lambda x: ops.argmax(x, axis=1, keepdims=True),
        "Argmin(axis=-1, keepdims=True)": lambda x: ops.argmin(x, axis=-1, keepdims=True),
        "Logsumexp(axis=-1, keepdims=True)": lambda x: ops.logsumexp(x, -1, keepdims=True),
        "Flip(axis=(1,))": lambda x: ops.flip(x, axis=(1,)),
        "Glu(axis=-1)": ops.glu,
        "RMSNorm(axis=-1)": lambda x: ops.rms_normalization(x),
        "BatchNorm(axis=-1)": lambda x: ops.batch_normalization(x, ONES, ONES, axis=-1),
        "Discretization(output_mode='count')": L.Discretization([0.5], output_mode="count"),
    }


ONES = np.ones(len(FEATURES), np.float32)


@pytest.mark.parametrize("name", built_wrongly() if ops else [])
def test_what_the_oldest_keras_builds_wrongly_is_an_error(name):
    if not hasattr(ops, "rms_normalization"):
        pytest.skip("this Keras is older")
    made = keras.Model(i := inputs(), built_wrongly()[name](i))
    with pytest.raises(NumeraiSequenceError) as error:
        portable_config(saved(made), keras)
    assert f"model: {name} fails in Keras 3.10, which Numerai also runs; use " in str(error.value)


def test_what_the_oldest_keras_builds_is_no_error():
    i = inputs()
    for x in (
        ops.argmax(i, axis=1),
        ops.logsumexp(i, axis=(1,)),
        ops.flip(i, axis=1),
        L.Discretization([0.5])(i),
    ):
        assert portable_config(saved(keras.Model(i, x)), keras)


def saved(model):
    return keras.saving.serialize_keras_object(model)


def test_python_functions_are_errors(tmp_path):
    def known_here_alone(x):
        return x * 2

    i = inputs()
    same = value(L.Lambda(lambda x: x, output_shape=(14,))(i))
    assert "found a lambda, which holds the bytecode of one Python" in refused(same, tmp_path, x=i)
    named = value(L.Lambda(known_here_alone, output_shape=(14,))(i))
    expected = "the function 'known_here_alone' is not in keras.activations"
    assert expected in refused(named, tmp_path, x=i)
    partial = L.Dense(1, activation=functools.partial(keras.activations.relu, threshold=0.1))(i)
    assert "model: Keras cannot save it: Cannot serialize" in refused(partial, tmp_path, x=i)
    inside = L.Dense(1, activation=lambda x: x)(i)
    assert "found a lambda, which holds the bytecode" in refused(inside, tmp_path, x=i)


def test_an_adapted_vocabulary_is_an_error(tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a lookup is TensorFlow's")
    i = inputs(dtype="int8")
    lookup = L.IntegerLookup(output_mode="multi_hot", name="levels")
    lookup.adapt(np.arange(5))
    said = refused(value(lookup(ops.cast(i, "int64"))), tmp_path, x=i)
    assert "IntegerLookup 'levels' has learnt its vocabulary with adapt" in said


def test_a_subclass_that_predicts_in_its_own_way_is_an_error(tmp_path):
    class Own(keras.Model):
        def call(self, x, training=None):
            return -super().call(x)

    i = inputs()
    with pytest.raises(NumeraiSequenceError, match="'Own' is not Keras's own"):
        export_predict(Own(i, value(i)), tmp_path / "p.pkl", features=FEATURES)


def test_a_file_that_predicts_other_values_somewhere_says_so(pickled):
    predict = pickle.loads(pickled.read_bytes())
    expected = packed(predict)["expected"]
    packed(predict)["expected"] = [[row[0] * 1.0001] for row in expected]  # rounding is no matter
    assert len(predict(live_frame(40))) == 40
    predict = pickle.loads(pickled.read_bytes())
    packed(predict)["expected"] = expected[::-1]
    with pytest.raises(ValueError, match="predicts other values on keras 3"):
        predict(live_frame(40))


def test_another_generation_of_keras_is_named(pickled):
    predict = pickle.loads(pickled.read_bytes())
    packed(predict).update(package="keras", version="4.0.0")
    with pytest.raises(RuntimeError, match=r"exported with keras 4\.0\.0 and needs"):
        predict(live_frame(40))
