"""TensorFlow log: TensorFlow's log lines stay from the user's screen; all else is shown."""

from __future__ import annotations

import os
import subprocess
import sys

LOGS = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795891561.934401   26644 cudart_stub.cc:31] Could not find cuda drivers",
    "E0000 00:00:1795891634.251660   26644 cuda_platform.cc:52] failed call to cuInit: INTERNAL",
    "2024-05-01 10:00:00.123456: I tensorflow/core/util/port.cc:113] oneDNN custom operations",
    "2024-05-01 10:00:00.123456: E external/local_xla/xla/cuda_dnn.cc:9261] Unable to register",
    "To enable the following instructions: AVX2 FMA, rebuild TensorFlow",
]
SHOWN = [
    "F0000 00:00:1795891634.251660   26644 env.cc:52] Check failed: size > 0",
    "Traceback (most recent call last):",
    "Error: I0 is no era",
    "IndexError: 3",
]


def run(code, **environment):
    code = f"""
import os, sys
from numerai_sequence.system.tensorflow_log import without_logs
lines = {LOGS + SHOWN}
with without_logs():
    print("from Python", file=sys.stderr)
    for line in lines:
        os.write(2, line.encode() + b"\\n")
    {code}
print("I0000 00:00:1.2 3 after", file=sys.stderr)
print(os.environ.get("TF_CPP_MIN_LOG_LEVEL"))
"""
    known = {name: text for name, text in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=known | environment
    )


def test_log_lines_are_hidden_and_all_else_is_shown():
    done = run("pass")
    assert done.stderr.splitlines() == ["from Python", *SHOWN, "I0000 00:00:1.2 3 after"]
    assert done.stdout == "None\n"


def test_who_asks_for_log_lines_sees_them():
    done = run("pass", TF_CPP_MIN_LOG_LEVEL="0")
    assert done.stderr.splitlines()[1:-1] == LOGS + SHOWN
    assert done.stdout == "0\n"


def test_the_last_words_of_a_crash_and_of_children_are_shown():
    done = run("os.system('echo from a child >&2'); os.write(2, b'torn'); os.abort()")
    assert set(done.stderr.splitlines()) == {"from Python", *SHOWN, "from a child", "torn"}


def test_an_error_is_shown_and_the_screen_is_as_before():
    done = run("raise ValueError('wrong')")
    assert done.stderr.splitlines()[-1] == "ValueError: wrong"
    assert not [line for line in LOGS if line in done.stderr]
