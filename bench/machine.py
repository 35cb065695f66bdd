"""Says what the figures were measured on."""

from __future__ import annotations

import datetime as dt
import os
import platform
from pathlib import Path

import torch

import inbackward


def describe(device: str, threads: int) -> dict[str, str]:
    """Describe the machine and the versions, before anything is measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": f"{_processor()}, {cores} cores",
        "device": _name_of(device) or f"CPU, threads of torch: {threads}",
        "load average before": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "inbackward": inbackward.__version__,
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
    }


def _name_of(device: str) -> str:
    """Return the name of an accelerator; empty for a CPU."""
    return "" if device == "cpu" else str(torch.get_device_module(device).get_device_name())


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
