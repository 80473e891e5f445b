import math

import pytest
import torch
from torch import Tensor, nn

from kao.diffusion.bound import variational_bound
from kao.diffusion.denoiser import Denoiser
from kao.diffusion.losses import DenoisingLoss, Losses
from kao.diffusion.norms import NORMS, l1
from kao.diffusion.perceptual import Perceptual
from kao.diffusion.schedules import (
    SCHEDULES,
    VE,
    Cosine,
    DiscreteSchedule,
    Flow,
    Linear,
    NoiseSchedule,
)
from kao.diffusion.targets import EDM, TARGETS
from kao.diffusion.times import TIMES, Draw, Times, Uniform
from kao.diffusion.uncertainty import Uncertainty
from kao.diffusion.weights import WEIGHTS, MinSNR
from kao.errors import ConfigError

PURE_NOISE = ("vp_cosine", "flow")
PAIRS = [(s, t) for s in SCHEDULES for t in TARGETS if t != "eps" or s not in PURE_NOISE]
pairs = pytest.mark.parametrize(("schedule", "target"), PAIRS)


class Net(nn.Module):
    """A small fixed network that uses all it is told, and keeps what it saw."""

    def __init__(self, *, channels: int = 1, outputs: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        self.double()

    def forward(self, x, label, condition):
        self.seen = x.detach()
        weight, bias = self.conv.weight.to(x), self.conv.bias.to(x)
        y = nn.functional.conv2d(x, weight, bias, padding=1)
        return y.tanh() + (label / 500).sin().reshape(-1, 1, 1, 1).to(x)


class At(Times):
    """Given times, whatever the generator says."""

    def __init__(self, schedule: NoiseSchedule, t: Tensor, weight: float = 1.0):
        super().__init__(schedule)
        self.t, self.importance = t, weight

    def forward(self, batch: int, generator: torch.Generator) -> Draw:
        return Draw(self.t, torch.full_like(self.t, self.importance))


def made(entry):
    """An entry of a registry with its default options."""
    return entry() if isinstance(entry, type) else entry


def denoiser_of(
    schedule: str, target: str, *, channels: int = 1, learned_variance: bool = False
) -> Denoiser:
    network = Net(channels=channels, outputs=channels * (1 + learned_variance))
    curve, row = SCHEDULES[schedule]().build(), made(TARGETS[target])
    return Denoiser(network, curve, row, learned_variance=learned_variance)


def images(batch: int = 6, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(batch, channels, 4, 4, generator=generator, dtype=torch.float64)
    return x * 2 - 1


def at(denoiser: Denoiser, *shares: float) -> At:
    """Times at these shares of the schedule, or six from 0.1 to 0.9."""
    where = torch.tensor(shares or (0.1, 0.26, 0.42, 0.58, 0.74, 0.9), dtype=torch.float64)
    return At(denoiser.schedule, where * denoiser.schedule.t_max)


def from_end_to_end(denoiser: Denoiser) -> At:
    """The cleanest time that can be drawn, the middle, and the noisiest."""
    last = denoiser.schedule.t_max
    first = 1 if isinstance(denoiser.schedule, DiscreteSchedule) else 2**-53 * last
    return At(denoiser.schedule, torch.tensor([first, last / 2, last], dtype=torch.float64))


def draw(loss: DenoisingLoss, denoiser: Denoiser, x0: Tensor) -> Losses:
    return loss(denoiser, x0, None, torch.Generator().manual_seed(2))


def squared_error_of_x0(denoiser: Denoiser, x0: Tensor, t: Tensor) -> Tensor:
    """|x0_hat - x0|^2 a pixel, on the noise that `draw` makes."""
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2)).to(x0)
    alpha, sigma = denoiser.schedule(t).like(x0)
    prediction = denoiser(alpha * x0 + sigma * eps, t)
    return (prediction.x0 - x0).square().flatten(1).mean(1)


def gradient(loss: DenoisingLoss, denoiser: Denoiser, x0: Tensor) -> Tensor:
    """Of the mean loss, in all of the network's parameters."""
    denoiser.zero_grad()
    draw(loss, denoiser, x0).value.mean().backward()
    return torch.cat([p.grad.flatten() for p in denoiser.parameters()])


