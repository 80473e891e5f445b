"""What can be added to the loss: each option does what it says and nothing else."""

import math

import pytest
import torch
from small_losses import at, denoiser_of, draw, from_end_to_end, gradient, images, pairs
from torch import nn

from kao.diffusion.bound import variational_bound
from kao.diffusion.denoiser import Denoiser
from kao.diffusion.losses import DenoisingLoss
from kao.diffusion.norms import l1
from kao.diffusion.perceptual import Perceptual
from kao.diffusion.schedules import Flow, Linear
from kao.diffusion.targets import TARGETS
from kao.diffusion.times import TIMES, Uniform
from kao.diffusion.uncertainty import Uncertainty
from kao.diffusion.weights import MinSNR
from kao.errors import ConfigError

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
