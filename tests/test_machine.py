import json
import mmap
import os
import platform
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kao import machine
from kao.errors import ConfigError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_fp16_on_a_cpu_is_refused_with_what_to_use_instead():
    with pytest.raises(ConfigError, match=r"'fp16' on a CPU .* use 'bf16', 'fp32' or 'auto'\."):
        machine.check_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("precision", "on"), [("fp32", CPU), ("bf16", CPU), ("fp16", GPU), ("bf16", GPU)]
)
def test_what_is_no_trap_is_allowed(precision, on):
    machine.check_precision(precision, on)


@pytest.mark.parametrize(
    ("flags", "best"),
    [
        ("fpu avx2 avx512f avx512_bf16", "bf16"),
        ("fpu amx_bf16 amx_tile", "bf16"),
        ("fpu avx2 avx512f", "fp32"),
        ("fpu not_avx512_bf16_at_all", "fp32"),
        ("", "fp32"),
    ],
)
def test_a_cpu_gets_bf16_where_it_multiplies_it(flags, best, monkeypatch):
    monkeypatch.setattr(machine, "_cpu_field", {"flags": flags}.get)
    assert machine.best_precision(CPU) == best


@pytest.mark.parametrize(("supported", "best"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_gets_bf16_where_it_multiplies_it(supported, best, monkeypatch):
    # Torch also says yes where it emulates, unless it is asked not to.
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: supported or including_emulation,
    )
    assert machine.best_precision(GPU) == best


def test_other_devices_get_fp32():
    assert machine.best_precision(torch.device("mps")) == "fp32"


def test_a_field_of_the_cpu_is_read_where_there_is_one(monkeypatch):
    text = "processor : 0\nmodel name\t: Fast CPU @ 3: 2 GHz\nflags : a b\n\nprocessor : 1\n"
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: text)
    assert machine._cpu_field("model name") == "Fast CPU @ 3: 2 GHz"
    assert machine._cpu_field("bogomips") == ""

    def missing(self):
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", missing)
    assert machine._cpu_field("flags") == ""


def test_the_description_does_not_name_the_host(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "kitchen-tower")
    told = machine.describe()
    assert set(told) == {"cpu", "cores", "memory_gb", "gpu", "system"}
    assert told["cpu"] and told["cores"] >= 1 and told["memory_gb"] >= 1
    assert "kitchen-tower" not in json.dumps(told)


def test_versions_say_what_decides_a_result():
    assert set(machine.versions()) == {"kao", "torch", "python"}
    assert machine.versions()["torch"] == torch.__version__


def test_memory_grows_with_what_is_held():
    before = machine.memory(CPU)["cpu_rss"]
    # Straight from the system: a tensor may come out of memory that earlier tests gave back.
    with mmap.mmap(-1, 64 * 2**20) as held:
        held.write(b"1" * len(held))
        assert machine.memory(CPU)["cpu_rss"] - before > 32 * 2**20


def test_the_device_is_the_cpu_where_torch_sees_no_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert machine.device() == CPU


def test_the_device_is_the_accelerator_where_torch_sees_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: GPU)
    assert machine.device() == GPU


# --- memory -------------------------------------------------------------------------------------


def test_memory_on_a_cpu_is_the_resident_set_and_its_peak():
    told = machine.memory(CPU)
    assert set(told) - {"cpu_rss_peak"} == {"cpu_rss"}
    assert told["cpu_rss"] > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc/self/clear_refs")
def test_the_peak_has_what_was_given_back_until_it_is_reset():
    machine.reset_peaks(CPU)
    before = machine.memory(CPU)
    with mmap.mmap(-1, 64 * 2**20) as held:
        held.write(b"1" * len(held))
    after = machine.memory(CPU)
    assert after["cpu_rss_peak"] - before["cpu_rss_peak"] > 32 * 2**20
    assert after["cpu_rss"] - before["cpu_rss"] < 32 * 2**20
    machine.reset_peaks(CPU)
    assert after["cpu_rss_peak"] - machine.memory(CPU)["cpu_rss_peak"] > 32 * 2**20


def test_memory_on_a_gpu_is_what_torch_says(monkeypatch):
    names = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")
    for i, name in enumerate(names):
        monkeypatch.setattr(torch.cuda, name, lambda device, i=i: i)
    told = machine.memory(GPU)
    keys = ("allocated", "allocated_peak", "reserved", "reserved_peak")
    assert [told[key] for key in keys] == [0, 1, 2, 3]


