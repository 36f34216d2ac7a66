"""Events: what a measured process notes about itself, one JSON line an event."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

FIELDS = ("VmHWM", "VmRSS", "RssAnon", "RssFile")


def process_memory(pid: int | str = "self") -> dict[str, int]:
    """Return VmHWM, VmRSS, RssAnon and RssFile of a process in bytes; empty when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 for name in FIELDS if name in fields}


def forget_peak() -> None:
    """Start VmHWM anew from what is resident now, so that imports do not hide what comes later."""
    with suppress(OSError):  # a container may not allow it; the peak is then that of all
        Path("/proc/self/clear_refs").write_text("5")


def note(events: TextIO, event: str, **details: Any) -> None:
    """Write an event as a JSON line, with memory and the monotonic clock that processes share."""
    line = {"event": event, "seconds": time.monotonic(), **process_memory(), **details}
    print(json.dumps(line), file=events, flush=True)


def read_events(path: Path) -> dict[str, dict[str, Any]]:
    """Return the noted events by name; none where the process died before the first."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {event["event"]: event for event in map(json.loads, lines)}
