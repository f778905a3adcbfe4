"""The machine that a benchmark runs on, in words."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path


def processor(device: str) -> str:
    """Name of the GPU, or of the CPU as the system has it."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def describe(device: str) -> str:
    """The same, with torch and its threads."""
    import torch

    return f"{processor(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}"