def test_where_the_system_tells_no_peak_none_is_told(monkeypatch):
    def missing(self):
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", missing)
    assert machine._peak_rss() is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept_where_the_c_library_is_glibc():
    # In a process of its own, which stays as it was told.
    script = """
import resource
import torch
from kao.machine import keep_freed_memory

torch.set_num_threads(1)

def faults():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        many = [torch.ones(2**19) for _ in range(64)]  # 2 MiB each
        del many
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
assert keep_freed_memory()
print(given_back, faults())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    given_back, kept = map(int, done.stdout.split())
    assert kept < 0.1 * given_back


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert machine.keep_freed_memory() is False
    machine.give_back_freed_memory()


# --- speed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "convolution", "operations", "seconds"),
    # Warming up, then the repeats.
    [
        ((1, 4, 2, 5), (1, 9, 9, 9), 2 * 1024**3, 2),
        ((1, 9, 9, 9), (1, 5, 6, 4), 2 * (4 * 32 * 32) * 128 * (128 * 3 * 3), 4),
    ],
)
def test_the_peak_is_of_the_fastest_repeat_of_the_faster_operation(
    product, convolution, operations, seconds, monkeypatch
):
    def clock():
        for taken in (*product, *convolution):
            yield 0.0
            yield float(taken)

    ticks = clock()
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(ticks))
    assert machine.peak_flops(CPU, torch.float32, repeats=3) == operations / seconds


def test_tf32_is_allowed_and_forbidden():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        machine.allow_tf32(True)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
        machine.allow_tf32(False)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_releasing_frees_circles_and_a_gpus_cache(monkeypatch):
    class Circle:
        def __init__(self):
            self.me = self

    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    for on, times in ((CPU, 0), (GPU, 1)):
        circle = weakref.ref(Circle())
        machine.release(on)
        assert circle() is None
        assert len(emptied) == times


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
    ],
)
def test_memory_that_runs_out_is_told_from_other_errors(error, full):
    assert machine.out_of_memory(error) is full


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """groups("0::/a", {"a/cpu.max": "..."}): the control groups of a process, on 64 free cores."""
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    monkeypatch.setattr(machine, "_OWN_GROUPS", own)
    monkeypatch.setattr(machine, "_GROUPS", root)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    available = SimpleNamespace(available=2**40)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: available)

    def make(lines, files):
        own.write_text(lines)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

    return make


V1 = "3:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n0::/\n"


@pytest.mark.parametrize(
    ("lines", "files", "cores"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n"}, 4),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, 64),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 64),
        ("0::/../outside\n", {"cpu.max": "300000 100000\n"}, 3),
        (V1, {"cpu/docker/ab/cpu.cfs_quota_us": "50", "cpu/docker/ab/cpu.cfs_period_us": "10"}, 5),
        (V1, {"cpu/docker/ab/cpu.cfs_quota_us": "-1", "cpu/docker/ab/cpu.cfs_period_us": "1"}, 64),
        (V1, {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        (V1, {"cpuset/cpu.cfs_quota_us": "200000", "cpuset/cpu.cfs_period_us": "100000"}, 64),
        ("", {}, 64),
    ],
)
def test_cores_are_no_more_than_a_container_may_spend(groups, lines, files, cores):
    groups(lines, files)
    assert machine.usable_cores() == cores


def test_without_control_groups_all_cores_count_that_a_process_is_bound_to(groups):
    assert machine.usable_cores() == 64
    assert machine.free_memory(CPU) == 2**40


@pytest.mark.parametrize(
    ("lines", "files", "free"),
    [
        (
            "0::/a\n",
            {
                "a/memory.max": "1000",
                "a/memory.current": "700",
                "a/memory.stat": "anon 500\ninactive_file 150\n",
            },
            450,
        ),
        ("0::/a\n", {"a/memory.max": "max", "a/memory.current": "700"}, 2**40),
        (
            "0::/a\n",
            {
                "a/memory.max": "max",
                "a/memory.current": "700",
                "memory.max": "900",
                "memory.current": "800",
            },
            100,
        ),
        (
            V1,
            {
                "memory/memory.limit_in_bytes": "1000",
                "memory/memory.usage_in_bytes": "700",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n",
            },
            350,
        ),
        (
            V1,
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "700",
            },
            2**40,
        ),
        ("0::/\n", {"memory.max": "100", "memory.current": "700"}, 0),
    ],
)
def test_free_memory_is_no_more_than_a_container_has_left(groups, lines, files, free):
    groups(lines, files)
    assert machine.free_memory(CPU) == free


THREADS = """
import os
os.sched_getaffinity = lambda _: range(1)
import torch
torch.get_num_threads = lambda: 5
torch.set_num_threads = lambda n: print(n)
import kao.machine
"""


@pytest.mark.parametrize(("asked", "set_to"), [({}, "1\n"), ({"OMP_NUM_THREADS": "5"}, "")])
def test_torch_gets_a_thread_for_each_usable_core_unless_the_environment_says_how_many(
    asked, set_to
):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | asked
    done = subprocess.run(
        [sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True
    )
    assert done.stdout == set_to, done.stderr


def test_an_error_of_a_compiler_is_told_by_where_its_class_comes_from():
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor.exc import InductorError, InvalidCxxCompiler

    for kind in (BackendCompilerFailed, InductorError, InvalidCxxCompiler):
        assert machine.not_compiled(kind.__new__(kind))
    assert not machine.not_compiled(RuntimeError("torch._dynamo is innocent"))
