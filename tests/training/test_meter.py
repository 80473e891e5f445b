from types import SimpleNamespace

import pytest
import torch

from kao.diffusion import Level
from kao.training import Meter, band_names
from kao.training.spikes import Spike


@pytest.fixture
def clock(monkeypatch):
    """The meter's clock: it stands still until it is moved."""
    clock = SimpleNamespace(now=100.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr("kao.training.meter.time", fake)
    return clock


def level_of(*log_snr):
    ratio = torch.tensor(log_snr, dtype=torch.float64)
    return Level(ratio.sigmoid().sqrt(), (-ratio).sigmoid().sqrt())


def test_the_bands_cover_all_levels_from_noise_to_clean():
    assert band_names() == ["<-4", "-4..-2", "-2..0", "0..2", "2..4", ">4"]


@pytest.mark.parametrize(
    ("log_snr", "band"),
    [(-30, "<-4"), (-3.9, "-4..-2"), (-0.1, "-2..0"), (0.1, "0..2"), (3, "2..4"), (4.1, ">4")],
)
def test_a_loss_counts_in_the_band_of_its_noise_level(log_snr, band):
    counted = Meter()
    counted.add([0.5], [0.5], level_of(log_snr), images=0, norm=1.0, waited=0.0)
    assert counted.take()["bands"] == {band: 0.5}


def test_pure_noise_counts_in_the_first_band():
    counted = Meter()
    counted.add([0.5], [0.5], Level(torch.zeros(1), torch.ones(1)), images=0, norm=1.0, waited=0.0)
    assert counted.take()["bands"] == {"<-4": 0.5}


def test_figures_are_means_over_images_and_steps(clock):
    counted = Meter()
    counted.add(
        [1.0, 2.0, 6.0], [1.0, 2.0, 6.0], level_of(-9, 1, 1.5), images=0, norm=3.0, waited=0.5
    )
    counted.add([3.0], [3.0], level_of(9), images=0, norm=5.0, waited=1.5)
    clock.now += 8
    assert counted.take() == {
        "loss": (1 + 2 + 6 + 3) / 4,
        "bands": {"<-4": 1.0, "0..2": 4.0, ">4": 3.0},
        "gradient_norm": 4.0,
        "images_per_second": 0.5,
        "data_wait": 0.25,
    }


def test_bands_show_what_is_comparable_and_the_loss_what_is_descended():
    counted = Meter()
    counted.add([1.0, 2.0], [10.0, 20.0], level_of(-9, 9), images=0, norm=1.0, waited=0.0)
    told = counted.take()
    assert told["loss"] == 1.5
    assert told["bands"] == {"<-4": 10.0, ">4": 20.0}


def test_bands_are_told_from_the_noisiest_to_the_cleanest():
    counted = Meter()
    counted.add(
        [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], level_of(9, -9, 1), images=0, norm=1.0, waited=0.0
    )
    assert list(counted.take()["bands"]) == ["<-4", "0..2", ">4"]


def test_after_a_line_counting_starts_again(clock):
    counted = Meter()
    assert counted.empty
    counted.add([100.0], [100.0], level_of(-9), images=0, norm=100.0, waited=3.0)
    assert not counted.empty
    clock.now += 5
    counted.take()
    assert counted.empty
    counted.add([1.0], [1.0], level_of(9), images=0, norm=2.0, waited=1.0)
    clock.now += 4
    assert counted.take() == {
        "loss": 1.0,
        "bands": {">4": 1.0},
        "gradient_norm": 2.0,
        "images_per_second": 0.25,
        "data_wait": 0.25,
    }


def test_a_spike_is_told_with_the_images_seen_and_once():
    counted = Meter()
    four = level_of(0, 1, 2, 3)
    for images in range(4, 404, 4):
        counted.add([0.5] * 4, [1.0] * 4, four, images=images, norm=1.0, waited=0.0)
    counted.take()
    assert counted.spikes == []
    # The step that ended with 408 images was skipped, and the meter never heard of it.
    for images, loss in ((404, 1.0), (412, 9.0), (416, 1.0)):
        counted.add([0.5] * 4, [loss] * 4, four, images=images, norm=1.0, waited=0.0)
    assert counted.spikes == [Spike(images=412, loss=9.0, usual=pytest.approx(1.0))]
    counted.take()
    assert counted.spikes == []


def test_a_loss_that_is_descended_below_zero_is_judged_by_what_is_shown():
    counted = Meter()
    for loss in (*[1.0] * 100, 5.0):
        counted.add([-2.0], [loss], level_of(0), images=0, norm=1.0, waited=0.0)
    assert [spike.loss for spike in counted.spikes] == [5.0]


def test_what_hooks_take_is_no_time_of_training(clock):
    counted = Meter()
    for _ in range(2):
        counted.add([1.0] * 8, [1.0] * 8, level_of(*range(8)), images=8, norm=1.0, waited=1.0)
        clock.now += 4
        with counted.paused():
            clock.now += 50  # a grid
        with counted.paused():
            clock.now += 3
            told = counted.take()
            clock.now += 3  # the log writes
        assert (told["images_per_second"], told["data_wait"]) == (2.0, 0.25)
