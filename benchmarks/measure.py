"""Measure: run one measure, for example ``python benchmarks/measure.py write --rows 50000``.

Each module of `measures` is a command with its own options. Show them with
``python benchmarks/measure.py NAME --help``.
"""

import importlib
import pkgutil

import click
import measures

NAMES = sorted(module.name for module in pkgutil.iter_modules(measures.__path__))


# Only the chosen measure is imported: some load TensorFlow, which takes seconds.
@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name", type=click.Choice(NAMES))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(name: str, options: tuple[str, ...]) -> None:
    """Run the measure NAME with its OPTIONS. NAME --help shows them."""
    measure = importlib.import_module(f"measures.{name}")
    measure.main(options, prog_name=f"measure.py {name}")


if __name__ == "__main__":
    main()
