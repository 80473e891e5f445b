"""Closed forms: what is known of (x_0, eps) does not depend on how a network is asked."""

import pytest
import torch
from gaussian import Gaussian
from torch import nn

from kao.diffusion import (
    DDIM,
    EDM,
    VE,
    Clip,
    Cosine,
    Denoiser,
    DenoisingLoss,
    Drawn,
    Flow,
    Linear,
    MinSNR,
    Native,
    Uniform,
    VPCosine,
    grids,
    norms,
    targets,
    trajectory,
)
from kao.errors import ConfigError

CLEAN = torch.tensor(2.0**-1000, dtype=torch.float64)
VP_ZERO = Linear(zero_terminal_snr=True)


class Smooth(nn.Module):
    """A function of all that it is shown; with twice the outputs it says a variance, too."""

    def __init__(self, outputs: int = 3):
        super().__init__()
        self.outputs = outputs
        self.gain = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, x, label, condition):
        self.seen = x, label
        y = (self.gain * x).tanh() + (label / 300).sin().reshape(-1, 1, 1, 1).to(x)
        return y if self.outputs == 3 else torch.cat([y, y * y - 0.5], dim=1)


def pictures(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 4, 4, generator=generator, dtype=torch.float64)


PAIRS = {
    "eps to v": (Linear(), targets.eps, Linear(), targets.v, None),
    "eps to velocity": (Linear(), targets.eps, Flow(), targets.velocity, None),
    "linear to cosine": (Linear(), targets.eps, Cosine(), targets.eps, None),
    "linear to vp_cosine": (Linear(), targets.eps, VPCosine(), targets.v, None),
    "vp to ve": (VPCosine(), targets.v, VE(), EDM(), None),
    "edm to flow": (VE(), EDM(), Flow(), targets.velocity, 0.5),
    "x0 to eps": (Cosine(), targets.x0, Linear(), targets.eps, None),
    "to itself": (Linear(), targets.eps, Linear(), targets.eps, None),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_network_predicts_what_it_did_at_equal_snr(name):
    there, said, here, wanted, sigma_data = PAIRS[name]
    network = Smooth()
    base = Denoiser(network, there.build(), said, sigma_data=sigma_data)
    native = Native(there.build(), said)
    tuned = Denoiser(network, here.build(), wanted, sigma_data=sigma_data, native=native)
    t_there = base.schedule.t_max * torch.tensor([0.05, 0.31, 0.62, 0.9], dtype=torch.float64)
    level = base.schedule(t_there)
    t_here = tuned.schedule.time_at(level.snr.log())
    ratio = (tuned.schedule(t_here).alpha / level.alpha).reshape(-1, 1, 1, 1)
    x = pictures()

    before = base(x, t_there)
    told = network.seen
    after = tuned(ratio * x, t_here)
    torch.testing.assert_close(after.x0, before.x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after.eps, before.eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.seen[0], told[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.seen[1], told[1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("target", [targets.v, targets.velocity, targets.x0])
def test_where_no_signal_is_left_the_prediction_is_that_of_the_noisiest_level_it_knows(target):
    network, base = Smooth(), Linear().build()
    schedule = VP_ZERO.build()
    tuned = Denoiser(network, schedule, target, native=Native(base, targets.eps))
    end = torch.tensor(float(schedule.t_max), dtype=torch.float64)
    assert schedule(end).alpha == 0
    x = pictures()
    found = tuned(x, end)
    assert network.seen[1].tolist() == [999.0] * 4
    last = base(torch.tensor(1000.0, dtype=torch.float64))
    x0 = (x - last.sigma * network(x, network.seen[1], None)) / last.alpha
    torch.testing.assert_close(found.x0, x0, rtol=1e-9, atol=1e-9)
    assert found.eps.isfinite().all() and x0.isfinite().all()


@pytest.mark.parametrize(
    ("there", "said", "label"),
    [
        (VE(), EDM(), 250 * torch.tensor(0.002).log().item()),
        (VPCosine(), targets.v, 0.025),
        (Linear(), targets.eps, 0.0),
    ],
    ids=["ve", "vp_cosine", "linear"],
)
@pytest.mark.parametrize("share", [1e-5, 1e-9, 2.0**-53, 0.0])
def test_close_to_the_clean_picture_it_is_told_of_the_cleanest_level_it_knows(
    there, said, label, share
):
    network = Smooth()
    native = Native(there.build(), said)
    tuned = Denoiser(network, Flow().build(), targets.velocity, native=native, sigma_data=0.5)
    x = pictures()
    found = tuned(x, torch.tensor(share, dtype=torch.float64) if share else CLEAN)
    assert network.seen[1].tolist() == pytest.approx([label] * 4, rel=1e-6)
    assert found.x0.isfinite().all()
    assert (found.x0 - x).abs().max() < 1e-3


def test_between_a_tables_first_level_and_the_clean_picture_it_is_told_of_the_first():
    network = Smooth()
    tuned = Denoiser(
        network, VPCosine().build(), targets.v, native=Native(Linear().build(), targets.eps)
    )
    tuned(pictures(), torch.tensor(1e-4, dtype=torch.float64))
    assert network.seen[1].tolist() == [0.0] * 4


def test_a_learned_variance_passes_through():
    network = Smooth(outputs=6)
    native = Native(Linear().build(), targets.eps)
    tuned = Denoiser(network, Cosine().build(), targets.v, learned_variance=True, native=native)
    x, t = pictures(), torch.tensor(400.0, dtype=torch.float64)
    variance = tuned(x, t).variance
    own = network(*network.seen, None)[:, 3:]
    torch.testing.assert_close(variance, (own + 1) / 2)


def losses_of(denoiser, times, *, loss=None, dtype=torch.float64, beyond=0.1):
    """On the same pictures and noise, of which the network sees a little more than is asked for."""
    loss = loss or DenoisingLoss(Uniform().build(denoiser.schedule))
    eps = pictures(1).to(dtype)
    drawn = Drawn(times, torch.ones_like(times), eps, eps + beyond * pictures(3).to(dtype))
    losses = loss.at(denoiser, pictures(2).to(dtype), None, drawn)
    (gradient,) = torch.autograd.grad(losses.value.sum(), denoiser.network.gain)
    return losses, gradient


@pytest.mark.parametrize("norm", [norms.l2, norms.l1, norms.Huber()], ids=["l2", "l1", "huber"])
@pytest.mark.parametrize("name", PAIRS)
def test_the_plain_loss_and_its_gradient_are_those_of_the_base_at_equal_snr(name, norm):
    there, said, here, wanted, sigma_data = PAIRS[name]
    network, native = Smooth(), Native(there.build(), said)
    base = Denoiser(network, native.schedule, said, sigma_data=sigma_data)
    tuned = Denoiser(network, here.build(), wanted, sigma_data=sigma_data, native=native)
    t_there = base.schedule.t_max * torch.tensor([0.003, 0.2, 0.62, 0.99], dtype=torch.float64)
    t_here = tuned.schedule.time_at(base.schedule(t_there).snr.log())
    loss = DenoisingLoss(Uniform().build(tuned.schedule), norm=norm)
    before, slope = losses_of(base, t_there, loss=loss)
    after, other = losses_of(tuned, t_here, loss=loss)
    torch.testing.assert_close(after.value, before.value, rtol=1e-8, atol=0.0)
    torch.testing.assert_close(after.error, before.error, rtol=1e-8, atol=0.0)
    torch.testing.assert_close(other, slope, rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("here", [VP_ZERO, VPCosine(), Flow()], ids=["table", "cosine", "flow"])
def test_an_eps_base_keeps_the_order_of_its_plain_loss_to_pure_noise(here, dtype):
    network, native = Smooth(), Native(Linear().build(), targets.eps)
    base = Denoiser(network, native.schedule, targets.eps)
    wanted = targets.velocity if here == Flow() else targets.v
    tuned = Denoiser(network, here.build(), wanted, native=native)
    last = tuned.schedule.t_max
    times = last * torch.tensor([0.99, 0.999, 1.0, 1.0], dtype=torch.float64)
    before, slope = losses_of(base, torch.full((4,), 1000.0, dtype=torch.float64))
    after, other = losses_of(tuned, times, dtype=dtype)
    assert 0.8 < (after.value / before.value).min() and (after.value / before.value).max() < 1.25
    assert 0.8 < other / slope < 1.25


def test_next_to_the_clean_picture_losses_stay_finite():
    for there, said in ((Linear(), targets.eps), (VE(), EDM()), (Flow(), targets.velocity)):
        native = Native(there.build(), said)
        tuned = Denoiser(Smooth(), VPCosine().build(), targets.v, native=native, sigma_data=0.5)
        times = torch.tensor([2.0**-53, 1e-12, 1e-9, 1e-6], dtype=torch.float64)
        losses, slope = losses_of(tuned, times, dtype=torch.float32)
        assert losses.value.isfinite().all() and losses.value.max() < 100 and slope.isfinite()


def test_a_weight_by_name_counts_the_error_of_x0_as_without_a_native():
    network, schedule = Smooth(), Linear().build()
    base = Denoiser(network, schedule, targets.eps)
    tuned = Denoiser(network, schedule, targets.v, native=Native(schedule, targets.eps))
    loss = DenoisingLoss(Uniform().build(schedule), weight=MinSNR())
    times = torch.tensor([3.0, 200.0, 500.0, 990.0], dtype=torch.float64)
    (before, slope), (after, other) = (
        losses_of(denoiser, times, loss=loss, beyond=0) for denoiser in (base, tuned)
    )
    torch.testing.assert_close(after.value, before.value, rtol=1e-8, atol=0.0)
    torch.testing.assert_close(other, slope, rtol=1e-8, atol=0.0)


def test_the_natural_weight_is_that_of_the_networks_own_words():
    native = Native(Linear().build(), targets.eps)
    tuned = Denoiser(Smooth(), VPCosine().build(), targets.v, native=native)
    level = tuned.schedule(torch.tensor([0.2, 0.9, 1.0], dtype=torch.float64))
    least = native.schedule(torch.tensor(1000.0, dtype=torch.float64)).snr
    expected = level.snr.clamp(min=least)  # of eps; past its noisiest level it stays
    torch.testing.assert_close(tuned.natural_weight(level), expected, rtol=1e-9, atol=0.0)
    plain = Denoiser(Smooth(), VPCosine().build(), targets.v)
    torch.testing.assert_close(plain.natural_weight(level), level.snr + 1)


class InSixteenBits(nn.Module):
    """The exact eps of Gaussian data on a chain, rounded."""

    def __init__(self, schedule):
        super().__init__()
        self.data = Gaussian(schedule)

    def forward(self, x, label, condition):
        eps = self.data(x, label.double()[0] + 1).eps
        return eps.to(torch.bfloat16).to(x)


def test_a_threshold_takes_away_what_rounded_eps_does_near_pure_noise():
    base, schedule = Cosine().build(), VPCosine().build()
    native = Native(base, targets.eps)
    rounded = Denoiser(InSixteenBits(base), schedule, targets.v, native=native)
    end = torch.tensor(1.0, dtype=torch.float64)
    noise, times = pictures(4), grids.uniform(schedule, 25)
    assert (rounded(noise, end).x0 - 0.3).abs().max() > 20  # of which the mean is 0.3
    drawn = {}
    for name, denoise in {"exact": Gaussian(schedule), "rounded": rounded}.items():
        *_, drawn[name] = trajectory(Clip()(denoise), DDIM(), noise, times, noise=None)
    assert (drawn["rounded"] - drawn["exact"]).abs().mean() < 0.05


def test_a_network_that_could_not_be_asked_is_refused():
    with pytest.raises(ConfigError, match="pure noise"):
        Denoiser(Smooth(), Linear().build(), targets.v, native=Native(Flow().build(), targets.eps))


def test_a_label_beside_the_networks_own_is_refused():
    native = Native(Linear().build(), targets.eps)
    with pytest.raises(ConfigError, match="leave out label, or native"):
        Denoiser(Smooth(), Linear().build(), targets.v, label=lambda t: t, native=native)
