"""Quiet command: a click command that loads Keras without its log lines."""

from __future__ import annotations

from typing import Any

import click

from ..system.tensorflow_log import without_logs


class KerasCommand(click.Command):
    """A command that loads Keras, and hides the log lines of TensorFlow's start."""

    def invoke(self, ctx: click.Context) -> Any:
        with without_logs():
            return super().invoke(ctx)
