"""Closed forms: what is known of (x_0, eps) does not depend on how a network is asked."""

import pytest
import torch
from torch import nn

from kao.diffusion import (
    EDM,
    VE,
    Cosine,
    Denoiser,
    DenoisingLoss,
    Drawn,
    Flow,
    Linear,
    Native,
    Uniform,
    VPCosine,
    targets,
)
from kao.errors import ConfigError

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


def test_the_loss_on_the_new_target_is_that_of_the_base_by_the_two_by_two_matrix():
    """|y_v - v|^2 = |eps_hat - eps|^2 / alpha^2 on the unit circle, at the same level."""
    network, schedule = Smooth(), Linear().build()
    base = Denoiser(network, schedule, targets.eps)
    tuned = Denoiser(network, schedule, targets.v, native=Native(schedule, targets.eps))
    t = torch.tensor([3.0, 200.0, 500.0, 990.0], dtype=torch.float64)
    eps = pictures(1)
    drawn = Drawn(t, torch.ones_like(t), eps, eps)
    loss = DenoisingLoss(times=Uniform().build(schedule))
    x0 = pictures(2)
    before, after = (loss.at(denoiser, x0, None, drawn) for denoiser in (base, tuned))
    alpha = schedule(t).alpha
    torch.testing.assert_close(after.value, before.value / alpha**2, rtol=1e-8, atol=0.0)
    torch.testing.assert_close(after.error, before.error, rtol=1e-8, atol=0.0)
    (gradient,) = torch.autograd.grad(after.value.sum(), network.gain)
    (expected,) = torch.autograd.grad((before.value / alpha**2).sum(), network.gain)
    torch.testing.assert_close(gradient, expected)


def test_a_network_that_could_not_be_asked_is_refused():
    with pytest.raises(ConfigError, match="pure noise"):
        Denoiser(Smooth(), Linear().build(), targets.v, native=Native(Flow().build(), targets.eps))


def test_a_label_beside_the_networks_own_is_refused():
    native = Native(Linear().build(), targets.eps)
    with pytest.raises(ConfigError, match="leave out label, or native"):
        Denoiser(Smooth(), Linear().build(), targets.v, label=lambda t: t, native=native)
