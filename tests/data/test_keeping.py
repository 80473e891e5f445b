from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kao.data.keeping import keep, place
from kao.errors import ConfigError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BYTES = 18 * 3 * 8 * 8
"""That the tiny set takes."""


@pytest.fixture
def free(monkeypatch):
    """Bytes that are free, to be changed."""
    free = SimpleNamespace(memory=2**40, device=2**40)
    monkeypatch.setattr("kao.data.keeping.free_memory", lambda device: free.memory)
    monkeypatch.setattr(
        "kao.data.keeping.torch.cuda.mem_get_info", lambda device: (free.device, 2**41)
    )
    return free


@pytest.mark.parametrize("asked", ["disk", "memory", "auto"])
def test_pictures_are_the_same_wherever_they_lie(tiny_set, asked):
    kept = keep(tiny_set, place(tiny_set, asked, CPU), CPU)
    indices = torch.tensor([3, 17, 3, 0])
    assert len(kept) == 18 and kept.device == CPU
    assert np.array_equal(kept.labels, tiny_set.labels)
    assert kept.take(indices).dtype == torch.uint8
    assert np.array_equal(kept.take(indices).numpy(), tiny_set.images[indices.numpy()])


@pytest.mark.parametrize("asked", ["disk", "memory"])
def test_what_is_taken_is_a_copy(tiny_set, asked):
    kept, everything = keep(tiny_set, asked, CPU), torch.arange(18)
    before = kept.take(everything)
    kept.take(everything).zero_()
    assert torch.equal(kept.take(everything), before)


def test_a_set_that_is_larger_than_a_part_is_read_whole(tiny_set, monkeypatch):
    monkeypatch.setattr("kao.data.keeping._PART", 5)
    kept = keep(tiny_set, "memory", CPU)
    assert np.array_equal(kept.take(torch.arange(18)).numpy(), tiny_set.images)


@pytest.mark.parametrize(
    ("device", "memory", "on_device", "expected"),
    [
        (CPU, 4 * BYTES, 0, "memory"),
        (CPU, 4 * BYTES - 1, 2**40, "disk"),
        (CUDA, 0, 4 * BYTES, "device"),
        (CUDA, 4 * BYTES, 4 * BYTES - 1, "memory"),
        (CUDA, 4 * BYTES - 1, 4 * BYTES - 1, "disk"),
    ],
)
def test_pictures_lie_as_near_as_a_quarter_of_the_free_room_holds_them(
    tiny_set, free, device, memory, on_device, expected
):
    free.memory, free.device = memory, on_device
    assert place(tiny_set, "auto", device) == expected


def test_several_processes_that_hold_a_set_each_need_room_for_all(tiny_set, free):
    free.memory = 15 * BYTES
    assert place(tiny_set, "auto", CPU, processes=3) == "memory"
    assert place(tiny_set, "auto", CPU, processes=4) == "disk"


def test_a_place_that_is_asked_for_may_be_filled(tiny_set, free):
    free.memory = free.device = BYTES
    assert place(tiny_set, "memory", CPU) == "memory"
    assert place(tiny_set, "device", CUDA) == "device"
    assert place(tiny_set, "disk", CUDA) == "disk"


@pytest.mark.parametrize(("asked", "device"), [("memory", CPU), ("device", CUDA)])
def test_a_place_without_room_is_refused(tiny_set, free, asked, device):
    free.memory = free.device = BYTES - 1
    words = rf'data\.keep = "{asked}", but the pictures take 0\.0 GiB and 0\.0 GiB are free there'
    with pytest.raises(ConfigError, match=words):
        place(tiny_set, asked, device)


def test_a_device_that_is_no_gpu_is_refused(tiny_set):
    words = r'data\.keep = "device" holds the pictures on a CUDA GPU, and this run trains on cpu'
    with pytest.raises(ConfigError, match=words):
        place(tiny_set, "device", CPU)
