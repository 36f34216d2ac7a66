"""Reference: the docstrings of public names and the options of commands become reference.md.

``python docs/reference.py`` writes docs/reference.md again, and ``--check`` fails where that file
differs from the docstrings.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import numerai_sequence
from numerai_sequence.commands.main import main as command

PAGE = Path(__file__).with_name("reference.md")
GROUPS = {
    "Shard sets": "write_shards sync_shards append_shards Refresh open_shards ShardSet RayTasks",
    "Eras": "split_eras walk_forward Split",
    "Training": "NumeraiSequence Residual Unpack PearsonLoss RankCorrelationLoss EraScores Resume"
    " connect_ranks",
    "Runs": "fit_runs read_run Run",
    "Predictions and scores": "predict ensemble neutralize score summarize write_predictions"
    " export_predict",
    "Errors": "NumeraiSequenceError SourceError FeatureError EraError ManifestError"
    " CorruptShardError OutputError OutputExistsError OutOfMemoryError ResumeError WorkerError",
}
KERASES = ("keras", "tf_keras")
NAMES = [name for names in GROUPS.values() for name in names.split()]
INTRODUCTION = """# Reference

Every public name of the package and every command, from their docstrings. `docs/reference.py`
writes this page. The [guide](guide.md) shows how the names are used together.
"""


def members(owner: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class describes itself, without Keras's hooks."""
    of_keras = [each for each in owner.__mro__ if each.__module__.partition(".")[0] in KERASES]
    for name, value in vars(owner).items():
        described = inspect.unwrap(getattr(value, "__func__", value))
        is_member = isinstance(value, (property, classmethod, staticmethod)) or callable(value)
        is_hook = any(hasattr(each, name) for each in of_keras)
        if not name.startswith("_") and is_member and described.__doc__ and not is_hook:
            yield name, value


def signature(name: str, value: Callable[..., Any]) -> str:
    """The names and defaults of arguments, without their types, in lines of up to 88 columns."""
    parameters = [
        one.replace(annotation=inspect.Parameter.empty)
        for one in inspect.signature(value).parameters.values()
        if one.name not in ("self", "cls")
    ]
    parts, is_named = [], False
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not is_named:
            is_named = True
            if not any(each.kind is each.VAR_POSITIONAL for each in parameters):
                parts.append("*")
        parts.append(str(one))
    line = f"{name}({', '.join(parts)})"
    return line if len(line) <= 88 else f"{name}(\n    " + ",\n    ".join(parts) + ",\n)"


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """The parts of a docstring as pairs of heading and lines; the first one has no heading."""
    heading, lines, rest = "", [], text.splitlines()
    for place, line in enumerate(rest):
        if place + 1 < len(rest) and re.fullmatch("-{3,}", rest[place + 1]):
            yield heading, lines
            heading, lines = line, []
        elif not re.fullmatch("-{3,}", line):
            lines.append(line)
    yield heading, lines


def entries(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The pairs of name and text in a section such as Parameters."""
    name: str | None = None
    text: list[str] = []
    for line in lines:
        if line and not line.startswith(" "):
            if name is not None:
                yield name, " ".join(text)
            name, text = line, []
        elif line.strip():
            text.append(line.strip())
    if name is not None:
        yield name, " ".join(text)


def plain(text: str) -> str:
    """The marks of a docstring as those of Markdown."""
    return text.replace("``", "`")


def prose(lines: list[str]) -> str:
    """Paragraphs and lists as they are; what follows ``::`` as a block of code."""
    text = plain("\n".join(lines)).strip()

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}:\n\n```\n{inspect.cleandoc(found[2])}\n```\n"

    return re.sub(r"(.*)::\n\n((?: {4}.*\n?|\n(?= {4}))+)", block, text).strip()


def described(text: str) -> Iterator[str]:
    """A docstring as Markdown."""
    for heading, lines in sections(text):
        if heading in ("", "Notes"):
            if any(lines):
                yield prose(lines)
            continue
        yield f"**{heading}**"
        found = list(entries(lines))
        if heading == "Raises" or any(text for _, text in found):
            yield "\n".join(
                f"- `{name}`: {plain(text)}" if text else f"- `{name}`" for name, text in found
            )
        else:
            yield prose(lines)


def named(name: str) -> Iterator[str]:
    """A public name: a heading, its call, its docstring, and what a class has besides."""
    value = getattr(numerai_sequence, name)
    is_error = inspect.isclass(value) and issubclass(value, Exception)
    yield f"### {name}"
    if not is_error:
        yield f"```\n{signature(name, value)}\n```"
    yield from described(inspect.getdoc(value) or "")
    if inspect.isclass(value) and not is_error:
        for member, one in members(value):
            is_value = isinstance(one, property)
            shown = member if is_value else signature(member, getattr(value, member))
            yield f"#### {name}.{member}"
            if not is_value:
                yield f"```\n{shown}\n```"
            yield from described(inspect.getdoc(one if is_value else getattr(value, member)) or "")


def option_rows(one: click.Command) -> Iterator[str]:
    """The options of a command as rows of a table."""
    context = click.Context(one)
    for parameter in one.get_params(context):
        if isinstance(parameter, click.Option) and parameter.name != "help":
            record = parameter.get_help_record(context)
            if record:
                names, text = (part.replace("|", "\\|") for part in record)
                yield f"| `{names}` | {text} |"


def commanded(name: str) -> Iterator[str]:
    """A command: a heading, its call, what it does, and a table of its options."""
    one = command.get_command(click.Context(command), name)
    assert one is not None
    context = click.Context(one, info_name=f"numerai-sequence {name}")
    yield f"### numerai-sequence {name}"
    yield f"```\n{' '.join([context.info_name or '', *one.collect_usage_pieces(context)])}\n```"
    yield plain(inspect.cleandoc(one.help or "").replace("\b\n", ""))
    rows = list(option_rows(one))
    if rows:
        yield "\n".join(["| option | meaning |", "|---|---|", *rows])


def page() -> str:
    parts = [INTRODUCTION.strip()]
    for group, names in GROUPS.items():
        parts.append(f"## {group}")
        for name in names.split():
            parts += named(name)
    parts.append("## Commands")
    for name in command.list_commands(click.Context(command)):
        parts += commanded(name)
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/reference.md from the docstrings.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it differs")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE}: differs from the docstrings; run 'python docs/reference.py'")


if __name__ == "__main__":
    main()
