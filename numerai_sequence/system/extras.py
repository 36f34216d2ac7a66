"""Extras: import a package that not everybody needs, or say how to install it."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import NumeraiSequenceError


def load_extra(module: str, package: str, purpose: str, *, extra: str = "train") -> Any:
    """Import a module of an extra when it is needed, and not before.

    Parameters
    ----------
    module, package : str
        What to import, and the name that it is installed by: ``"numerai_tools.scoring"`` and
        ``"numerai-tools"``.
    purpose : str
        What it is for, in the plural: ``"scores"``.
    extra : str
        Of setup.cfg.

    Raises
    ------
    NumeraiSequenceError
        It is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NumeraiSequenceError(
            f"{purpose} need {package} ({error}); pip install 'numerai_sequence[{extra}]'"
        ) from error
