import math

import numpy as np
import pytest
import torch
from torch import nn

from kao.errors import ConfigError
from kao.training import EMA, warmed_decay
from kao.training.ema import (
    NARROWEST,
    WIDEST,
    average_name,
    average_width,
    gamma_of,
    power_decay,
    width_of,
)


def model_of(value):
    model = nn.Linear(2, 3)
    fill(model, value)
    return model


def fill(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def fixed(decay):
    return lambda images, batch: decay


def test_the_average_of_a_model_that_stays_is_that_model():
    model = nn.Linear(5, 5)
    ema = EMA(model, warmed_decay(0.999))
    for step in range(1, 100):
        ema.update(4 * step, 4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ema.average[name], value, rtol=1e-6, atol=0)


def test_the_average_begins_as_the_model():
    model = model_of(3.0)
    ema = EMA(model, fixed(0.9))
    assert all((average == 3).all() for average in ema.average.values())


def test_the_average_of_a_model_that_jumped_nears_it_geometrically():
    # a_n = d^n a_0 + (1 - d^n) w
    model = model_of(2.0)
    ema = EMA(model, fixed(0.9))
    fill(model, 7.0)
    for step in range(1, 21):
        ema.update(step, 1)
    expected = torch.full((3, 2), 0.9**20 * 2 + (1 - 0.9**20) * 7)
    torch.testing.assert_close(ema.average["weight"], expected)


def test_the_average_is_the_weighted_sum_of_all_that_the_model_was():
    model = model_of(0.0)
    ema = EMA(model, fixed(0.8))
    values = [1.0, -2.0, 5.0]
    for step, value in enumerate(values, 1):
        fill(model, value)
        ema.update(step, 1)
    expected = sum(0.2 * 0.8 ** (2 - i) * value for i, value in enumerate(values))
    assert ema.average["bias"].tolist() == pytest.approx([expected] * 3)


def test_the_model_is_only_read():
    model = model_of(1.0)
    ema = EMA(model, fixed(0.5))
    fill(model, 2.0)
    ema.update(1, 1)
    assert (model.weight == 2).all()


def test_the_rule_is_told_images_and_batch():
    told = []
    ema = EMA(model_of(0.0), lambda images, batch: told.append((images, batch)) or 0.5)
    ema.update(64, 32)
    ema.update(96, 32)
    assert told == [(64, 32), (96, 32)]


@pytest.mark.parametrize(("updates", "decay"), [(1, 2 / 11), (2, 3 / 12), (90, 91 / 100)])
def test_a_warmed_decay_starts_small(updates, decay):
    # TensorFlow's ExponentialMovingAverage: min(decay, (1 + k) / (10 + k)).
    assert warmed_decay(0.999)(32 * updates, 32) == decay


def test_a_warmed_decay_rises_to_its_value_and_stays():
    rule = warmed_decay(0.99)
    decays = [rule(8 * step, 8) for step in range(1, 3000)]
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_running_statistics_are_averaged_and_counts_are_not():
    ema = EMA(nn.BatchNorm2d(3), fixed(0.5))
    assert set(ema.average) == {"weight", "bias", "running_mean", "running_var"}


def test_a_saved_average_goes_on_as_if_never_stopped():
    model = model_of(0.0)
    straight = EMA(model, fixed(0.7))
    fill(model, 1.0)
    straight.update(1, 1)
    resumed = EMA(model, fixed(0.7))
    resumed.load({name: value.clone() for name, value in straight.average.items()})
    for ema in (straight, resumed):
        ema.update(2, 1)
    assert all(torch.equal(resumed.average[n], straight.average[n]) for n in straight.average)


def test_what_was_loaded_is_not_changed_by_later_updates():
    model = model_of(0.0)
    ema = EMA(model, fixed(0.7))
    saved = {name: value + 1 for name, value in ema.average.items()}
    ema.load(saved)
    ema.update(1, 1)
    assert (saved["weight"] == 1).all()


# --- power profiles -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "gamma"),
    # Karras et al. (2024a, sec. 3) name 6.94 for 0.10 and 16.97 for 0.05.
    [(0.05, 16.97), (0.10, 6.94), (math.sqrt(1 / 12), 0.0)],
)
def test_the_published_pairs_of_width_and_gamma_are_found(width, gamma):
    assert gamma_of(width) == pytest.approx(gamma, abs=5e-3)


