"""Losses: turn the targets and predictions of one era into 1 - their correlation.

A correlation belongs to a batch, not to its rows: feed these losses whole eras, one a batch. They
are for models of Keras 3, on any of its backends. A model that was saved with one of them loads
again once the loss's class has been imported, which tells Keras its name.

Both treat their input alike:

- y_true and y_pred have shape (batch,), (batch, 1) or (batch, outputs), of any number type. The
  loss is the mean over outputs, in float32, or float64 where that is Keras's ``floatx``.
- ``sample_weight`` of shape (batch,), (batch, 1) or (batch, outputs) makes it a weighted
  correlation. A row takes part where its weight is above 0, and Keras's mask, if y_pred carries
  one, is true. The others add nothing to the loss or its gradient, whatever they hold: give weight
  0 to missing targets. NaN in a row that takes part makes the loss NaN.
- Where there is no correlation, since the predictions or the targets are all the same, or fewer
  than two rows take part, the loss is 1. Its gradient is then 0, except at equal predictions of
  differing targets: there it is the one of predictions that vary by 1, so that a model whose last
  kernel is zeros begins to learn.
- JAX and XLA compile anew for every number of rows. Where that takes long, fill eras up to a few
  sizes with rows of weight 0.
- In distributed training each replica correlates its own part of the batch, and the loss is the
  mean over replicas, as that of Keras's own losses.
"""

from __future__ import annotations

import importlib
from typing import Any

import keras

from ..errors import NumeraiSequenceError
from ..feeding.keras_compat import active_keras

# Keras 2 has none; `_require_keras_3` says so.
ops: Any = getattr(keras, "ops", None)

# Values whose standard deviation is this part of the largest differ by the rounding of float32.
_CONSTANT = 1e-6
# And so do values below this one from 0; the gradient of smaller ones would be infinite.
_TINY = 1e-30
# Predictions are ranked among this many: memory then grows with the batch, and not its square.
_ANCHORS = 256
# Rows that fall between two anchors go to the upper one, however cumulative weights are rounded.
_ROUNDING = 1e-3

Tensor = Any


class _CorrelationLoss(keras.losses.Loss):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        _require_keras_3(type(self).__name__)
        is_double = keras.config.floatx() == "float64"
        super().__init__(name=name, dtype="float64" if is_double else "float32")

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        """Return the loss of a batch, a scalar; the module says what shapes it takes."""
        mask = _mask(y_pred)
        y_pred = self._columns("y_pred", y_pred)
        y_true = self._columns("y_true", y_true)
        self._check_outputs("y_true", y_true, y_pred, (y_pred.shape[1],))
        weights = ops.ones_like(y_pred)
        for name, factor in ("sample_weight", sample_weight), ("mask", mask):
            if factor is not None:
                factor = self._columns(name, factor)
                self._check_outputs(name, factor, y_pred, (1, y_pred.shape[1]))
                weights = weights * factor
        # Keras would weight what `call` returns, which has no rows. It has to convert, name, and
        # average over outputs and replicas.
        return super().__call__((y_true, weights), (y_pred,))

    def call(self, y_true: tuple[Tensor, Tensor], y_pred: tuple[Tensor]) -> Tensor:
        """Return the losses of (targets, weights) and (predictions,), shape (outputs,)."""
        (target, weights), (prediction,) = y_true, y_pred
        correlations = [
            self._correlate(*_taking_part(target[:, i], prediction[:, i], weights[:, i]))
            for i in range(prediction.shape[1])
        ]
        return 1 - ops.stack(correlations)

    def _correlate(self, target: Tensor, prediction: Tensor, share: Tensor) -> Tensor:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"name": self.name}

    def _columns(self, name: str, values: Tensor) -> Tensor:
        tensor = ops.convert_to_tensor(values, dtype=self.dtype)
        if len(tensor.shape) not in (1, 2):
            raise ValueError(
                f"{self.name}: {name} has shape {tuple(tensor.shape)}, expected (batch,) or "
                "(batch, outputs); reshape it so that each row has its own place"
            )
        return ops.expand_dims(tensor, -1) if len(tensor.shape) == 1 else tensor

    def _check_outputs(
        self, name: str, tensor: Tensor, y_pred: Tensor, expected: tuple[int | None, ...]
    ) -> None:
        # TensorFlow may learn the number of targets only when it runs, never that of outputs.
        if y_pred.shape[1] is None or tensor.shape[1] not in (*expected, None):
            raise ValueError(
                f"{self.name}: {name} has {tensor.shape[1]} columns and y_pred {y_pred.shape[1]}, "
                "expected as many; end the model with one output a target"
            )


@keras.saving.register_keras_serializable(package="numerai_sequence")
class PearsonLoss(_CorrelationLoss):
    """1 - Pearson's correlation of targets and predictions over the rows of a batch, 0 to 2.

    Shapes, weights and batches without a correlation are as the module says.

    Parameters
    ----------
    name : str
        Under which Keras shows it.

    Raises
    ------
    NumeraiSequenceError
        ``tf.keras`` is Keras 2.
    """

    def __init__(self, *, name: str = "pearson_loss") -> None:
        super().__init__(name)

    def _correlate(self, target: Tensor, prediction: Tensor, share: Tensor) -> Tensor:
        return _pearson(target, prediction, share)


