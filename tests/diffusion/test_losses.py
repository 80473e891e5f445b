import math

import pytest
import torch
from torch import nn

from kao.diffusion import (
    EDM,
    NORMS,
    SCHEDULES,
    TARGETS,
    VE,
    WEIGHTS,
    Cosine,
    Denoiser,
    DenoisingLoss,
    DiscreteSchedule,
    Huber,
    Linear,
    MinSNR,
    Mixed,
    losses,
)
from kao.errors import ConfigError

PURE_NOISE = ("vp_cosine", "flow")
PAIRS = [(s, t) for s in SCHEDULES for t in TARGETS if t != "eps" or s not in PURE_NOISE]
pairs = pytest.mark.parametrize(("schedule", "target"), PAIRS)


class Net(nn.Module):
    """A small fixed network that uses all it is told."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        self.double()

    def forward(self, x, label, condition):
        weight, bias = self.conv.weight.to(x), self.conv.bias.to(x)
        y = nn.functional.conv2d(x, weight, bias, padding=1)
        return y.tanh() + (label / 500).sin().reshape(-1, 1, 1, 1).to(x)


def denoiser_of(schedule: str, target: str) -> Denoiser:
    entry = TARGETS[target]
    row = entry() if isinstance(entry, type) else entry
    return Denoiser(Net(), SCHEDULES[schedule]().build(), row)


def images(batch: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 1, 4, 4, generator=generator, dtype=torch.float64) * 2 - 1


def at(t: torch.Tensor) -> losses.Times:
    return lambda batch, generator: t


def spread(schedule: str, batch: int = 6) -> torch.Tensor:
    return (
        torch.linspace(0.1, 0.9, batch, dtype=torch.float64) * SCHEDULES[schedule]().build().t_max
    )


def draw(loss: DenoisingLoss, denoiser: Denoiser, x0: torch.Tensor) -> losses.Losses:
    return loss(denoiser, x0, None, torch.Generator().manual_seed(2))


def squared_error_of_x0(denoiser: Denoiser, x0: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """|x0_hat - x0|^2 a pixel, on the noise that `draw` makes."""
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2)).to(x0)
    alpha, sigma = denoiser.schedule(t).like(x0)
    prediction = denoiser(alpha * x0 + sigma * eps, t)
    return (prediction.x0 - x0).square().flatten(1).mean(1)


@pairs
@pytest.mark.parametrize(
    "weight", [lambda level: level.snr, lambda level: torch.ones_like(level.snr), MinSNR(5.0)]
)
def test_a_weight_is_what_the_squared_error_of_x0_is_multiplied_by(schedule, target, weight):
    denoiser, x0, t = denoiser_of(schedule, target), images(), spread(schedule)
    value, level = draw(DenoisingLoss(at(t), weight=weight), denoiser, x0)
    expected = weight(level) * squared_error_of_x0(denoiser, x0, t)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)


def test_the_weight_natural_to_a_target_changes_nothing():
    denoiser, x0, t = denoiser_of("linear", "v"), images(), spread("linear")
    plain = draw(DenoisingLoss(at(t)), denoiser, x0)
    weighted = draw(DenoisingLoss(at(t), weight=lambda level: level.snr + 1), denoiser, x0)
    torch.testing.assert_close(plain.value, weighted.value)


def test_plain_mse_on_f_is_the_loss_of_the_edm_paper():
    # Karras et al. (2022), eq. 2 and table 1, written out.
    sigma_data, x0 = 0.5, images()
    network = Net()
    schedule = VE().build()
    denoiser = Denoiser(network, schedule, EDM(sigma_data), sigma_data=sigma_data)
    sigma = torch.tensor([0.002, 0.05, 0.5, 1.0, 7.0, 80.0], dtype=torch.float64)
    value, _ = draw(DenoisingLoss(at(sigma)), denoiser, x0)

    n = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2)).to(x0)
    s = sigma.reshape(-1, 1, 1, 1)
    total = s**2 + sigma_data**2
    c_skip, c_out, c_in = sigma_data**2 / total, s * sigma_data / total.sqrt(), 1 / total.sqrt()
    x = x0 + s * n
    f = network(c_in * x, (1000 * sigma.log() / 4).float(), None)
    d = c_skip * x + c_out * f
    expected = (total / (s * sigma_data) ** 2 * (d - x0) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)


def test_min_snr_is_the_snr_up_to_gamma():
    level = Linear().build()(torch.arange(1, 1001, dtype=torch.float64))
    weight = MinSNR(5.0)(level)
    assert torch.equal(weight, torch.minimum(level.snr, torch.full_like(level.snr, 5.0)))
    assert (weight == 5).any() and (weight < 5).any()


@pairs
@pytest.mark.parametrize("weight", WEIGHTS)
def test_losses_are_finite_to_both_ends_of_the_schedule(schedule, target, weight):
    denoiser, entry = denoiser_of(schedule, target), WEIGHTS[weight]
    first, last = extremes(denoiser.schedule)
    loss = DenoisingLoss(at(torch.stack([first, last])), weight=entry and entry())
    value, _ = draw(loss, denoiser, images(2).float())
    assert value.isfinite().all() and (value >= 0).all()


def with_rand(u: float, times: losses.Times, batch: int) -> torch.Tensor:
    """Times where every uniform number drawn is `u`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda n, **_: torch.full((n,), u, dtype=torch.float64))
        return times(batch, torch.Generator().manual_seed(0))


