import math

import pytest
import torch
from gaussian import scalar

from kao.diffusion import SCHEDULES, Cosine, Flow, Level, Linear
from kao.diffusion.posterior import forward_variance, posterior_log_variance, posterior_mean

schedules = pytest.mark.parametrize("schedule", SCHEDULES)


def levels(schedule: str, later: float = 0.6, earlier: float = 0.4) -> tuple[Level, Level]:
    curve = SCHEDULES[schedule]().build()
    return curve(scalar(later * curve.t_max)), curve(scalar(earlier * curve.t_max))


@schedules
def test_the_posterior_is_the_product_of_the_two_gaussians_it_comes_from(schedule):
    # q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0): precisions add.
    t, s = levels(schedule)
    x_t, x0 = torch.randn(
        2, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    ratio, beta = t.alpha / s.alpha, forward_variance(t, s)
    precision = ratio**2 / beta + 1 / s.sigma**2
    mean = (ratio / beta * x_t + s.alpha / s.sigma**2 * x0) / precision
    torch.testing.assert_close(posterior_mean(x_t, x0, t, s), mean)
    log_variance = posterior_log_variance(t, s, torch.zeros_like(x0))
    torch.testing.assert_close(log_variance, torch.full_like(x0, -precision.log().item()))


@schedules
def test_a_share_of_one_is_the_forward_variance(schedule):
    t, s = levels(schedule)
    log_variance = posterior_log_variance(t, s, torch.ones(1, 1, 2, 2, dtype=torch.float64))
    expected = forward_variance(t, s).log()
    torch.testing.assert_close(log_variance, expected.expand(1, 1, 2, 2))


def test_the_logarithm_is_linear_in_the_share():
    t, s = levels("cosine")
    share = torch.linspace(-1, 2, 4, dtype=torch.float64).reshape(1, 1, 2, 2)
    step = posterior_log_variance(t, s, share).flatten().diff()
    torch.testing.assert_close(step, step[0].expand(3))
    assert step[0] > 0


def test_forward_variances_of_neighbours_are_the_betas():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    schedule, t = Linear().build(), torch.arange(1, 1001, dtype=torch.float64)
    torch.testing.assert_close(forward_variance(schedule(t), schedule(t - 1)), betas)


def test_levels_of_a_batch_give_what_each_gives_alone():
    schedule = Cosine(steps=50).build()
    t = torch.tensor([50.0, 20.0, 1.0], dtype=torch.float64)
    share = torch.rand(3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    batch = posterior_log_variance(schedule(t), schedule(t - 1), share)
    assert batch.dtype == torch.float32
    for i, here in enumerate(t):
        one = posterior_log_variance(schedule(here), schedule(here - 1), share[i : i + 1])
        assert torch.equal(batch[i : i + 1], one)


def test_the_last_step_has_variances_from_half_beta_to_beta():
    schedule = Linear().build()
    first, clean = schedule(scalar(1)), schedule(scalar(0))
    ends = posterior_log_variance(first, clean, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.exp().tolist() == pytest.approx([0.5e-4, 1e-4])


def test_a_step_from_pure_noise_has_finite_moments():
    schedule = Flow().build()
    t, s = schedule(scalar(1)), schedule(scalar(0.999))
    x = torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    # Nothing of x_t is signal, so nothing of it tells of x_s.
    torch.testing.assert_close(posterior_mean(x, x, t, s), s.alpha * x)
    assert posterior_log_variance(t, s, x)[0, 0, 0, 0].isfinite()
    assert forward_variance(t, s) == 1 and math.isfinite(s.snr)
