"""``python -m numerai_sequence`` is the command ``numerai-sequence``."""

from .cli import main

main(prog_name="numerai-sequence")