# The plain loss


@pairs
def test_the_default_loss_is_the_mean_square_and_draws_what_the_formula_draws(schedule, target):
    denoiser, x0 = denoiser_of(schedule, target), images().float()
    curve = denoiser.schedule
    generator = torch.Generator().manual_seed(2)
    u = torch.rand(6, generator=generator, dtype=torch.float64)
    u = (torch.randperm(6, generator=generator) + u) / 6
    t = 1 + (u * curve.t_max).floor()
    if not isinstance(curve, DiscreteSchedule):
        t = curve.t_max * (1 - u)
    eps = torch.randn(x0.shape, generator=generator)
    level = curve(t).like(x0)
    a, b = denoiser.target(level)
    y = denoiser.network(level.alpha * x0 + level.sigma * eps, curve.label(t).float(), None)
    expected = ((y - (a * x0 + b * eps)) ** 2).flatten(1).mean(1)

    after = torch.Generator().manual_seed(2)
    losses = DenoisingLoss(Uniform().build(curve))(denoiser, x0, None, after)
    assert torch.equal(losses.value, expected) and torch.equal(losses.t, t)
    assert torch.equal(after.get_state(), generator.get_state())


@pairs
@pytest.mark.parametrize(
    "weight", [lambda level: level.snr, lambda level: torch.ones_like(level.snr), MinSNR(5.0)]
)
def test_a_weight_is_what_the_squared_error_of_x0_is_multiplied_by(schedule, target, weight):
    denoiser, x0 = denoiser_of(schedule, target), images()
    losses = draw(DenoisingLoss(at(denoiser), weight=weight), denoiser, x0)
    expected = weight(losses.level) * squared_error_of_x0(denoiser, x0, losses.t)
    torch.testing.assert_close(losses.value, expected, rtol=1e-9, atol=0)


def test_the_weight_natural_to_a_target_changes_nothing():
    denoiser, x0 = denoiser_of("linear", "v"), images()
    plain = draw(DenoisingLoss(at(denoiser)), denoiser, x0)
    weighted = draw(DenoisingLoss(at(denoiser), weight=lambda level: level.snr + 1), denoiser, x0)
    torch.testing.assert_close(plain.value, weighted.value)


def test_plain_mse_on_f_is_the_loss_of_the_edm_paper():
    # Karras et al. (2022), eq. 2 and table 1, written out.
    sigma_data, x0 = 0.5, images()
    network = Net()
    schedule = VE().build()
    denoiser = Denoiser(network, schedule, EDM(sigma_data), sigma_data=sigma_data)
    sigma = torch.tensor([0.002, 0.05, 0.5, 1.0, 7.0, 80.0], dtype=torch.float64)
    value = draw(DenoisingLoss(At(schedule, sigma)), denoiser, x0).value

    n = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2)).to(x0)
    s = sigma.reshape(-1, 1, 1, 1)
    total = s**2 + sigma_data**2
    c_skip, c_out, c_in = sigma_data**2 / total, s * sigma_data / total.sqrt(), 1 / total.sqrt()
    x = x0 + s * n
    f = network(c_in * x, (1000 * sigma.log() / 4).float(), None)
    d = c_skip * x + c_out * f
    expected = (total / (s * sigma_data) ** 2 * (d - x0) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)


@pairs
@pytest.mark.parametrize("weight", WEIGHTS)
def test_losses_and_gradients_are_finite_to_both_ends_of_the_schedule(schedule, target, weight):
    denoiser, x0 = denoiser_of(schedule, target), images(3).float()
    for norm in NORMS.values():
        loss = DenoisingLoss(
            from_end_to_end(denoiser), weight=made(WEIGHTS[weight]), norm=made(norm)
        )
        losses = draw(loss, denoiser, x0)
        assert losses.value.isfinite().all() and (losses.value >= 0).all()
        assert losses.error.isfinite().all()
        slope = gradient(loss, denoiser, x0)
        assert slope.isfinite().all() and (slope != 0).all()


