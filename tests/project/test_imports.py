"""Imports: each module imports only what stands above it, and none that it can do without."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import numerai_sequence
from numerai_sequence.commands.main import COMMANDS

PACKAGE = Path(numerai_sequence.__file__).parent

# Each is a line of a table, and no other imports it.
ENCODINGS = [
    path.stem for path in (PACKAGE / "format" / "encodings").glob("*.py") if path.stem != "__init__"
]

# In the data's way. A new module gets a place here, below all that it imports, and in the folder of
# its stage; "" is the package's own. A folder whose `__init__` is a table is a module, too.
STAGES = [
    ("", """version errors"""),
    ("system", """optional_packages"""),
    ("", """checks"""),
    ("system", """buffers fork_safe_locks progress files executor_tasks tensorflow_log"""),
    ("format", """encoding"""),
    ("format/encodings", " ".join(ENCODINGS)),
    ("format", """encodings"""),
    (
        "ordering",
        """target_horizon eras splits row_order era_order distributed_ranks batch_units
        run_length""",
    ),
    ("format", """layout format_versions manifest feature_sets flatbuffer arrow_file"""),
    (
        "writing",
        """journal folder_claim scratch open_files parquet_reader parquet_folders column_types
        path_partitions feature_scale feature_digits tournaments source_columns
        missing_features target_alias chosen_columns row_ids shuffle_windows write_plan
        scratch_filler record_batches newer_sources set_difference output_folder
        part_runners writer write_arguments""",
    ),
    (
        "reading",
        """memory_budget page_faults open_file file_checks mapped_file paging batch_contents
        column_values row_reader patches set_description shard_set set_opener selection tables
        join_by_id""",
    ),
    ("writing", """write_shards"""),
    (
        "refreshing",
        """changed_values repeated_rows changed_aliases refresh append_shards sync sync_shards""",
    ),
    (
        "batching",
        """prefetching group_reader row_number_reader read_plan epoch residual targets inputs
        chosen_rows""",
    ),
    (
        "feeding",
        """socket_messages worker_processes interrupts output_forms y_for_outputs keras_patches
        models_behind_unpack model_input fit_call targets_by_name read_ahead epoch_workers
        epoch_callback distribution sequence_arguments planned_sequence sequence_copies
        epoch_serving keras_private_names data_adapters keras3 keras2 patched_methods
        keras_compat device unpack sequence""",
    ),
    ("predicting", """blends residuals rebuilt uploaded"""),
    (
        "scoring",
        """losses model_outputs forward_pass score_kinds scores feature_exposure neutral_correlation
        score_picture benchmark_models scored_rows era_scores""",
    ),
    (
        "resuming",
        """json_differences training_state json_descriptions model_architecture run_identity
        values_before_fit checkpoints resume""",
    ),
    ("feeding", """ray_ranks"""),
    ("training", """run_folder"""),
    (
        "predicting",
        """submission model_features named_models batch_members extra_inputs data_argument
        predictions ensembles neutralizing upload_postprocessing portable_config source_pickle
        export""",
    ),
    ("scoring", """given_predictions score_table"""),
    ("", """synthetic"""),
    (
        "training",
        """network run_options planned_runs printed_report device_feed starting_weights
        user_network one_run scored_runs fit_runs run_listing run_predictions""",
    ),
    ("", """__init__"""),
    (
        "commands",
        """quiet_command printed_set shared_options writing_options training_options
        shard sync refresh info verify train runs predict score export demo main""",
    ),
    ("", """__main__"""),
]
# The names of the modules: "version", "system.files".
ORDER = [
    ".".join(filter(None, [folder.replace("/", "."), module]))
    for folder, modules in STAGES
    for module in modules.split()
]

# What the writer's and the reader's side share: the format, and what is about no side at all.
SHARED = {
    "format.layout": "the format",
    "format.format_versions": "the format: which of it is known",
    "format.manifest": "the format: its manifest",
    "format.encoding": "the format: its features",
    "format.encodings": "the format: the table of its encodings",
    **{f"format.encodings.{name}": "the format: an encoding" for name in ENCODINGS},
    "ordering.target_horizon": "the name of the alias, and how it is compared",
    "ordering.eras": "the order of eras' names, and how they are counted",
    "format.feature_sets": "names of features, from features.json or the manifest",
    "errors": "what users catch",
    "checks": "values of JSON and arguments",
    "system.buffers": "memory for arrays, which encoding borrows",
    "system.progress": "a bar",
    "system.files": "what a system says of a file that is in use",
}

KERAS = {"keras", "tensorflow", "tf_keras", "jax", "torch"}
HEAVY = KERAS | {"pandas", "ray", "numerai_tools", "matplotlib", "scipy"}
FILES = {
    "os",
    "io",
    "pathlib",
    "shutil",
    "tempfile",
    "mmap",
    "glob",
    "pyarrow.parquet",
    "pyarrow.fs",
}


def path_of(module):
    path = PACKAGE / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module, *, at_once):
    """Yield the import statements of a module; at once: only those that its own import runs."""

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                yield child
            is_later = isinstance(child, ast.FunctionDef) or (
                isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            )
            if not (at_once and is_later):
                yield from visit(child)

    return visit(ast.parse(path_of(module).read_text(encoding="utf-8")))


def ours(module, *, at_once=False):
    """The modules of the package that a module imports."""
    found = set()
    for node in imports(module, at_once=at_once):
        if isinstance(node, ast.ImportFrom) and node.level:
            folders = path_of(module).relative_to(PACKAGE).parts[:-1]
            within = folders[: len(folders) + 1 - node.level]
            named = ".".join([*within, *filter(None, [node.module])])
            inside = {".".join(filter(None, [named, alias.name])) for alias in node.names}
            if named in ORDER:
                found.add(named)
            elif inside <= set(ORDER):
                found |= inside
            else:
                found.add(named or "__init__")
    if module == "__init__":
        found |= set(numerai_sequence._MODULES.values()) if not at_once else set()
    if module == "commands.main":
        found |= {f"commands.{name}" for name in COMMANDS.values()}
    return found


def others(module, *, at_once=False):
    """The packages and modules of others that a module imports, such as pyarrow and pyarrow.fs."""
    names = set()
    for node in imports(module, at_once=at_once):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names | {name.split(".")[0] for name in names}


def reach(*modules, at_once=False):
    """These modules, those that they import, those that these import, and so on."""
    found, new = set(), set(modules)
    while new:
        found |= new
        new = set().union(*(ours(module, at_once=at_once) for module in new)) - found
    return found


def run(code):
    """Return what Python prints in a process of its own, as a Python value."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1])


