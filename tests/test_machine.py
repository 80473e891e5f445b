import json
import mmap
import platform

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


@pytest.mark.parametrize("processes", [None, "1"])
def test_one_process_may_train(processes, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("WORLD_SIZE", processes)
    machine.check_alone()


def test_one_of_several_processes_may_not_train(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE = 4, .* start it without a launcher\."):
        machine.check_alone()


def test_the_description_does_not_name_the_host(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "kitchen-tower")
    told = machine.describe()
    assert set(told) == {"cpu", "cores", "memory_gb", "gpu", "system"}
    assert told["cpu"] and told["cores"] >= 1 and told["memory_gb"] >= 1
    assert "kitchen-tower" not in json.dumps(told)


def test_versions_say_what_decides_a_result():
    assert set(machine.versions()) == {"kao", "torch", "python"}
    assert machine.versions()["torch"] == torch.__version__


def test_memory_in_use_grows_with_what_is_held():
    before = machine.memory_in_use(CPU)
    # Straight from the system: a tensor may come out of memory that earlier tests gave back.
    with mmap.mmap(-1, 64 * 2**20) as held:
        held.write(b"1" * len(held))
        assert machine.memory_in_use(CPU) - before > 32 * 2**20


def test_the_device_is_the_cpu_where_torch_sees_no_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert machine.device() == CPU


def test_the_device_is_the_accelerator_where_torch_sees_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: GPU)
    assert machine.device() == GPU
