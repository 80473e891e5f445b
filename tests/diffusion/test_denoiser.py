import pytest
import torch
from torch import nn

from kao.diffusion import (
    SCHEDULES,
    TARGETS,
    Clipped,
    Cosine,
    Denoiser,
    DiscreteSchedule,
    Flow,
    Linear,
    VPCosine,
    targets,
)
from kao.errors import ConfigError


class Recorder(nn.Module):
    """Returns a constant and keeps what it was called with."""

    def __init__(self, value: float = 0.0, dtype: torch.dtype | None = None):
        super().__init__()
        self.value, self.dtype = value, dtype

    def forward(self, x, label, condition):
        self.seen = x, label, condition
        return torch.full_like(x, self.value, dtype=self.dtype)


@pytest.mark.parametrize("config", [Flow(), VPCosine()], ids=["flow", "vp_cosine"])
def test_eps_on_a_schedule_that_ends_in_pure_noise_is_refused(config):
    schedule = config.build()
    with pytest.raises(ConfigError, match="eps target") as refusal:
        Denoiser(Recorder(), schedule, targets.eps)
    assert type(schedule).__name__ in str(refusal.value)
    assert "v or velocity" in str(refusal.value)


def test_a_discrete_table_of_zero_terminal_snr_is_refused_too():
    schedule = DiscreteSchedule(torch.tensor([0.1, 0.5, 1.0]))
    with pytest.raises(ConfigError, match="v or velocity"):
        Denoiser(Recorder(), schedule, targets.eps)


def test_eps_on_the_discrete_cosine_table_is_allowed():
    Denoiser(Recorder(), Cosine().build(), targets.eps)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", [name for name in TARGETS if name != "eps"])
def test_every_other_pair_is_allowed(schedule, target):
    entry = TARGETS[target]
    row = entry() if isinstance(entry, type) else entry
    Denoiser(Recorder(), SCHEDULES[schedule]().build(), row)


@pytest.mark.parametrize("sigma_data", [0.0, -0.5])
def test_sigma_data_must_be_positive(sigma_data):
    with pytest.raises(ConfigError, match="sigma_data"):
        Denoiser(Recorder(), Flow().build(), targets.v, sigma_data=sigma_data)


def test_one_time_for_all_images_is_the_same_as_that_time_for_each():
    network = Recorder(value=0.3)
    denoiser = Denoiser(network, Linear().build(), targets.eps, sigma_data=0.5)
    x = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    one = denoiser(x, torch.tensor(500.0, dtype=torch.float64))
    seen_one = network.seen
    each = denoiser(x, torch.full((3,), 500.0, dtype=torch.float64))
    for a, b in zip((*one, *seen_one[:2]), (*each, *network.seen[:2]), strict=True):
        torch.testing.assert_close(a, b)


def test_the_network_gets_a_float32_label_an_image_and_the_condition():
    network = Recorder()
    denoiser = Denoiser(network, Linear().build(), targets.eps)
    x = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    denoiser(x, torch.tensor([1.0, 1000.0], dtype=torch.float64), "a cat")
    seen, label, condition = network.seen
    assert torch.equal(seen, x) and condition == "a cat"
    assert label.dtype == torch.float32 and label.tolist() == [0, 999]


def test_a_label_of_ones_own_replaces_the_schedules():
    network = Recorder()
    denoiser = Denoiser(network, Linear().build(), targets.eps, label=lambda t: 10 * t)
    denoiser(torch.zeros(2, 1, 2, 2), torch.tensor(7.0, dtype=torch.float64))
    assert network.seen[1].tolist() == [70, 70]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_sigma_data_gives_inputs_of_unit_variance(schedule):
    network, curve = Recorder(), SCHEDULES[schedule]().build()
    denoiser = Denoiser(network, curve, targets.v, sigma_data=0.5)
    t = torch.tensor(0.4 * curve.t_max, dtype=torch.float64)
    alpha, sigma = curve(t)
    x = torch.full((1, 1, 2, 2), (0.25 * alpha**2 + sigma**2).sqrt().item())
    denoiser(x, t)
    torch.testing.assert_close(network.seen[0], torch.ones_like(x))


def test_outputs_come_back_in_the_dtype_of_the_images():
    denoiser = Denoiser(Recorder(0.5, dtype=torch.bfloat16), Flow().build(), targets.velocity)
    x, t = torch.zeros(2, 1, 2, 2), torch.tensor(0.5, dtype=torch.float64)
    assert denoiser.output(x, t).dtype == torch.float32
    prediction = denoiser(x, t)
    assert prediction.x0.dtype == prediction.eps.dtype == torch.float32


def test_predictions_reproduce_the_noisy_image():
    curve = Linear().build()
    denoiser = Denoiser(Recorder(0.7), curve, targets.v)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([3.0, 800.0], dtype=torch.float64)
    alpha, sigma = curve(t).like(x)
    prediction = denoiser(x, t)
    torch.testing.assert_close(alpha * prediction.x0 + sigma * prediction.eps, x)


def test_clipping_bounds_the_image_and_leaves_the_noise():
    denoiser = Denoiser(Recorder(0.1), Linear().build(), targets.eps)
    x = 3 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor(600.0, dtype=torch.float64)
    raw, clipped = denoiser(x, t), Clipped(denoiser, 0.5)(x, t)
    assert raw.x0.abs().max() > 0.5
    assert torch.equal(clipped.x0, raw.x0.clamp(-0.5, 0.5))
    assert torch.equal(clipped.eps, raw.eps)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("inf")])
def test_a_clipping_limit_that_is_not_positive_is_refused(limit):
    denoiser = Denoiser(Recorder(), Linear().build(), targets.eps)
    with pytest.raises(ConfigError, match="clipping limit"):
        Clipped(denoiser, limit)