@keras.saving.register_keras_serializable(package="numerai_sequence")
class RankCorrelationLoss(_CorrelationLoss):
    """1 - Spearman's rank correlation of targets and predictions, made differentiable, 0 to 2.

    Targets have their ordinary ranks, equal ones the average of theirs, without gradient. The rank
    of a prediction is the sum of sigmoids that ApproxNDCG (Qin, Liu and Li, "A general
    approximation framework for direct optimization of information retrieval measures", 2010) ranks
    documents by, but over 256 quantiles of the predictions instead of all of them, in n log n time
    and 256 n memory. The predictions are standardised first, so that their scale does not matter.
    Weights count a row as that many rows. Shapes, weights and batches without a correlation are as
    the module says.

    Parameters
    ----------
    temperature : float
        How softly predictions are ranked, in their standard deviations: values that differ by less
        count as nearly tied. Lower is closer to Spearman, with gradients from fewer pairs of rows.
    name : str
        Under which Keras shows it.

    Raises
    ------
    NumeraiSequenceError
        ``tf.keras`` is Keras 2.

    Notes
    -----
    Measured against ``scipy.stats.spearmanr``, targets in five bins, correlations 0 to 0.9, normal,
    uniform, t(3), two-humped and lognormal predictions. Of 2,300 to 7,200 rows the default is
    within 0.0015 (0.0003 at correlations up to 0.5, but for the lognormal), temperature 1e-4 within
    0.0002. Of 100 rows the default is within 0.03. Predictions with wild outliers (Cauchy's) can be
    0.4 off: nearly all of them are close to each other beside the standard deviation. At the
    default the gradient is that of all pairs (cosine 1.0000 at 5,000 rows; 0.98 at 0.003).
    Networks trained with temperatures from 0.003 to 1 scored alike.
    """

    def __init__(self, *, temperature: float = 0.03, name: str = "rank_correlation_loss") -> None:
        super().__init__(name)
        if not temperature > 0:
            raise ValueError(f"{name}: temperature is {temperature}, expected more than 0")
        self.temperature = float(temperature)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "temperature": self.temperature}

    def _correlate(self, target: Tensor, prediction: Tensor, share: Tensor) -> Tensor:
        order = ops.argsort(target)
        target, prediction, share = (
            ops.take(v, order, axis=0) for v in (target, prediction, share)
        )
        ranks = ops.stop_gradient(_average_ranks(target, share))
        soft_ranks = _soft_ranks(_standardize(prediction, share), share, self.temperature)
        return _pearson(ranks, soft_ranks, share)


def _require_keras_3(name: str) -> None:
    version = active_keras().__version__
    if int(version.split(".")[0]) < 3:
        raise NumeraiSequenceError(
            f"{name}: tf.keras is Keras {version}, expected Keras 3; unset TF_USE_LEGACY_KERAS, "
            "or pip install 'tensorflow>=2.16'"
        )


def _mask(tensor: Tensor) -> Tensor:
    # Of tensors that take no attributes, as JAX's, Keras keeps the masks itself (since 3.6).
    try:
        masking = importlib.import_module("keras.src.backend.common.masking")
    except ImportError:
        return getattr(tensor, "_keras_mask", None)
    return masking.get_keras_mask(tensor)


def _taking_part(
    target: Tensor, prediction: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return targets, predictions and each row's share of the weight; rows without one are 0."""
    takes_part = weight > 0
    # Not by multiplying: 0 x NaN is NaN.
    weight, target, prediction = (ops.where(takes_part, v, 0) for v in (weight, target, prediction))
    total = ops.sum(weight)
    return target, prediction, weight / ops.where(total > 0, total, 1)


def _pearson(x: Tensor, y: Tensor, share: Tensor) -> Tensor:
    return ops.sum(share * _standardize(x, share) * _standardize(y, share))


def _standardize(values: Tensor, share: Tensor) -> Tensor:
    """Give `values` mean 0 and, unless they are all the same, standard deviation 1."""
    size = ops.stop_gradient(ops.max(ops.abs(values)))
    size = ops.where(size > _TINY, size, 1)
    values = values / size  # so that no square is infinite
    centred = values - ops.sum(share * values)
    centred = centred - ops.sum(share * centred)  # the first mean was rounded
    variance = ops.sum(share * centred**2)
    is_constant = variance <= _CONSTANT**2
    factor = ops.rsqrt(ops.where(is_constant, 1, variance))
    return centred * ops.where(is_constant, size, factor)


def _average_ranks(values: Tensor, share: Tensor) -> Tensor:
    """Return the ranks 0..1 of ascending `values`; equal ones have the middle of their ranks."""
    is_new = ops.cast(values[1:] != values[:-1], "int32")
    group = ops.concatenate([ops.zeros((1,), "int32"), ops.cumsum(is_new)])
    tied = ops.segment_sum(share, group, num_segments=ops.shape(values)[0])
    ranks = ops.take(ops.cumsum(tied) - tied / 2, group, axis=0)
    return ops.where(values == values, ranks, values)  # NaN has no rank


def _soft_ranks(values: Tensor, share: Tensor, temperature: float) -> Tensor:
    """Return ranks 0..1 in which a step from one value to the next is a sigmoid.

    The values are ranked among anchors: the means of groups of neighbours of equal weight. Where
    there are no more rows than anchors, each row is one.
    """
    order = ops.argsort(values)
    ordered, part = (ops.take(v, order, axis=0) for v in (values, share))
    middle = ops.cumsum(part) - part / 2
    group = ops.cast(ops.floor(_ANCHORS * middle + _ROUNDING), "int32")
    group = ops.clip(group, 0, _ANCHORS - 1)
    size = ops.segment_sum(part, group, num_segments=_ANCHORS)
    total = ops.segment_sum(part * ordered, group, num_segments=_ANCHORS)
    anchors = total / ops.where(size > 0, size, 1)
    steps = ops.sigmoid((ops.expand_dims(values, 1) - anchors) / temperature)
    return ops.matmul(steps, size)
