"""Keras command: a click command that loads Keras, without the log lines of its start."""

from __future__ import annotations

from typing import Any

import click

from ..system.log_lines import without_logs


class KerasCommand(click.Command):
    """A command that loads Keras; the user does not see what TensorFlow logs of its start."""

    def invoke(self, ctx: click.Context) -> Any:
        with without_logs():
            return super().invoke(ctx)
