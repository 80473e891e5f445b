"""The loss by every weight, norm, target and schedule, and what comes back with it."""

import pytest
import torch
from small_losses import (
    PAIRS,
    At,
    Net,
    at,
    denoiser_of,
    draw,
    from_end_to_end,
    gradient,
    images,
    made,
    pairs,
    squared_error_of_x0,
)
from torch import nn

from kao.diffusion.denoiser import Denoiser
from kao.diffusion.losses import DenoisingLoss
from kao.diffusion.norms import NORMS, l1
from kao.diffusion.perceptual import Perceptual
from kao.diffusion.schedules import VE, Cosine, DiscreteSchedule, Linear
from kao.diffusion.targets import EDM, TARGETS
from kao.diffusion.times import TIMES, Uniform
from kao.diffusion.uncertainty import Uncertainty
from kao.diffusion.weights import WEIGHTS, MinSNR

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


@pytest.mark.parametrize(
    ("schedule", "target", "weight"),
    [
        *((*pair, MinSNR(5.0)) for pair in PAIRS),
        ("linear", "v", lambda level: level.snr),
        ("linear", "v", lambda level: torch.ones_like(level.snr)),
    ],
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


@pytest.mark.parametrize(
    ("schedule", "target", "weight"),
    [*((*pair, "min_snr") for pair in PAIRS), *(("linear", "v", weight) for weight in WEIGHTS)],
)
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
    expected = expected.minimum(x0.square().flatten(1).mean(1))
    torch.testing.assert_close(losses.error, expected, rtol=1e-6, atol=1e-9)


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
