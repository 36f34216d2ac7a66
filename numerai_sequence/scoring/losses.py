"""Losses: 1 minus the correlation of targets and predictions in one era.

Correlations are computed over a batch: make each batch one whole era. The losses work with Keras 3
on all its backends. To load a model that was saved with one of them, import the class first. The
import registers its name with Keras.

Both losses treat their input in the same way:

- y_true and y_pred have shape (batch,), (batch, 1) or (batch, outputs), of any number type. The
  loss is the mean over outputs, in float32, or in float64 if that is Keras's ``floatx``.
- ``sample_weight`` of shape (batch,), (batch, 1) or (batch, outputs) weights the correlation. Rows
  with weight 0, or with a false value in the Keras mask of y_pred, do not count at all, even if
  they hold NaN: give weight 0 to missing targets. NaN in any other row makes the loss NaN.
- The loss is 1 if the correlation is undefined: all predictions or all targets are equal, or fewer
  than two rows count. The gradient is then 0, with one exception. For equal predictions of
  different targets it is the gradient of predictions that vary by 1, so that a model with zeros in
  its last kernel starts to learn.
- JAX and XLA compile again for each new number of rows. If that takes long, pad eras to a few
  sizes with rows of weight 0.
- In distributed training each replica computes the correlation of its own part of the batch. The
  loss is the mean over replicas, as for Keras's own losses.
"""

from __future__ import annotations

import importlib
from typing import Any

import keras

from ..errors import NumeraiSequenceError
from ..feeding.keras_compat import active_keras

# Keras 2 has no ops; `_require_keras_3` raises the error.
ops: Any = getattr(keras, "ops", None)

# Values are constant if their standard deviation is below this share of the largest value: they
# differ only by the rounding of float32.
_CONSTANT = 1e-6
# Values below this count as 0: their gradient would be infinite.
_TINY = 1e-30
# Predictions are ranked among this many anchors, so memory grows linearly with the batch.
_ANCHORS = 256
# Rows between two anchors go to the upper one, whatever the rounding of cumulative weights.
_ROUNDING = 1e-3

Tensor = Any


class _CorrelationLoss(keras.losses.Loss):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        _require_keras_3(type(self).__name__)
        is_double = keras.config.floatx() == "float64"
        super().__init__(name=name, dtype="float64" if is_double else "float32")

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        """Return the loss of a batch, a scalar. See the module for the shapes."""
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
        # Keras would apply weights to the result of `call`, which has no rows. It still converts,
        # names, and averages over outputs and replicas.
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
                f"{self.name}: {name}: found shape {tuple(tensor.shape)}, expected (batch,) or "
                "(batch, outputs); reshape it to one entry for each row"
            )
        return ops.expand_dims(tensor, -1) if len(tensor.shape) == 1 else tensor

    def _check_outputs(
        self, name: str, tensor: Tensor, y_pred: Tensor, expected: tuple[int | None, ...]
    ) -> None:
        # TensorFlow may learn the number of targets only when it runs, never that of outputs.
        if y_pred.shape[1] is None or tensor.shape[1] not in (*expected, None):
            raise ValueError(
                f"{self.name}: {name}: found {tensor.shape[1]} columns, expected "
                f"{y_pred.shape[1]} as in y_pred; end the model with one output for each target"
            )


