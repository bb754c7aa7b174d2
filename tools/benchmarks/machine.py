"""What a measurement was made on, and where its record is kept."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import torch

from jmp_lib import records
from jmp_lib.paths import results_dir

BENCHMARKS = results_dir() / "benchmarks"  # ``make ship PROFILE=benchmarks`` takes them over for the README


def describe() -> dict:
    """Processor, cores, GPU, versions, commit and date of a measurement."""
    return {"cpu": _cpu(), "cores": cores(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "versions": records.versions(), "commit": records.git_commit(),
            "date": time.strftime("%Y-%m-%d", time.gmtime())}


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
