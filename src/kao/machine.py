"""What this machine is, and what it is good at."""

import ctypes
import gc
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch import Tensor
from torch.nn import functional

from kao.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]

_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux tells of control groups, by which containers are held: cgroups(7)."""

_FULL = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""Said in a RuntimeError by what has no exception of its own for memory that ran out."""


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


def allow_tf32(allowed: bool) -> None:
    """Whether CUDA multiplies float32 matrices in TF32, with 10 bits of mantissa; process-wide."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def exact_float32(on: torch.device) -> Iterator[None]:
    """Compute with all bits of float32, and each time the same, whatever was asked for around it.

    Inside there is no autocast and no TF32, cuDNN keeps to deterministic algorithms, and
    TorchScript neither profiles nor fuses, so that its first call computes as its third does.

    Args:
        on: Where it is computed.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.autocast(on.type, enabled=False),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
            torch.jit.optimized_execution(False),  # type: ignore[attr-defined]
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


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
    """Cores this process may use: those it is bound to, or as many as its container may spend."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Whole ones: of two threads on a core and a half each waits for the other while it is held.
    return max(1, math.floor(min([bound or 1, *_quotas()])))


def free_memory(on: torch.device) -> int:
    """Bytes that programs may still take, of a GPU's memory, this machine's or its container's."""
    if on.type == "cuda":
        return torch.cuda.mem_get_info(on)[0]
    return max(0, min([int(psutil.virtual_memory().available), *_rooms()]))


def _quotas() -> Iterator[float]:
    """Cores that each control group around this process may spend, where it has a quota."""
    for group in _control_groups("cpu"):
        period = [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
        quota, length = _words(group / "cpu.max") or period or ("max", "1")
        if quota not in ("max", "-1"):
            yield int(quota) / int(length)


def _rooms() -> Iterator[int]:
    """Bytes that each control group around this process has left, where it has a limit.

    What it has cached of files, and can drop, counts as left, as it does on a whole machine.
    """
    for group in _control_groups("memory"):
        limit = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        if used and limit not in ([], ["max"]):
            facts = _words(group / "memory.stat")
            stat = dict(zip(facts[::2], facts[1::2], strict=False))
            cached = stat.get("total_inactive_file", stat.get("inactive_file", "0"))
            yield int(limit[0]) - int(used[0]) + int(cached)


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process is in, of both versions.

    A container may see its own group at the root and be told the group's name outside of it, so
    all folders on the way are looked at, and those that are not there have no files.
    """
    for line in _OWN_GROUPS.read_text().splitlines() if _OWN_GROUPS.exists() else ():
        _, controllers, name = line.split(":", 2)
        if controller in controllers.split(",") or not controllers:
            root = _GROUPS / controller if controllers else _GROUPS
            group = root / name.lstrip("/")
            yield from (place for place in (group, *group.parents) if place.is_relative_to(root))


def _words(file: Path) -> list[str]:
    """What a file says, by blanks; nothing where it is not there."""
    try:
        return file.read_text().split()
    except OSError:
        return []


def memory(on: torch.device) -> dict[str, int]:
    """Memory of this process, in bytes.

    Args:
        on: The device that it works on.

    Returns:
        cpu_rss, what is resident now, and cpu_rss_peak, where the system tells.  On CUDA also
        allocated and reserved, what tensors take and what torch holds for them, with
        allocated_peak and reserved_peak.  Peaks are the most since `reset_peaks`, or since the
        process began.
    """
    told = {"cpu_rss": int(psutil.Process().memory_info().rss)}
    if (peak := _peak_rss()) is not None:
        told["cpu_rss_peak"] = peak
    if on.type == "cuda":
        told |= {
            "allocated": torch.cuda.memory_allocated(on),
            "allocated_peak": torch.cuda.max_memory_allocated(on),
            "reserved": torch.cuda.memory_reserved(on),
            "reserved_peak": torch.cuda.max_memory_reserved(on),
        }
    return told


def reset_peaks(on: torch.device) -> None:
    """Let the peaks of `memory` start from what is held now.

    Where the system does not let a process reset the peak of its resident set, that stays.
    """
    if on.type == "cuda":
        torch.cuda.reset_peak_memory_stats(on)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5)


def give_back_freed_memory() -> None:
    """Let the system have what the C library keeps of it, where that is glibc."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def release(on: torch.device) -> None:
    """Free what nothing refers to any more, and hand a GPU's free memory back to its driver.

    Trainers hold themselves in circles, which only the collector finds, and what torch keeps for
    later counts as used for whoever asks how much is free.

    Args:
        on: The device that was worked on.
    """
    gc.collect()
    if on.type == "cuda":
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a CPU, on a GPU, or in a library on it."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _FULL)


def not_compiled(error: BaseException) -> bool:
    """Whether an error says that torch.compile failed, as where there is no C++ compiler.

    Its classes are none that torch promises, so they are known by where they come from.
    """
    homes = tuple(kind.__module__ for kind in type(error).__mro__)
    return any(home.startswith(("torch._dynamo", "torch._inductor")) for home in homes)


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, instead of handing it back at each step.

    A training step on a CPU frees as much as it takes, and glibc returns that to the system only
    to ask for it again, page by page: some 15,000 page faults a step with small networks, 5 to
    15 % of its time.  What the process holds at its peak stays the same.

    Returns:
        Whether it was done; only glibc, which most Linux systems have, is told.
    """
    libc = _glibc()
    if libc is None:
        return False
    # mallopt(3): M_MMAP_THRESHOLD is -3, at most 32 MiB; M_TRIM_THRESHOLD is -1, and -1 is never.
    return bool(libc.mallopt(-3, 32 * 2**20)) and bool(libc.mallopt(-1, -1))


def peak_flops(on: torch.device, dtype: torch.dtype, *, repeats: int = 10) -> float:
    """Operations a second of the faster of a large matrix product and a large convolution.

    The most that a network may hope for here.  Both are tried, since some CPUs multiply float32
    matrices at a third of the speed at which they convolve.  On as many cores as torch uses, and
    for float32 on CUDA with or without TF32 as it is set.

    Args:
        on: Where to compute.
        dtype: Of the arrays.
        repeats: How often; the fastest counts.

    Returns:
        Multiplications and additions a second.
    """
    # Short on a CPU, so that one of the repeats meets no other program.
    side, batch, channels = (8192, 64, 256) if on.type == "cuda" else (1024, 4, 128)
    generator = torch.Generator().manual_seed(0)
    matrix, images, kernel = (
        torch.randn(shape, generator=generator).to(on, dtype)
        for shape in ((side, side), (batch, channels, 32, 32), (channels, channels, 3, 3))
    )
    product = 2 * side**3 / _fastest(lambda: matrix @ matrix, on, repeats)
    convolution = _fastest(lambda: functional.conv2d(images, kernel, padding=1), on, repeats)
    return max(product, 2 * batch * 32**2 * channels**2 * 9 / convolution)


def _fastest(compute: Callable[[], Tensor], on: torch.device, repeats: int) -> float:
    """Seconds of the fastest of some runs, after one to warm up."""
    seconds = []
    for _ in range(1 + repeats):
        synchronize(on)
        started = time.perf_counter()
        compute()
        synchronize(on)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def synchronize(on: torch.device) -> None:
    """Wait for what was asked of a device; a CPU is always done."""
    if on.type != "cpu":
        torch.accelerator.synchronize(on)


def _peak_rss() -> int | None:
    """Bytes; None where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(kilobytes[0]) if kilobytes else None


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc."""
    if platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)


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


# torch counts the cores that a process is bound to, and threads beyond a quota spend it waiting for
# each other.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
