"""What this machine is, and what it is good at."""

import os
import platform
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from kao.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]


def device() -> torch.device:
    """The accelerator if torch sees one, else the CPU."""
    if torch.accelerator.is_available():
        return torch.device(torch.accelerator.current_accelerator() or "cpu")
    return torch.device("cpu")


def best_precision(on: torch.device) -> Precision:
    """bf16 where the hardware multiplies it (recent GPUs, CPUs with AVX-512 BF16 or AMX).

    Elsewhere fp32: a CPU that emulates bf16 is slower with it, not faster.
    """
    if on.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if on.type == "cpu":
        flags = _cpu_field("flags").split()
        return "bf16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "fp32"
    return "fp32"


def check_precision(precision: Precision, on: torch.device) -> None:
    """Refuse what would be a trap.

    Raises:
        ConfigError: fp16 on a CPU, where it is emulated some thirty times slower than fp32.
    """
    if precision == "fp16" and on.type == "cpu":
        raise ConfigError(
            "training.precision = 'fp16' on a CPU would be emulated, many times slower than fp32: "
            "use 'bf16', 'fp32' or 'auto'."
        )


def check_alone() -> None:
    """Refuse to be one of several processes, which would write over each other.

    Raises:
        ConfigError: A launcher started more than one process.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise ConfigError(
            f"WORLD_SIZE = {processes}, but kao trains in one process: start it without a launcher."
        )


def describe() -> dict[str, Any]:
    """CPU, cores, memory, GPU and system, without any name of the host or its user."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_field("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    from kao import __version__

    return {"kao": __version__, "torch": torch.__version__, "python": platform.python_version()}


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_in_use(on: torch.device) -> int:
    """Bytes: allocated on a GPU, resident set of this process on a CPU."""
    if on.type == "cuda":
        return torch.cuda.max_memory_allocated(on)
    return int(psutil.Process().memory_info().rss)


def _cpu_field(name: str) -> str:
    """The first line of that name in /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