def extremes(schedule):
    """The cleanest and the noisiest time that `uniform` can draw."""
    times = losses.uniform(schedule, stratified=False)
    return sorted(with_rand(u, times, 1)[0] for u in (0.0, 1 - 2**-53))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_ends_of_the_drawn_times_are_in_range(schedule):
    curve = SCHEDULES[schedule]().build()
    first, last = extremes(curve)
    assert last == curve.t_max
    assert (first == 1) if isinstance(curve, DiscreteSchedule) else (0 < first < 1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rounding_takes_no_stratified_time_out_of_range(schedule):
    curve = SCHEDULES[schedule]().build()
    times = with_rand(1 - 2**-53, losses.uniform(curve), 3)
    assert (times > 0).all() and (times <= curve.t_max).all()


def test_a_batch_of_t_stratified_discrete_times_is_every_time_once():
    schedule = Linear(steps=40).build()
    times = losses.uniform(schedule)(40, torch.Generator().manual_seed(0))
    assert times.dtype == torch.float64
    assert times.sort().values.tolist() == list(range(1, 41))
    assert times.tolist() != times.sort().values.tolist()


def test_stratified_continuous_times_fall_one_in_each_part():
    times = losses.uniform(SCHEDULES["ve"]().build())(16, torch.Generator().manual_seed(0))
    assert sorted((times / 80 * 16).ceil().tolist()) == list(range(1, 17))


@pytest.mark.parametrize("stratified", [True, False])
def test_each_images_own_time_is_uniform(stratified):
    draw = losses.uniform(SCHEDULES["flow"]().build(), stratified=stratified)
    generator = torch.Generator().manual_seed(0)
    first = torch.stack([draw(4, generator)[0] for _ in range(4000)])
    counts = torch.histc(first.float(), bins=8, min=0, max=1)
    # 500 expected in each, standard deviation 21.
    assert (counts - 500).abs().max() < 4 * 21


def test_times_without_strata_leave_some_parts_empty():
    draw = losses.uniform(SCHEDULES["flow"]().build(), stratified=False)
    times = draw(64, torch.Generator().manual_seed(0))
    assert len(set((times * 64).ceil().tolist())) < 64


@pairs
def test_gradients_reach_the_network(schedule, target):
    denoiser = denoiser_of(schedule, target)
    loss = DenoisingLoss(losses.uniform(denoiser.schedule), weight=MinSNR())
    draw(loss, denoiser, images()).value.mean().backward()
    for parameter in denoiser.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0


def test_losses_come_an_image_with_float64_levels():
    denoiser = denoiser_of("cosine", "v")
    value, level = draw(
        DenoisingLoss(losses.uniform(denoiser.schedule)), denoiser, images(5).float()
    )
    assert value.shape == level.alpha.shape == level.sigma.shape == (5,)
    assert value.dtype == torch.float32
    assert level.alpha.dtype == level.sigma.dtype == torch.float64
    assert level.snr.log().isfinite().all()


def test_the_same_seed_draws_the_same_loss():
    denoiser = denoiser_of("linear", "eps")
    loss = DenoisingLoss(losses.uniform(denoiser.schedule))
    assert torch.equal(draw(loss, denoiser, images()).value, draw(loss, denoiser, images()).value)


def test_a_perfect_network_has_no_loss():
    x0 = images()

    class Oracle(nn.Module):
        def forward(self, x, label, condition):
            return x0

    schedule = Cosine().build()
    denoiser = Denoiser(Oracle(), schedule, TARGETS["x0"])
    assert draw(DenoisingLoss(losses.uniform(schedule)), denoiser, x0).value.max() == 0


@pytest.mark.parametrize("norm", NORMS)
def test_norms_are_even_elementwise_and_zero_only_at_zero(norm):
    entry = NORMS[norm]
    penalty = entry() if isinstance(entry, type) else entry
    r = torch.linspace(-3, 3, 7)
    value = penalty(r)
    assert value.shape == r.shape
    assert torch.equal(value, penalty(-r))
    assert value[3] == 0 and (value[:3] > 0).all()


def test_norms_are_their_textbook_formulae():
    r = torch.linspace(-4, 4, 41, dtype=torch.float64)
    zero = torch.zeros_like(r)
    functional = nn.functional
    expected = functional.huber_loss(r, zero, reduction="none", delta=1.5)
    torch.testing.assert_close(Huber(1.5)(r), expected)
    torch.testing.assert_close(losses.l1(r), functional.l1_loss(r, zero, reduction="none"))
    torch.testing.assert_close(losses.l2(r), functional.mse_loss(r, zero, reduction="none"))
    torch.testing.assert_close(Mixed(0.25)(r), 0.25 * r.abs() + 0.75 * r**2)


def test_the_norm_given_is_the_norm_used():
    denoiser, t = denoiser_of("linear", "eps"), spread("linear")
    values = {
        name: draw(
            DenoisingLoss(at(t), norm=entry() if isinstance(entry, type) else entry),
            denoiser,
            images(),
        )
        .value.sum()
        .item()
        for name, entry in NORMS.items()
    }
    assert len({round(v, 6) for v in values.values()}) == len(NORMS)
    assert values["mixed"] == pytest.approx((values["l1"] + values["l2"]) / 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MinSNR(0.0), "weight.gamma = 0.0"),
        (lambda: MinSNR(math.nan), "weight.gamma = nan"),
        (lambda: Huber(-1.0), "norm.delta = -1.0"),
        (lambda: Mixed(1.5), "norm.share = 1.5"),
    ],
)
def test_options_out_of_range_are_refused_by_name(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
