"""Forked: run Python in a process of its own, forked from one that has imported Keras.

That takes some milliseconds, where importing TensorFlow takes seconds. Nothing of this package has
been imported there, and nothing of Keras has been used.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path

LIMIT_SECONDS = 120
STREAMS = ("stdout", "stderr")


class Nursery:
    """A process that forks a child for each call."""

    def __init__(self):
        pipe = subprocess.PIPE
        command = [sys.executable, __file__]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True)

    def run(self, code=None, *, module=None, arguments=(), cwd=None, env=None):
        """Run code as ``python -c`` does, or a module as ``python -m``; return what came of it."""
        with tempfile.TemporaryDirectory() as folder:
            task = {"code": code, "module": module, "arguments": list(map(str, arguments))}
            task |= {
                "cwd": str(cwd or os.getcwd()),
                "env": dict(os.environ if env is None else env),
            }
            print(json.dumps(task | {"folder": folder}), file=self._process.stdin, flush=True)
            exit_code = json.loads(self._process.stdout.readline())
            found = [(Path(folder) / name).read_text() for name in STREAMS]
        return subprocess.CompletedProcess(task["arguments"], exit_code, *found)

    def close(self):
        self._process.communicate()


def serve():
    """Fork a child for each line of stdin; return in each of them, what it has to do."""
    import_keras()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return json.loads(line)
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
    os._exit(0)  # at once: TensorFlow would take a second


def import_keras():
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        importlib.import_module("keras")
        return
    _ = importlib.import_module("tensorflow").keras.Model  # which it imports when it is asked for
    with contextlib.suppress(ImportError):
        importlib.import_module("tf_keras")


def become(task):
    """Be the process that a task asks for, to its end."""
    signal.alarm(LIMIT_SECONDS)
    for number, name in enumerate(("stdin", *STREAMS)):
        path = os.path.join(task["folder"], name) if number else os.devnull
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(task["env"])
    os.chdir(task["cwd"])
    paths = task["env"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = ["", *filter(None, paths)]  # the first is the folder of this script
    sys.argv = [task["module"] or "-c", *task["arguments"]]
    if task["module"]:
        runpy.run_module(task["module"], run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(task["code"], "<string>", "exec"), vars(main))


if __name__ == "__main__":
    become(serve())
