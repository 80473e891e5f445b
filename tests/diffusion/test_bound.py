import math

import pytest
import torch
from gaussian import Gaussian, scalar
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from kao.diffusion import SCHEDULES, VE, Cosine, DiscreteSchedule, Flow, Level, Linear, VPCosine
from kao.diffusion.bound import log_likelihood, step_divergence, variational_bound
from kao.diffusion.posterior import posterior_log_variance, posterior_mean

LEVELS = torch.linspace(-1, 1, 256, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def images(batch: int, seed: int = 0) -> Tensor:
    """Pictures of grey levels, among them the two at the ends."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, 256, (batch, 1, 4, 4), generator=generator)
    index[:, :, 0, :2] = torch.tensor([0, 255])
    return LEVELS[index]


def reverse_step(x_t: Tensor, x0: Tensor, share: Tensor, t: Level, s: Level) -> Normal:
    log_variance = posterior_log_variance(t, s, share)
    return Normal(posterior_mean(x_t, x0, t, s), (log_variance / 2).exp())


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("later", "earlier"), [(1.0, 0.999), (0.5, 0.499), (0.02, 0.01)])
def test_the_divergence_is_that_of_the_two_gaussians(schedule, later, earlier):
    curve = SCHEDULES[schedule]().build()
    t, s = curve(scalar(later * curve.t_max)), curve(scalar(earlier * curve.t_max))
    x_t, x0, error, share = random(4, 3, 1, 4, 4)
    model = reverse_step(x_t, x0 + 0.1 * error, share, t, s)
    truth = reverse_step(x_t, x0, torch.zeros_like(x0), t, s)
    divergence = step_divergence(0.1 * error, share, t, s)
    torch.testing.assert_close(divergence, kl_divergence(truth, model), rtol=1e-6, atol=1e-8)


def test_the_likelihood_is_a_gaussians_mass_between_half_levels():
    x0, mean, log_variance = images(3), 0.3 * random(3, 1, 4, 4), random(3, 1, 4, 4, seed=1) - 3
    law = Normal(mean, (log_variance / 2).exp())
    upper = torch.where(x0 == 1, 1.0, law.cdf(x0 + 1 / 255))
    lower = torch.where(x0 == -1, 0.0, law.cdf(x0 - 1 / 255))
    expected = (upper - lower).clamp(min=1e-12).log()
    # The difference of two numbers near 1 is good to about 1e-16 / 1e-12 only.
    torch.testing.assert_close(
        log_likelihood(x0, mean, log_variance), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("mean", [0.0, 0.37, -1.3, 1.0])
@pytest.mark.parametrize("log_variance", [-12.0, -3.0, 2.0])
def test_the_256_likelihoods_sum_to_one(mean, log_variance):
    like = torch.full_like(LEVELS, mean), torch.full_like(LEVELS, log_variance)
    assert log_likelihood(LEVELS, *like).exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_float32_keeps_the_likelihood_of_the_tails():
    x0 = LEVELS[1:-1]
    mean, log_variance = torch.zeros_like(x0), torch.full_like(x0, -3.5)
    exact = log_likelihood(x0, mean, log_variance)
    single = log_likelihood(x0.float(), mean.float(), log_variance.float())
    assert exact.min() < -15
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-5)


def test_the_mean_over_a_chain_is_the_bound_written_out():
    schedule = Cosine(steps=8).build()
    x0, error, share = images(1), 0.05 * random(1, 1, 4, 4), random(1, 1, 4, 4, seed=1) / 2
    x_t = random(1, 1, 4, 4, seed=2)  # which the divergences do not depend on

    nats = torch.zeros_like(x0)
    for i in range(1, 9):
        t, s = schedule(scalar(i)), schedule(scalar(i - 1))
        model = reverse_step(x_t, x0 + error, share, t, s)
        if i > 1:
            nats += kl_divergence(reverse_step(x_t, x0, torch.zeros_like(x0), t, s), model)
        else:
            variance = posterior_log_variance(t, s, share)
            nats -= log_likelihood(x0, x0 + error, variance)

    t = torch.arange(1, 9, dtype=torch.float64)
    every = [z.expand(8, -1, -1, -1) for z in (x0, x0 + error, share)]
    bits = variational_bound(*every, t, schedule)
    assert bits.shape == (8,)
    assert bits.mean().item() == pytest.approx(nats.mean().item() / math.log(2))


def test_a_continuous_schedule_is_a_chain_of_a_thousand_steps():
    schedule = Flow().build()
    x0, error, share = images(1), 0.1 * random(1, 1, 4, 4), random(1, 1, 4, 4, seed=1)
    bits = variational_bound(x0, x0 + error, share, torch.tensor([0.5]).double(), schedule)
    nats = step_divergence(error, share, schedule(scalar(0.5)), schedule(scalar(0.499)))
    assert bits.item() == pytest.approx(1000 * nats.mean().item() / math.log(2), rel=1e-6)


@pytest.mark.parametrize("config", [Flow(), VPCosine(), VE(sigma_max=80.0)], ids=type)
def test_the_mean_over_even_times_is_the_bound_in_closed_form(config):
    # With beta_tilde as variance and one error everywhere, the divergences of a chain add up to
    # the difference of the two ends' snr; the rest is the likelihood of the last step.
    schedule, grey, error, count = config.build(), 100 / 255 * 2 - 1, 0.01, 100_000
    t = (torch.arange(count, dtype=torch.float64) + 0.5) / count * schedule.t_max
    x0 = torch.full((count, 1, 1, 1), grey, dtype=torch.float64)
    bits = variational_bound(x0, x0 + error, 0 * x0, t, schedule)

    length = schedule.t_max / 1000
    first, last = t[(t >= length) & (t < 2 * length)], t[t >= schedule.t_max - length]
    nats = 0.5 * error**2 * (schedule(first).snr.mean() - schedule(last).snr.mean())
    beta = schedule(first).sigma ** 2
    bell = Normal(grey + error, (beta / 2).sqrt())
    mass = bell.cdf(torch.tensor(grey + 1 / 255)) - bell.cdf(torch.tensor(grey - 1 / 255))
    nats = nats - mass.clamp(min=1e-12).log().mean()
    assert bits.mean().item() == pytest.approx(nats.item() / math.log(2), rel=1e-4)


@pytest.mark.parametrize("t", [1.0, 500.0])
def test_the_gradient_goes_to_the_variance_alone(t):
    x0, x0_hat = images(2), images(2, seed=1).requires_grad_()
    share = random(2, 1, 4, 4).requires_grad_()
    times = torch.full((2,), t, dtype=torch.float64)
    variational_bound(x0, x0_hat, share, times, Linear().build()).sum().backward()
    assert x0_hat.grad is None
    assert share.grad.isfinite().all() and share.grad.abs().max() > 0


@pytest.mark.parametrize("t", [3.0, 40.0, 400.0])
def test_the_least_bound_on_gaussian_data_is_at_the_variance_of_its_reverse_step(t):
    # Var(x_s | x_t) = beta_tilde + c^2 Var(x_0 | x_t), by the law of total variance, with c the
    # factor of x_0 in the posterior's mean.
    schedule = Linear().build()
    data = Gaussian(schedule, mean=0.3, std=0.05)
    here, there = schedule(scalar(t)), schedule(scalar(t - 1))
    x0 = data.mean + data.std * random(1, 1, 512, 512)
    x_t = here.alpha * x0 + here.sigma * random(1, 1, 512, 512, seed=1)
    x0_hat = data(x_t, scalar(t)).x0

    one = torch.ones_like(x0[..., :1, :1])
    log_tilde, log_beta = (
        posterior_log_variance(here, there, v * one).squeeze() for v in (0.0, 1.0)
    )
    c = posterior_mean(0 * one, one, here, there).squeeze()
    unknown = data.std**2 * here.sigma**2 / data.law(scalar(t))[1]
    optimum = (log_tilde.exp() + c**2 * unknown).log()
    assert log_tilde < optimum < log_beta

    share = torch.full((), 0.5, dtype=torch.float64, requires_grad=True)
    times = torch.tensor([t], dtype=torch.float64)
    for _ in range(8):  # Newton's method
        bits = variational_bound(x0, x0_hat, share.expand(x0.shape), times, schedule).sum()
        (slope,) = torch.autograd.grad(bits, share, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, share)
        share = (share - slope / curvature).detach().requires_grad_()
    learned = log_tilde + share * (log_beta - log_tilde)
    # The error's sample variance is known to sqrt(2 / 512^2) = 0.3 %.
    assert learned.item() == pytest.approx(optimum.item(), abs=0.01)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("value", [-3.0, 0.0, 1.0, 4.0])
def test_the_bound_is_finite_from_end_to_end_of_the_schedule(schedule, value):
    curve = SCHEDULES[schedule]().build()
    shares = torch.tensor([0.0, 1e-6, 1e-3, 1.9e-3, 2.1e-3, 0.5, 1.0], dtype=torch.float64)
    least = 1.0 if isinstance(curve, DiscreteSchedule) else 1e-14
    t = (shares * curve.t_max).clamp(min=least)
    x0 = images(len(t)).float()
    share = torch.full_like(x0, value).requires_grad_()
    bits = variational_bound(x0, -x0, share, t, curve)
    bits.sum().backward()
    assert bits.isfinite().all() and share.grad.isfinite().all()


def test_a_chain_that_ends_in_pure_noise_has_a_finite_bound():
    curve = DiscreteSchedule(torch.tensor([0.1, 0.5, 1.0]))
    t = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    bits = variational_bound(images(3), 0 * images(3), 0.5 + 0 * images(3), t, curve)
    assert bits.isfinite().all() and (bits > 0).all()


def test_near_the_clean_image_a_step_of_a_continuous_chain_ends_in_it():
    # 0.08 is a step of this chain: from 0.15 the way leads to 0, from 0.17 to 0.09.
    schedule = VE(sigma_max=80.0).build()
    x0, share = images(1), torch.ones_like(images(1))
    last, other = (
        variational_bound(x0, x0, share, torch.tensor([t], dtype=torch.float64), schedule)
        for t in (0.15, 0.17)
    )
    nats = -log_likelihood(x0, x0, torch.full_like(x0, 2 * math.log(0.15))).mean()
    assert last.item() == pytest.approx(1000 / math.log(2) * nats.item())
    nats = step_divergence(0 * x0, share, schedule(scalar(0.17)), schedule(scalar(0.09))).mean()
    assert other.item() == pytest.approx(1000 / math.log(2) * nats.item())