@keras.saving.register_keras_serializable(package="numerai_sequence")
class PearsonLoss(_CorrelationLoss):
    """A loss of 1 minus Pearson's correlation of targets and predictions, from 0 to 2.

    The correlation is computed over the rows of a batch. So make each batch one whole era, with
    ``NumeraiSequence(batch_by="era")``. Targets and predictions have shape (batch,), (batch, 1) or
    (batch, outputs). ``sample_weight`` weights the rows. Rows with weight 0 are ignored, even if
    their target is NaN. The loss is 1 if all predictions or all targets are equal.

    Parameters
    ----------
    name : str
        Name of the loss in Keras.

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
    """A loss of 1 minus a differentiable rank correlation (Spearman's), from 0 to 2.

    Make each batch one whole era, with ``NumeraiSequence(batch_by="era")``. See `PearsonLoss` for
    shapes and for rows with weight 0. A row with weight w has the effect of w equal rows.

    Targets get their ordinary ranks. Equal targets get the average of their ranks. Predictions are
    standardized, so their scale does not matter. Then they get soft ranks. A soft rank is a sum of
    sigmoids, as in ApproxNDCG (Qin, Liu and Li, "A general approximation framework for direct
    optimization of information retrieval measures", 2010). The sum has one sigmoid for each of 256
    quantiles of the predictions. For n rows, the loss needs n log n time and 256 n memory.

    Parameters
    ----------
    temperature : float
        Softness of the ranks, in standard deviations of the predictions. Predictions that differ by
        less than `temperature` are nearly tied. With a lower value, the loss is closer to
        Spearman's correlation, and fewer pairs of rows have a gradient.
    name : str
        Name of the loss in Keras.

    Raises
    ------
    NumeraiSequenceError
        ``tf.keras`` is Keras 2.

    Notes
    -----
    The loss was compared with 1 minus ``scipy.stats.spearmanr``. Targets had five bins, and
    correlations were 0 to 0.9. Predictions were normal, uniform, t(3), bimodal and lognormal. These
    are the largest differences:

    - 2,300 to 7,200 rows, default temperature: 0.0015. For correlations up to 0.5, except for
      lognormal predictions: 0.0003.
    - 2,300 to 7,200 rows, temperature 1e-4: 0.0002.
    - 100 rows, default temperature: 0.03.
    - Predictions with extreme outliers (Cauchy): 0.4, because the outliers make the standard
      deviation large, and most predictions are then nearly tied.

    With 5,000 rows, the gradient was compared with the gradient over all pairs of rows. The cosine
    is 1.0000 with the default temperature, and 0.98 with temperature 0.003. Networks trained with
    temperatures from 0.003 to 1 had similar scores.
    """

    def __init__(self, *, temperature: float = 0.03, name: str = "rank_correlation_loss") -> None:
        super().__init__(name)
        if not temperature > 0:
            raise ValueError(f"{name}: temperature: found {temperature}, expected more than 0")
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
            f"{name}: found Keras {version} as tf.keras, expected Keras 3; unset "
            "TF_USE_LEGACY_KERAS, or pip install 'tensorflow>=2.16'"
        )


def _mask(tensor: Tensor) -> Tensor:
    # For tensors without attributes, such as JAX's, Keras keeps the masks itself (since 3.6).
    try:
        masking = importlib.import_module("keras.src.backend.common.masking")
    except ImportError:
        return getattr(tensor, "_keras_mask", None)
    return masking.get_keras_mask(tensor)


def _taking_part(
    target: Tensor, prediction: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return targets, predictions and each row's share of the weight. Rows without weight are 0."""
    takes_part = weight > 0
    # Not by multiplying: 0 x NaN is NaN.
    weight, target, prediction = (ops.where(takes_part, v, 0) for v in (weight, target, prediction))
    total = ops.sum(weight)
    return target, prediction, weight / ops.where(total > 0, total, 1)


def _pearson(x: Tensor, y: Tensor, share: Tensor) -> Tensor:
    return ops.sum(share * _standardize(x, share) * _standardize(y, share))


def _standardize(values: Tensor, share: Tensor) -> Tensor:
    """Return `values` with mean 0 and, unless all are equal, standard deviation 1."""
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
    """Return the ranks 0..1 of ascending `values`. Equal values get the middle of their ranks."""
    is_new = ops.cast(values[1:] != values[:-1], "int32")
    group = ops.concatenate([ops.zeros((1,), "int32"), ops.cumsum(is_new)])
    tied = ops.segment_sum(share, group, num_segments=ops.shape(values)[0])
    ranks = ops.take(ops.cumsum(tied) - tied / 2, group, axis=0)
    return ops.where(values == values, ranks, values)  # NaN has no rank


def _soft_ranks(values: Tensor, share: Tensor, temperature: float) -> Tensor:
    """Return soft ranks 0..1, as sums of sigmoids.

    Values are ranked among anchors: the means of groups of neighbouring values of equal weight. If
    there are at most as many rows as anchors, each row is an anchor.
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
