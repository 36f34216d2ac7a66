"""Campaign runs: run a few tries of a campaign of tests/campaigns, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_campaign(name, folder, *, count, seed=0, timeout=300):
    """Return the campaign's results, as dicts; fail where one of them did not end as promised."""
    command = [sys.executable, ROOT / "tests/campaigns", name, "--count", count]
    command += ["--seed", seed, "--work", folder, "--out", folder]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "faults.json").read_text())["results"][name]
