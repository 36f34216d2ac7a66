"""Y for outputs: turn y and weights by name into the form of a model's outputs.

A model of a user's class shows its outputs only when it runs, and seldom names them. The names in
``target=`` are then the names of its outputs, in this order. An output without a target gets None,
which Keras ignores if the output has no loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import FeatureError
from .output_forms import arrays_of, check_names

Names = tuple[str, ...]


class Told(NamedTuple):
    """The names, loss and targets of a model's outputs.

    Attributes
    ----------
    known : tuple of str, optional
        Names of the outputs in the model.
    given : tuple of str, optional
        Names in ``target=``, in order.
    loss
        Loss of ``compile``.
    is_ours : bool
        Whether all of y is from our sequences.
    width : int
        Number of targets in a y that is one array.
    """

    known: Names | None
    given: Names | None
    loss: Any = None
    is_ours: bool = True
    width: int = 1


def names_of(returned: Any, told: Told) -> Names | None:
    """Return a name for each output array, in order, or None if the names are unknown."""
    if isinstance(returned, dict):
        is_flat = not any(map(_is_nested, returned.values()))
        return tuple(map(str, returned)) if is_flat else told.known
    count = len(list(arrays_of(returned)))
    fields = fields_of(returned)
    found = (names for names in (told.known, fields, told.given) if names and len(names) == count)
    return next(found, None)


def fields_of(returned: Any) -> Names:
    """Return the names of the fields, if the outputs are a namedtuple."""
    return tuple(getattr(returned, "_fields", ()))


def are_pseudo(names: Sequence[str]) -> bool:
    """Return whether names are those that Keras 2 gives to outputs without names."""
    return list(names) == [f"output_{place + 1}" for place in range(len(names))]


def arrange_named(part: Any, returned: Any, told: Told) -> Any:
    """Return y or sample weights in the form of a model's outputs.

    Parameters
    ----------
    part
        An array, a list or a dict of arrays, or None. A dict is arranged; also a list, if the model
        returns a dict.
    returned
        Outputs of the model.
    told : Told

    Raises
    ------
    FeatureError
        It names an unknown output, or the names of the outputs are unknown.
    """
    if isinstance(part, (list, tuple)) and isinstance(returned, dict):
        given = told.given if told.is_ours else None
        is_whole = given is not None and len(given) == len(part) and {*given} <= {*returned}
        return dict(zip(given or (), part, strict=True)) if is_whole else part
    if isinstance(part, (list, tuple)) and not _is_flat(returned) and _is_flat(part):
        is_whole = len(part) == len(list(arrays_of(returned)))
        return _filled(returned, iter(part)) if is_whole and _is_nested(returned) else part
    if not isinstance(part, dict):
        return part
    if isinstance(returned, dict):
        check_names(part, list(returned))
        _check_whole(part, returned)
        return type(returned)((name, part.get(name)) for name in returned)
    if not _is_nested(returned):
        return _only(part)
    if len(list(arrays_of(returned))) == 1:
        return _filled(returned, iter([_only(part)]))
    names = names_of(returned, told)
    if names is None or (names != told.known and not {*part} <= {*names}):
        return _by_losses(part, returned, told)
    check_names(part, names)
    return _filled(returned, iter([part.get(name) for name in names]))


def losses_of(returned: Any, told: Told) -> list[Any] | None:
    """Return the loss of each output array, or None if it is unknown."""
    arrays, loss = list(arrays_of(returned)), told.loss
    if isinstance(loss, dict):
        names = names_of(returned, told)
        return None if names is None else [loss.get(name) for name in names]
    if isinstance(loss, (list, tuple)):
        if len(loss) != len(arrays) or any(map(_is_nested, loss)):
            return None
        if not isinstance(returned, dict):
            return list(loss)
        # Keras sorts them.
        of_name = dict(zip(sorted(returned), loss, strict=True)) if _is_flat(returned) else {}
        return [of_name[name] for name in returned] if of_name else None
    return [loss] * len(arrays)


def spread(y: Any, returned: Any, told: Told) -> Any:
    """Return a single array y as the y of the only output with a loss.

    Raises
    ------
    FeatureError
        Several outputs have a loss, or it is unknown which.
    """
    arrays = list(arrays_of(returned))
    if _is_nested(y) or y is None or len(arrays) < 2:
        return y
    losses = losses_of(returned, told)
    if losses is None:
        _check_named(returned, told)
        return y
    if sum(loss is not None for loss in losses) == 1:
        return _filled(returned, iter([None if loss is None else y for loss in losses]))
    names = names_of(returned, told) or [f"output_{place}" for place in range(len(arrays))]
    raise FeatureError(
        f"target: found one array y for a model of {len(arrays)} outputs, expected one for each "
        "output with a loss; name them: "
        f"target={{{', '.join(f'{name!r}: ...' for name in names)}}}"
    )


def check_losses(y: Any, returned: Any, told: Told) -> None:
    """Raise a `FeatureError` if an output has a loss but no y, or a loss has no output."""
    check_loss_names(returned, told)
    names = names_of(returned, told)
    losses = losses_of(returned, told)
    if losses is None or not _is_nested(returned) or not _is_nested(y):
        return
    found = list(arrays_of(y))
    if len(found) != len(losses):
        return
    for place, (loss, one) in enumerate(zip(losses, found, strict=True)):
        if loss is not None and one is None:
            name = names[place] if names else f"output_{place}"
            raise FeatureError(
                f"target: found nothing for the model's output {name!r}, which has a loss; add it "
                f"to target=, or compile the model with {_without(names, found)}",
                names=[name],
            )


def check_loss_names(returned: Any, told: Told) -> None:
    """Raise a `FeatureError` if a loss names an unknown output."""
    names = names_of(returned, told)
    is_nested_dict = isinstance(returned, dict) and not _is_flat(returned)
    if isinstance(told.loss, dict) and names is not None and not is_nested_dict:
        check_names(told.loss, names, "loss")


def _check_named(returned: Any, told: Told) -> None:
    if isinstance(told.loss, dict) and not isinstance(returned, dict):
        count = len(list(arrays_of(returned)))
        raise FeatureError(
            f"loss: found losses by name, {', '.join(map(repr, told.loss))}, for a model that "
            f"returns {count} outputs without names; name all of them in target=, in the model's "
            "order, or give a list of losses, with None for outputs without a loss",
            names=list(told.loss),
        )


def check_flat_list(returned: Any) -> None:
    """Raise a `FeatureError` for nested lists, in which Keras 2 cannot find losses by name."""
    if not _is_flat(returned):
        raise FeatureError(
            "loss: found losses by name for a model that returns lists within a list, expected one "
            "flat list, or a dict, of outputs"
        )


def _without(names: Names | None, found: Sequence[Any]) -> str:
    shown = ["None" if one is None else "..." for one in found]
    if names is None:
        return f"loss=[{', '.join(shown)}]"
    pairs = zip(names, shown, strict=True)
    return f"loss={{{', '.join(f'{name!r}: {one}' for name, one in pairs)}}}"


def _only(part: Mapping[str, Any]) -> Any:
    if len(part) == 1:
        return next(iter(part.values()))
    raise FeatureError(
        f"target: found {len(part)} outputs, {', '.join(map(repr, part))}, expected one: the model "
        "returns a single array; name one target, or let the model return each output",
        names=list(part),
    )


def _by_losses(part: Mapping[str, Any], returned: Any, told: Told) -> Any:
    """Return y for outputs without names: in order, for the outputs with a loss."""
    count = len(list(arrays_of(returned)))
    losses = losses_of(returned, told._replace(given=None)) or []
    given = [name for name in told.given or () if name in part]
    has_loss = isinstance(told.loss, (list, tuple)) and [loss is not None for loss in losses]
    if has_loss and len(given) == len(part) == sum(has_loss):
        values = iter(given)
        chosen = [part[next(values)] if has else None for has in has_loss]
        return _filled(returned, iter(chosen))
    raise FeatureError(
        f"target: found {', '.join(map(repr, part))} for a model that returns {count} outputs "
        "without names; name all of them in target=, in the model's order, or let the model "
        "return a dict",
        names=list(part),
    )


def _check_whole(part: Mapping[str, Any], returned: Mapping[str, Any]) -> None:
    for name, one in part.items():
        if _is_nested(returned[name]) and not _is_nested(one):
            raise FeatureError(
                f"target: found one array for the model's output {name!r}, which has several "
                "arrays; let the model return each array with its own name",
                names=[name],
            )


def _is_nested(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict))


def _is_flat(returned: Any) -> bool:
    parts = returned.values() if isinstance(returned, dict) else returned
    return _is_nested(returned) and not any(map(_is_nested, parts))


def _filled(form: Any, values: Iterator[Any]) -> Any:
    """Return a form with other values in it."""
    if not _is_nested(form):
        return next(values)
    if isinstance(form, dict):
        return type(form)((key, _filled(part, values)) for key, part in form.items())
    parts = [_filled(part, values) for part in form]
    return type(form)(*parts) if hasattr(form, "_fields") else type(form)(parts)