@pytest.mark.parametrize("config", [Linear(zero_terminal_snr=True), Cosine(zero_terminal_snr=True)])
@pytest.mark.parametrize("target", [name for name in TARGETS if name != "eps"])
def test_a_table_that_ends_in_pure_noise_has_finite_losses(config, target):
    network = Net(outputs=2)
    denoiser = Denoiser(network, config.build(), made(TARGETS[target]), learned_variance=True)
    assert from_end_to_end(denoiser).schedule(from_end_to_end(denoiser).t).alpha[-1] == 0
    for weight in WEIGHTS.values():
        loss = DenoisingLoss(
            from_end_to_end(denoiser),
            weight=made(weight),
            bound=0.001,
            uncertainty=Uncertainty(),
            perceptual=Perceptual(lambda x: x.flatten(1), weight=1.0, below=1.0),
        )
        losses = draw(loss, denoiser, images(3).float())
        assert losses.value.isfinite().all() and losses.error.isfinite().all()
        assert gradient(loss, denoiser, images(3).float()).isfinite().all()


@pytest.mark.parametrize("times", TIMES)
def test_every_draw_of_times_makes_a_loss(times):
    denoiser = denoiser_of("cosine", "v")
    drawn = TIMES[times]().build(denoiser.schedule)
    losses = draw(DenoisingLoss(drawn), denoiser, images())
    assert torch.equal(losses.t, drawn(6, torch.Generator().manual_seed(2)).t)
    assert losses.value.isfinite().all()


def test_the_norm_given_is_the_norm_used():
    denoiser = denoiser_of("linear", "eps")
    values = {
        name: draw(DenoisingLoss(at(denoiser), norm=made(entry)), denoiser, images()).value.sum()
        for name, entry in NORMS.items()
    }
    assert len({round(v.item(), 6) for v in values.values()}) == len(NORMS)
    torch.testing.assert_close(values["mixed"], (values["l1"] + values["l2"]) / 2)


def test_a_perfect_network_has_no_loss():
    x0 = images()

    class Oracle(nn.Module):
        def forward(self, x, label, condition):
            return x0

    schedule = Cosine().build()
    denoiser = Denoiser(Oracle(), schedule, TARGETS["x0"])
    losses = draw(DenoisingLoss(Uniform().build(schedule)), denoiser, x0)
    assert losses.value.max() == 0 and losses.error.max() == 0


def test_the_same_seed_draws_the_same_loss():
    denoiser = denoiser_of("linear", "eps")
    loss = DenoisingLoss(
        Uniform().build(denoiser.schedule), offset_noise=0.1, input_perturbation=0.1
    )
    assert torch.equal(draw(loss, denoiser, images()).value, draw(loss, denoiser, images()).value)


# What comes back


def test_losses_come_an_image_with_float64_levels_and_times():
    denoiser = denoiser_of("cosine", "v")
    losses = draw(DenoisingLoss(Uniform().build(denoiser.schedule)), denoiser, images(5).float())
    assert {field.shape for field in (*losses.level, *losses[2:], losses.value)} == {(5,)}
    assert losses.value.dtype == losses.shown.dtype == losses.error.dtype == torch.float32
    assert losses.level.alpha.dtype == losses.level.sigma.dtype == losses.t.dtype == torch.float64
    assert losses.value.requires_grad
    assert not losses.shown.requires_grad and not losses.error.requires_grad


@pairs
def test_the_error_is_that_of_the_predicted_image(schedule, target):
    denoiser, x0 = denoiser_of(schedule, target), images()
    losses = draw(DenoisingLoss(at(denoiser), norm=l1, weight=MinSNR()), denoiser, x0)
    expected = squared_error_of_x0(denoiser, x0, losses.t)
    torch.testing.assert_close(losses.error, expected, rtol=1e-9, atol=0)


def test_the_weight_of_a_drawn_time_multiplies_the_loss_but_not_what_is_shown():
    denoiser, x0 = denoiser_of("linear", "v"), images()
    once = at(denoiser)
    plain = draw(DenoisingLoss(once), denoiser, x0)
    thrice = draw(DenoisingLoss(At(denoiser.schedule, once.t, 3.0)), denoiser, x0)
    torch.testing.assert_close(thrice.value, 3 * plain.value)
    assert torch.equal(thrice.shown, plain.value) and torch.equal(thrice.error, plain.error)