def test_each_module_has_one_place():
    tables = {path_of(module) for module in ORDER if (PACKAGE / module.replace(".", "/")).is_dir()}
    found = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if path.stem != "__init__" or path.parent == PACKAGE
    } | {".".join(path.parent.relative_to(PACKAGE).parts) for path in tables}
    assert found == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_upward(module):
    below = ours(module) - set(ORDER[: ORDER.index(module)])
    assert not below, f"{module} imports {below}, which stand below it, or are no modules"


def test_the_types_of_public_names_are_those_of_what_is_loaded():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    found = {
        alias.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert found == {**numerai_sequence._MODULES, "__version__": "version"}
    [names] = [ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign)]
    assert names == numerai_sequence.__all__
    assert set(names) <= set(dir(numerai_sequence))


def test_writer_and_reader_meet_in_the_format_alone():
    assert reach("writing.writer") & reach("reading.shard_set", "feeding.sequence") == set(SHARED)


@pytest.mark.parametrize("module", ["ordering.row_order", "ordering.eras", "format.encodings"])
def test_pure_modules_know_no_file_and_no_keras(module):
    for reached in reach(module):
        assert not others(reached) & (FILES | HEAVY), reached
    light = {"errors", "system.buffers", "format.encoding"}
    assert reach(module) <= {module, *light, *(f"format.encodings.{name}" for name in ENCODINGS)}


def test_only_losses_and_device_import_keras_or_its_backends_by_name():
    """Losses are subclasses of its own. All else asks keras_compat which Keras there is."""
    found = {module: others(module) & KERAS for module in ORDER}
    expected = {"scoring.losses": {"keras"}, "feeding.device": {"jax", "tensorflow", "torch"}}
    assert {module: names for module, names in found.items() if names} == expected


@pytest.mark.slow
def test_only_sequence_and_losses_need_keras_to_be_imported():
    """And what imports these; the writer, and the command, come without."""
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({KERAS}))  # Python's own mark for a module not there
failed = []
for module in {[m for m in ORDER if not m.startswith("__")]}:
    try:
        importlib.import_module(f"numerai_sequence.{{module}}")
    except ImportError:
        failed.append(module)
print(failed)
"""
    needs = [
        module
        for module in ORDER
        if reach(module, at_once=True) & {"feeding.unpack", "scoring.losses"}
    ]
    assert run(code) == needs
    light = {"writing.writer", "reading.shard_set", "scoring.scores", "ordering.splits"}
    assert not {"__init__", "commands.main", *light} & set(needs)


def test_only_what_is_uploaded_imports_pandas_at_once():
    """Numerai calls what it holds with a frame; where else a frame is wanted, it comes late."""
    found = {module: others(module, at_once=True) & (HEAVY - KERAS) for module in ORDER}
    expected = {"predicting.blends": {"pandas"}, "predicting.uploaded": {"pandas"}}
    assert {module: names for module, names in found.items() if names} == expected


@pytest.mark.parametrize(
    ("code", "light"),
    [
        ("import numerai_sequence", "version"),
        (
            "from numerai_sequence.commands.main import main; main(['--help'], "
            "standalone_mode=False)",
            "commands.train",
        ),
    ],
    ids=["import", "help"],
)
def test_import_and_help_load_nothing_slow(code, light):
    loaded = set(run(f"{code}; import sys; print([*sys.modules])"))
    assert f"numerai_sequence.{light}" in loaded
    assert not loaded & HEAVY
