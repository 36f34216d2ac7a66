"""Optional packages: imports of optional packages, and an error that says how to install them."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import NumeraiSequenceError


def load_extra(module: str, package: str, purpose: str, *, extra: str = "train") -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    module, package : str
        Module to import, and package that installs it: ``"numerai_tools.scoring"`` and
        ``"numerai-tools"``.
    purpose : str
        Task that needs the package, in the plural: ``"scores"``.
    extra : str
        Name of the extra in setup.cfg.

    Raises
    ------
    NumeraiSequenceError
        The package is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NumeraiSequenceError(
            f"{purpose} need {package} ({error}); install it with "
            f"pip install 'numerai_sequence[{extra}]'"
        ) from error