def test_what_is_shown_is_the_weighted_norm_whatever_is_added():
    denoiser = denoiser_of("cosine", "v", learned_variance=True)
    uncertainty = Uncertainty()
    nn.init.ones_(uncertainty.offset)
    loss = DenoisingLoss(
        At(denoiser.schedule, at(denoiser).t, 2.0),
        weight=MinSNR(),
        bound=0.1,
        uncertainty=uncertainty,
        perceptual=Perceptual(lambda x: x.flatten(1), weight=1.0, below=100.0),
    )
    bare = denoiser_of("cosine", "v")
    bare.network.conv.weight.data = denoiser.network.conv.weight.data[:1]
    bare.network.conv.bias.data = denoiser.network.conv.bias.data[:1]
    plain = draw(DenoisingLoss(at(bare), weight=MinSNR()), bare, images())
    losses = draw(loss, denoiser, images())
    torch.testing.assert_close(losses.shown, plain.value.detach())
    assert (losses.value != losses.shown).all()


# Options


def test_offset_noise_shifts_each_channel_of_each_image_and_is_asked_for():
    # The network is told the sum of both noises and should return it: so with y = eps the offset
    # is in the residual too.
    denoiser, x0 = denoiser_of("ve", "eps", channels=2), images(channels=2)
    plain = draw(DenoisingLoss(at(denoiser)), denoiser, x0)
    without, y = denoiser.network.seen, denoiser.output(denoiser.network.seen, plain.t)
    draw(DenoisingLoss(at(denoiser), offset_noise=0.5), denoiser, x0)
    seen = denoiser.network.seen
    shift = (seen - without) / plain.level.like(x0).sigma
    torch.testing.assert_close(shift, shift[:, :, :1, :1].expand(x0.shape))
    assert len(set(shift[:, :, 0, 0].flatten().tolist())) == 12

    generator = torch.Generator().manual_seed(2)
    eps = torch.randn(x0.shape, generator=generator).to(x0)
    offset = 0.5 * torch.randn(6, 2, 1, 1, generator=generator).to(x0)
    torch.testing.assert_close(shift, offset.expand(x0.shape), rtol=1e-6, atol=1e-9)

    class Told(nn.Module):
        def forward(self, x, label, condition):
            return y

    told = Denoiser(Told(), denoiser.schedule, TARGETS["eps"])
    value = draw(DenoisingLoss(at(told), offset_noise=0.5), told, x0).value
    torch.testing.assert_close(value, (y - eps - offset).square().flatten(1).mean(1))


def test_input_perturbation_is_seen_and_not_asked_for():
    denoiser, x0 = denoiser_of("linear", "eps"), images()
    plain = draw(DenoisingLoss(at(denoiser)), denoiser, x0)
    without = denoiser.network.seen
    loss = DenoisingLoss(at(denoiser), input_perturbation=0.1)
    draw(loss, denoiser, x0)
    generator = torch.Generator().manual_seed(2)
    torch.randn(x0.shape, generator=generator)
    xi = torch.randn(x0.shape, generator=generator).to(x0)
    added = denoiser.network.seen - without
    torch.testing.assert_close(added, 0.1 * plain.level.like(x0).sigma * xi)

    class Silent(nn.Module):
        def forward(self, x, label, condition):
            return torch.zeros_like(x)

    silent = Denoiser(Silent(), denoiser.schedule, TARGETS["eps"])
    plain = draw(DenoisingLoss(at(denoiser)), silent, x0)
    assert torch.equal(draw(loss, silent, x0).value, plain.value)


