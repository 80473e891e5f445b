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
    with pytest.raises(ConfigError, match=r'target = "eps" .* ends in pure noise') as refusal:
        Denoiser(Recorder(), schedule, targets.eps)
    assert 'choose target = "v" or "velocity"' in str(refusal.value)


def test_a_discrete_table_of_zero_terminal_snr_is_refused_too():
    schedule = DiscreteSchedule(torch.tensor([0.1, 0.5, 1.0]))
    with pytest.raises(ConfigError, match="zero_terminal_snr = false"):
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
    torch.testing.assert_close(one.x0, each.x0)
    torch.testing.assert_close(one.eps, each.eps)
    for a, b in zip(seen_one[:2], network.seen[:2], strict=True):
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


class Halves(nn.Module):
    """Returns one constant in the first half of its channels and another in the second."""

    def __init__(self, y: float, v: float):
        super().__init__()
        self.y, self.v = y, v

    def forward(self, x, label, condition):
        return torch.cat([torch.full_like(x, self.y), torch.full_like(x, self.v)], dim=1)


@pytest.mark.parametrize(("v", "variance"), [(-1.0, 0.0), (0.0, 0.5), (1.0, 1.0), (2.0, 1.5)])
def test_a_learned_variance_is_the_second_half_of_the_channels_unclamped(v, variance):
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([3.0, 800.0], dtype=torch.float64)
    schedule = Linear().build()
    prediction = Denoiser(Halves(0.7, v), schedule, targets.v, learned_variance=True)(x, t)
    assert torch.equal(prediction.variance, torch.full_like(x, variance))
    plain = Denoiser(Recorder(0.7), schedule, targets.v)(x, t)
    assert torch.equal(prediction.x0, plain.x0) and torch.equal(prediction.eps, plain.eps)
    assert plain.variance is None


def test_the_raw_output_with_a_learned_variance_has_both_halves():
    denoiser = Denoiser(Halves(0.7, 0.2), Linear().build(), targets.v, learned_variance=True)
    output = denoiser.output(torch.zeros(1, 3, 2, 2), torch.tensor(5.0, dtype=torch.float64))
    assert output.shape == (1, 6, 2, 2)
    y, variance = denoiser.split(output)
    assert torch.equal(y, output[:, :3]) and torch.equal(variance, (output[:, 3:] + 1) / 2)


@pytest.mark.parametrize(
    ("network", "learned_variance", "words"),
    [
        (Recorder(), True, "returns 3 channels for images of 3, .* learned .* must return 6"),
        (Halves(0, 0), False, "returns 6 channels for images of 3, .* fixed .* must return 3"),
    ],
)
def test_a_network_of_another_number_of_channels_is_refused(network, learned_variance, words):
    denoiser = Denoiser(network, Linear().build(), targets.v, learned_variance=learned_variance)
    with pytest.raises(ConfigError, match=words):
        denoiser(torch.zeros(1, 3, 2, 2), torch.tensor(5.0, dtype=torch.float64))


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
