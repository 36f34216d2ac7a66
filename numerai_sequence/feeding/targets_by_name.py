"""Targets by name: make Keras's losses and metrics find y by the names in ``target=``.

Keras 2 and Keras 3 keep the losses and metrics of ``compile`` in two containers, which compare y
with the model's outputs. The outputs are first known there.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from ..errors import FeatureError
from .fit_call import FitCall
from .keras_patches import Changes
from .y_for_outputs import (
    Told,
    are_pseudo,
    arrange_named,
    check_flat_list,
    check_loss_names,
    check_losses,
    fields_of,
    names_of,
    spread,
)

_NAMED = "_numerai_sequence_names"

Method = Callable[..., Any]


def patch_containers_3(module: Any, changes: Changes) -> None:
    """Change Keras 3's ``CompileLoss`` and ``CompileMetrics``, of its module `compile_utils`."""
    losses, metrics = module.CompileLoss, module.CompileMetrics
    changes.set(losses, "call", _comparing(losses.call, "output_names", _prepare_losses_3))
    changes.set(
        metrics, "update_state", _comparing(metrics.update_state, "output_names", _prepare_metrics)
    )


def patch_containers_2(module: Any, changes: Changes) -> None:
    """Change Keras 2's ``LossesContainer`` and ``MetricsContainer``, of its `compile_utils`."""
    # TensorFlow must not translate our function into a graph, but must translate Keras's.
    as_it_is = importlib.import_module("tensorflow").autograph.experimental.do_not_convert
    arrange = as_it_is(_arrange)
    losses, metrics = module.LossesContainer, module.MetricsContainer
    compared = _comparing(losses.__call__, "_output_names", _prepare_losses_2, arrange)
    changes.set(losses, "__call__", compared)
    compared = _comparing(metrics.update_state, "_output_names", _prepare_metrics, arrange)
    changes.set(metrics, "update_state", compared)


def given_loss(model: Any) -> Any:
    """Return the loss that a model was compiled with, as it was given."""
    if hasattr(model, "_compile_loss"):
        return getattr(model._compile_loss, "_user_loss", None)
    return getattr(getattr(model, "compiled_loss", None), "_user_losses", None)


def _arrange(
    call: FitCall, prepare: Method, owner: tuple[Any, str], y: Any, returned: Any, weights: Any
) -> tuple[Any, Any]:
    container, attribute = owner
    try:
        told = Told(
            _known(container, attribute, call, returned),
            call.given,
            call.loss,
            call.is_ours,
            call.width,
        )
        y = arrange_named(y, returned, told)
        weights = arrange_named(weights, returned, told)
        y = prepare(container, y, returned, told)
        if not isinstance(returned, dict):
            _name(container, attribute, names_of(returned, told))
    except FeatureError as error:
        call.refusal = error  # TensorFlow would turn it into another error
        raise
    return y, weights


def _comparing(original: Method, names: str, prepare: Method, arrange: Method = _arrange) -> Method:
    """Return a container's method that gets y and weights in the form of the outputs."""

    @functools.wraps(original)
    def method(
        self: Any, y_true: Any, y_pred: Any, sample_weight: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        call = FitCall.present()
        if call is not None and call.compares:
            y_true, sample_weight = arrange(
                call, prepare, (self, names), y_true, y_pred, sample_weight
            )
        return original(self, y_true, y_pred, sample_weight, *args, **kwargs)

    return method


def _known(container: Any, attribute: str, call: FitCall, returned: Any) -> tuple[str, ...] | None:
    """Return the model's own names of its outputs."""
    names = getattr(container, attribute, None)
    ours = getattr(container, _NAMED, None)
    if names is None or (ours is None and _is_built(container) and are_pseudo(names)):
        return None
    if ours is None:
        return tuple(names)
    if fields_of(returned) == ours:
        return None
    if call.given and call.given != ours and {*call.given} == {*ours}:
        raise FeatureError(
            f"target: found the outputs in the order {', '.join(call.given)}, expected "
            f"{', '.join(ours)}, as in training, because the model does not name its outputs; use "
            "this order, or compile the model again",
            names=list(call.given),
        )
    return None


def _is_built(container: Any) -> bool:
    return bool(getattr(container, "built", getattr(container, "_built", False)))


def _name(container: Any, attribute: str, names: tuple[str, ...] | None) -> None:
    """Give a container the names of the targets for outputs without names."""
    if names and getattr(container, attribute, None) is None and not _is_built(container):
        setattr(container, attribute, list(names))
        setattr(container, _NAMED, names)


def _prepare_losses_3(container: Any, y: Any, returned: Any, told: Told) -> Any:
    y = spread(y, returned, told)
    check_losses(y, returned, told)
    names = names_of(returned, told)
    if isinstance(told.loss, dict) and names and not isinstance(returned, dict):
        _complete(container, names)
    return y


def _complete(container: Any, names: tuple[str, ...]) -> None:
    """Set the loss of other outputs to None, because Keras 3 needs all for a list of outputs."""
    if _is_built(container) or not {*container._user_loss} < {*names}:
        return
    container._user_loss = {name: container._user_loss.get(name) for name in names}
    weights = container._user_loss_weights
    if isinstance(weights, dict):
        container._user_loss_weights = {name: weights.get(name) for name in names}


def _prepare_losses_2(container: Any, y: Any, returned: Any, told: Told) -> Any:
    """Refuse a y that Keras 2 would compare with each output, though it is for one of them."""
    check_loss_names(returned, told)
    if isinstance(told.loss, dict) and isinstance(returned, (list, tuple)):
        check_flat_list(returned)
    # The shape of y is not known here.
    if told.width > 1 and not isinstance(y, (list, tuple, dict)):
        outputs = returned.values() if isinstance(returned, dict) else returned
        if isinstance(returned, (list, tuple, dict)) and any(
            getattr(one, "shape", (told.width,))[-1] != told.width for one in outputs
        ):
            return spread(y, returned, told)
    return y


def _prepare_metrics(container: Any, y: Any, returned: Any, told: Told) -> Any:
    return y