OPTIONS = {
    "weight": {"weight": MinSNR()},
    "norm": {"norm": l1},
    "offset_noise": {"offset_noise": 0.1},
    "input_perturbation": {"input_perturbation": 0.1},
    "perceptual": {"perceptual": Perceptual(lambda x: x.flatten(1), weight=1.0, below=1.0)},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_the_loss_and_its_gradient(option):
    denoiser, x0 = denoiser_of("linear", "v"), images()
    plain, other = DenoisingLoss(at(denoiser)), DenoisingLoss(at(denoiser), **OPTIONS[option])
    assert not torch.equal(draw(plain, denoiser, x0).value, draw(other, denoiser, x0).value)
    assert not torch.allclose(gradient(plain, denoiser, x0), gradient(other, denoiser, x0))


def test_an_uncertainty_starts_as_the_plain_loss_and_has_a_gradient_of_its_own():
    denoiser, x0 = denoiser_of("linear", "v"), images()
    plain = DenoisingLoss(at(denoiser))
    loss = DenoisingLoss(at(denoiser), uncertainty=Uncertainty())
    assert torch.equal(draw(plain, denoiser, x0).value, draw(loss, denoiser, x0).value)
    torch.testing.assert_close(gradient(plain, denoiser, x0), gradient(loss, denoiser, x0))
    assert len(list(loss.parameters())) == 2
    for parameter in loss.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0


def test_an_uncertainty_divides_by_what_it_expects_and_pays_for_expecting_it():
    denoiser, x0 = denoiser_of("linear", "v"), images()
    uncertainty = Uncertainty()
    nn.init.constant_(uncertainty.offset, math.log(4.0))
    losses = draw(DenoisingLoss(at(denoiser), uncertainty=uncertainty), denoiser, x0)
    torch.testing.assert_close(losses.value, losses.shown / 4 + math.log(4.0))


def test_a_perceptual_gradient_flows_through_the_predicted_image_to_the_network():
    # All that is left of the loss is the perceptual term: were the prediction detached, nothing
    # would reach the network.
    denoiser, x0 = denoiser_of("linear", "v"), images()
    features = nn.Linear(16, 3).double()
    flat = nn.Sequential(nn.Flatten(), features, nn.Tanh())
    perceptual = Perceptual(flat, weight=2.0, below=2.0)
    loss = DenoisingLoss(at(denoiser), norm=lambda r: 0 * r, perceptual=perceptual)
    assert gradient(loss, denoiser, x0).abs().max() > 0
    assert all(p.grad is None for p in features.parameters())

    losses = draw(loss, denoiser, x0)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2)).to(x0)
    alpha, sigma = losses.level.like(x0)
    x0_hat = denoiser(alpha * x0 + sigma * eps, losses.t).x0
    distance = (flat(x0_hat) - flat(x0)).square().sum(1)
    expected = torch.where(losses.level.snr > 0.25, 2 * distance, 0.0)
    torch.testing.assert_close(losses.value, expected)
    assert 0 < (expected > 0).sum() < 6


def test_the_numbers_of_the_features_are_neither_trained_nor_saved_nor_woken():
    denoiser = denoiser_of("linear", "v")
    features = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Dropout()).double()
    loss = DenoisingLoss(
        Uniform().build(denoiser.schedule),
        perceptual=Perceptual(features, weight=1.0, below=1.0),
    )
    assert list(loss.parameters()) == [] and loss.state_dict() == {}
    loss.train()
    assert not features.training


def test_what_a_loss_learns_is_in_its_state():
    schedule = Linear().build()
    loss = DenoisingLoss(TIMES["warped"]().build(schedule), uncertainty=Uncertainty(seed=1))
    other = DenoisingLoss(TIMES["warped"]().build(schedule), uncertainty=Uncertainty(seed=2))
    t, error = torch.full((4,), 100.0).double(), torch.full((4,), 0.5).double()
    loss.times.update(t, error, error)
    nn.init.ones_(loss.uncertainty.slope)
    other.load_state_dict(loss.state_dict())
    level = schedule(t)
    assert torch.equal(loss.uncertainty(level), other.uncertainty(level))
    saved, loaded = loss.times.state_dict(), other.times.state_dict()
    assert saved and all(torch.equal(saved[name], loaded[name]) for name in saved)


# The variational bound


