"""Output forms: turn y and weights by output name into the form of a model's outputs.

If a model returns a dict, Keras finds both by name. If it returns a list, Keras 3 finds y but not
the sample weights; if it returns a single array, neither. Keras 2 must also know the names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ..checks import short
from ..errors import FeatureError, close_matches

#: The names of a list of outputs, the name of a single output, or None to keep the dict.
Form = tuple[str, ...] | str | None


def find_form(model: Any, names: Collection[str]) -> Form:
    """Return the form of y for a model whose outputs are given by name.

    Parameters
    ----------
    model : Keras model
    names : collection of str
        Names of the outputs that have a y.

    Raises
    ------
    FeatureError
        The model names its outputs, and has no output of one of the names.
    """
    if any(kind.__name__ == "Sequential" for kind in type(model).__mro__):
        return next(iter(names)) if len(names) == 1 else None  # its output has no name of its own
    known, outputs = getattr(model, "output_names", None), _outputs_of(model)
    if not known or outputs is None:
        return None  # the form is known only when the model runs
    if isinstance(outputs, dict):
        check_names(names, list(outputs))
        return None
    check_names(names, known)
    if not isinstance(outputs, (list, tuple)):
        return str(known[0])
    is_flat = len(known) == len(outputs)
    return tuple(known) if is_flat and set(names) == set(known) else None


def arrange(batch: Any, form: Form) -> Any:
    """Return a batch with its y and sample weights in the form of the outputs, not as dicts.

    Parameters
    ----------
    batch : array or tuple
        Batch of a `NumeraiSequence`.
    form : Form
        From `find_form`.
    """
    if form is None or not isinstance(batch, (list, tuple)):
        return batch
    x, *parts = batch
    return (x, *(_arrange(part, form) for part in parts))


def _arrange(part: Any, form: str | tuple[str, ...]) -> Any:
    # A user's class may arrange y itself, or name other outputs. See `y_for_outputs`.
    names = (form,) if isinstance(form, str) else form
    if not isinstance(part, dict) or not {*names} <= {*part}:
        return part
    return part[form] if isinstance(form, str) else tuple(part[name] for name in form)


def without_lists(batch: Any) -> Any:
    """Return a batch with tuples in place of lists, which TensorFlow's datasets do not accept."""
    if isinstance(batch, dict):
        return {name: without_lists(part) for name, part in batch.items()}
    if isinstance(batch, (list, tuple)):
        return tuple(without_lists(part) for part in batch)
    return batch


def arrays_of(value: Any) -> Iterator[Any]:
    """Yield the arrays of a batch, or of a model's outputs, at any depth."""
    if isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from arrays_of(part)
    else:
        yield value


def check_names(names: Collection[str], known: Collection[str], what: str = "target") -> None:
    """Raise a `FeatureError` if an argument names an output that a model does not have."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        expected = ", ".join(map(repr, known))
        raise FeatureError(
            f"{what}: found an output {short(unknown[0])}, expected the outputs of the model: "
            f"{expected}{close_matches(unknown[0], list(known))}",
            names=unknown,
        )


def _outputs_of(model: Any) -> Any:
    try:
        return model.output
    except (AttributeError, ValueError, RuntimeError):  # not built, or no functional model
        return None
