"""``python -m numerai_sequence`` is the command ``numerai-sequence``."""

from .commands.main import main

main(prog_name="numerai-sequence")