def test_the_bound_is_added_with_its_weight():
    denoiser, x0 = denoiser_of("linear", "v", learned_variance=True), images()
    losses = draw(DenoisingLoss(at(denoiser), bound=0.01), denoiser, x0)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2)).to(x0)
    alpha, sigma = losses.level.like(x0)
    prediction = denoiser(alpha * x0 + sigma * eps, losses.t)
    bits = variational_bound(x0, prediction.x0, prediction.variance, losses.t, denoiser.schedule)
    torch.testing.assert_close(losses.value, losses.shown + 0.01 * bits)


def test_the_bound_teaches_only_the_second_half_of_the_channels():
    denoiser, x0 = denoiser_of("linear", "v", learned_variance=True), images()
    draw(DenoisingLoss(at(denoiser), bound=1.0), denoiser, x0).value.mean().backward()
    hybrid = denoiser.network.conv.weight.grad.clone()
    denoiser.zero_grad()
    silent = DenoisingLoss(at(denoiser), norm=lambda r: 0 * r, bound=1.0)
    draw(silent, denoiser, x0).value.mean().backward()
    bound = denoiser.network.conv.weight.grad
    assert bound[0].abs().max() == 0 and bound[1].abs().max() > 0
    torch.testing.assert_close(hybrid[1], bound[1])
    assert hybrid[0].abs().max() > 0


@pairs
def test_a_loss_with_a_bound_is_finite_with_its_gradient(schedule, target):
    denoiser, x0 = denoiser_of(schedule, target, learned_variance=True), images(3).float()
    loss = DenoisingLoss(from_end_to_end(denoiser), bound=0.001)
    assert draw(loss, denoiser, x0).value.isfinite().all()
    assert gradient(loss, denoiser, x0).isfinite().all()


def test_a_bound_without_a_learned_variance_is_refused():
    denoiser = denoiser_of("linear", "v")
    with pytest.raises(ConfigError, match=r"loss\.bound = 0\.001.* no learned variance"):
        draw(DenoisingLoss(at(denoiser), bound=0.001), denoiser, images())


def test_a_learned_variance_without_a_bound_is_refused():
    denoiser = denoiser_of("linear", "v", learned_variance=True)
    with pytest.raises(ConfigError, match=r"loss\.bound = 0 would never teach it"):
        draw(DenoisingLoss(at(denoiser)), denoiser, images())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("offset_noise", "input_perturbation", "bound")
        for value in (-0.1, math.nan, math.inf, -math.inf)
    ],
)
def test_options_out_of_range_are_refused_by_name(name, value):
    times = Uniform().build(Flow().build())
    with pytest.raises(ConfigError, match=rf"loss\.{name} = {value}"):
        DenoisingLoss(times, **{name: value})


def test_under_autocast_the_network_alone_computes_in_16_bits():
    class Halved(nn.Module):
        def forward(self, x, label, condition):
            self.dtype = nn.functional.conv2d(x, torch.ones(1, 1, 1, 1)).dtype
            return 0 * x

    denoiser = Denoiser(network := Halved(), Linear().build(), TARGETS["eps"])
    loss = DenoisingLoss(
        at(denoiser),
        uncertainty=Uncertainty(),
        perceptual=Perceptual(lambda x: x.flatten(1) @ torch.ones(16, 2), weight=1.0, below=9.0),
    )
    plain = draw(loss, denoiser, images().float())
    with torch.autocast("cpu", torch.bfloat16):
        cast = draw(loss, denoiser, images().float())
    assert network.dtype == torch.bfloat16
    assert cast.value.dtype == torch.float32 and torch.equal(cast.value, plain.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
def test_every_option_gives_the_same_loss_on_the_gpu():
    values = []
    for place in ("cpu", "cuda"):
        denoiser = denoiser_of("cosine", "v", learned_variance=True).to(place)
        features = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False))
        nn.init.ones_(features[1].weight)
        loss = DenoisingLoss(
            Uniform().build(denoiser.schedule),
            weight=MinSNR(),
            offset_noise=0.1,
            input_perturbation=0.1,
            bound=0.001,
            uncertainty=Uncertainty(),
            perceptual=Perceptual(features, weight=1.0, below=1.0),
        ).to(place)
        losses = draw(loss, denoiser, images().float().to(place))
        losses.value.mean().backward()
        values.append(losses.value.cpu())
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)