@pytest.mark.parametrize("width", [NARROWEST, 0.01, 0.05, 0.1, 0.2, 0.28, WIDEST])
def test_gamma_solves_the_cubic_and_is_its_largest_root(width):
    gamma = gamma_of(width)
    roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
    assert gamma == pytest.approx(max(roots.real), rel=1e-9, abs=1e-9)
    assert width_of(gamma) == pytest.approx(width, rel=1e-13)


def test_a_width_is_the_standard_deviation_of_its_profile():
    gamma = gamma_of(0.12)
    t = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    density = (gamma + 1) * t**gamma
    mean = (density * t).mean()
    assert (density * (t - mean) ** 2).mean().sqrt().item() == pytest.approx(0.12, rel=1e-6)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.0009, 0.2887, float("nan"), float("inf")])
def test_what_is_no_width_is_refused(width):
    with pytest.raises(ConfigError, match=r"width = \S+; expected 0\.001 to 0\.2887, a share"):
        power_decay(width)


def test_a_power_average_forgets_what_was_before_its_first_step():
    model = model_of(100.0)
    ema = EMA(model, power_decay(0.2))
    fill(model, 3.0)
    ema.update(8, 8)
    assert (ema.average["weight"] == 3).all()


def test_each_model_weighs_what_the_profile_has_over_its_step():
    """Whatever the batches are: nothing is lost to discrete time."""
    gamma, batches = gamma_of(0.15), [8, 8, 3, 32, 1, 8]
    ends = np.cumsum(batches)
    shares = np.diff(np.concatenate([[0.0], (ends / ends[-1]) ** (gamma + 1)]))
    values = [1.0, -2.0, 5.0, 0.5, 7.0, -4.0]
    model = model_of(0.0).double()
    ema = EMA(model, power_decay(0.15))
    for value, images, batch in zip(values, ends.tolist(), batches, strict=True):
        fill(model, value)
        ema.update(images, batch)
    assert ema.average["bias"][0].item() == pytest.approx(float(shares @ values), rel=1e-12)


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "name"), [(0.05, "ema-w0.050"), (0.1, "ema-w0.100"), (0.0525, "ema-w0.0525")]
)
def test_a_name_says_the_width(width, name):
    assert average_name(width) == name
    assert average_width(name) == width


def test_an_average_of_a_fixed_decay_has_no_width_and_comes_first():
    assert average_width("ema-0.999") is None
    assert sorted([average_name(0.05), "ema-0.999", "ema-0"])[-1] == "ema-w0.050"


# --- how far ------------------------------------------------------------------------------------


def test_the_distance_is_relative_to_the_model():
    model = model_of(3.0)
    ema = EMA(model, fixed(1.0))
    assert ema.distance() == 0
    fill(model, 4.0)
    assert ema.distance() == pytest.approx(1 / 4)


# --- on a GPU -----------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
def test_averages_on_the_cpu_are_those_on_the_gpu():
    model = nn.Sequential(nn.Linear(30, 40), nn.BatchNorm1d(40)).cuda()
    here, away = (EMA(model, power_decay(0.1), offload=offload) for offload in (False, True))
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 20):
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn(value.shape, generator=generator).cuda())
        for ema in (here, away):
            ema.update(8 * step, 8)
    for name, value in here.average.items():
        assert value.is_cuda and not away.average[name].is_cuda
        torch.testing.assert_close(away.average[name], value.cpu(), rtol=1e-6, atol=1e-6)
    assert away.distance() == pytest.approx(here.distance(), rel=1e-5)


def test_offloading_a_model_on_the_cpu_changes_nothing():
    model = model_of(1.0)
    averages = [EMA(model, warmed_decay(0.9), offload=offload) for offload in (False, True)]
    for step in range(1, 10):
        fill(model, float(step))
        for ema in averages:
            ema.update(4 * step, 4)
    one, other = (ema.average for ema in averages)
    assert all(torch.equal(one[name], other[name]) for name in one)
