"""Where something was measured: facts without which figures say nothing."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


def machine_facts() -> dict[str, object]:
    """Say what machine this is, and what runs on it."""
    return {
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "hypervisor": "hypervisor" in _cpu_flags(),
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _packages(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe(facts: dict[str, object]) -> str:
    """Say it in a line."""
    memory = facts["memory_bytes"]
    assert isinstance(memory, int)
    guest = " (virtual)" if facts["hypervisor"] else ""
    cpus = "1 CPU" if facts["cpus"] == 1 else f"{facts['cpus']} CPUs"
    return f"{facts['cpu']}, {cpus}{guest}, {memory / 2**30:.0f} GiB, {facts['system']}, {facts['python']}"


def version_of(distribution: str) -> str:
    """Return the version of a distribution; empty where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _packages() -> dict[str, str]:
    """Return the versions of everything of tasklink, and of numpy."""
    names = sorted({str(found.metadata["Name"]) for found in metadata.distributions()})
    chosen = [name for name in names if name == "numpy" or name.startswith("tasklink")]
    return {name: version_of(name) for name in chosen if version_of(name)}


def _cpu() -> str:
    return _cpu_line("model name") or platform.processor() or "an unknown CPU"


def _cpu_flags() -> list[str]:
    return _cpu_line("flags").split()


def _cpu_line(name: str) -> str:
    """Return what /proc/cpuinfo says of the first CPU."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
