import math

import pytest
import torch
from gaussian import Gaussian, scalar
from torch import nn

from kao.diffusion import SCHEDULES, VE, Clipped, Denoiser, Flow, Linear, Prediction, targets
from kao.diffusion.guidance import (
    THRESHOLDS,
    Clip,
    Conditioned,
    Dynamic,
    DynamicallyClipped,
    Guided,
)
from kao.errors import ConfigError

SCHEDULE = Linear().build()
T = scalar(600)


def images(count=2, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)


class Says:
    """A denoiser that says always the same, and counts how often."""

    def __init__(self, x0, eps=None, variance=None, schedule=SCHEDULE):
        self.prediction = Prediction(x0, torch.zeros_like(x0) if eps is None else eps)
        if variance is not None:
            self.prediction = self.prediction._replace(variance=variance)
        self.schedule, self.calls = schedule, 0

    def __call__(self, x, t):
        self.calls += 1
        return self.prediction


# --- thresholds ---------------------------------------------------------------------------------


def test_dynamic_clipping_brings_each_image_into_range_by_its_own_quantile():
    x0 = images() * torch.tensor([0.5, 4.0]).reshape(2, 1, 1, 1)
    ours = DynamicallyClipped(Says(x0), 0.9)(x0, T).x0
    for image, said in zip(ours, x0, strict=True):
        s = max(1.0, float(said.abs().flatten().quantile(0.9)))
        torch.testing.assert_close(image, said.clamp(-s, s) / s)
    assert ours.abs().max() <= 1


def test_dynamic_clipping_leaves_an_image_in_range_as_it_is():
    x0 = images().clamp(-1, 1)
    assert torch.equal(DynamicallyClipped(Says(x0), 0.5)(x0, T).x0, x0)


def test_dynamic_clipping_at_the_largest_value_only_scales():
    x0 = 3 * images()
    ours = DynamicallyClipped(Says(x0), 1.0, limit=2.0)(x0, T).x0
    torch.testing.assert_close(ours, 2 * x0 / x0.abs().amax((1, 2, 3), keepdim=True))


@pytest.mark.parametrize("threshold", [Clip(), Dynamic()], ids=["clip", "dynamic"])
def test_a_threshold_changes_the_image_and_leaves_the_rest(threshold):
    x0, eps, variance = 5 * images(), images(seed=1), torch.rand(2, 3, 8, 8)
    prediction = threshold(Says(x0, eps, variance))(x0, T)
    assert prediction.x0.abs().max() <= 1
    assert prediction.eps is eps and prediction.variance is variance


def test_thresholds_by_name_wrap_a_denoiser():
    inner = Says(3 * images())
    assert THRESHOLDS["none"] is None
    for name, kind in (("clip", Clipped), ("dynamic", DynamicallyClipped)):
        wrapped = THRESHOLDS[name]()(inner)
        assert isinstance(wrapped, kind) and wrapped.schedule is inner.schedule
    assert Dynamic(0.7, 2.0)(inner).quantile == 0.7
    assert Dynamic(0.7, 2.0)(inner).limit == Clip(2.0)(inner).limit == 2.0


@pytest.mark.parametrize("limit", [0.0, -1.0, math.inf, math.nan])
def test_a_limit_that_is_no_positive_number_is_refused(limit):
    for make in (Clip, lambda limit: Dynamic(limit=limit)):
        with pytest.raises(ConfigError, match="clipping limit"):
            make(limit)


@pytest.mark.parametrize("quantile", [0.0, -0.1, 1.1, math.nan])
def test_a_quantile_outside_its_range_is_refused(quantile):
    for make in (Dynamic, lambda quantile: DynamicallyClipped(Says(images()), quantile)):
        with pytest.raises(ConfigError, match=r"quantile .* 0\.995"):
            make(quantile)


# --- conditions ---------------------------------------------------------------------------------


def test_a_conditioned_model_is_told_its_condition():
    class Told(nn.Module):
        def forward(self, x, label, condition):
            return torch.full_like(x, 0.0 if condition is None else condition)

    denoiser = Denoiser(Told(), SCHEDULE, targets.x0)
    x = images()
    assert torch.equal(Conditioned(denoiser, 0.25)(x, T).x0, torch.full_like(x, 0.25))
    assert torch.equal(Conditioned(denoiser, None)(x, T).x0, torch.zeros_like(x))


# --- guidance -----------------------------------------------------------------------------------


def test_at_scale_one_the_positive_prediction_is_returned_and_the_negative_not_asked():
    positive, negative = Says(images()), Says(images(seed=1))
    assert Guided(positive, negative, rescale=0.7)(images(), T) is positive.prediction
    assert negative.calls == 0


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 7.5])
def test_guidance_is_linear_in_both_predictions(scale):
    a = Says(images(seed=1), images(seed=2), torch.rand(2, 3, 8, 8))
    b = Says(images(seed=3), images(seed=4), torch.rand(2, 3, 8, 8))
    ours = Guided(a, b, scale=scale)(images(), T)
    p, n = a.prediction, b.prediction
    torch.testing.assert_close(ours.x0, n.x0 + scale * (p.x0 - n.x0))
    torch.testing.assert_close(ours.eps, n.eps + scale * (p.eps - n.eps))
    assert ours.variance is p.variance


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_a_guided_prediction_still_makes_the_noisy_image(schedule, rescale):
    curve = SCHEDULES[schedule]().build()
    guided = Guided(
        Gaussian(curve, mean=0.5), Gaussian(curve, mean=-0.2, std=0.9), scale=4.0, rescale=rescale
    )
    x = images()
    for t in (scalar(0.3 * curve.t_max), torch.tensor([0.1, 0.9]).double() * curve.t_max):
        alpha, sigma = curve(t).like(x)
        p = guided(x, t)
        torch.testing.assert_close(alpha * p.x0 + sigma * p.eps, x)


def test_guiding_one_gaussian_away_from_another_of_its_width_moves_the_mean():
    a, b = Gaussian(SCHEDULE, mean=0.4), Gaussian(SCHEDULE, mean=0.1)
    moved = Gaussian(SCHEDULE, mean=0.1 + 3 * (0.4 - 0.1))
    x = images()
    torch.testing.assert_close(Guided(a, b, scale=3.0)(x, T), moved(x, T))


def test_the_guided_score_is_that_of_the_densities_raised_to_their_powers():
    a, b = Gaussian(SCHEDULE, mean=0.4, std=0.3), Gaussian(SCHEDULE, mean=-0.1, std=0.8)
    x = images().requires_grad_()
    log_density = 0.0
    for data, power in ((a, 2.5), (b, -1.5)):
        mean, variance = data.law(T)
        log_density = log_density - power * (x - mean) ** 2 / (2 * variance)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    torch.testing.assert_close(
        Guided(a, b, scale=2.5)(x.detach(), T).eps, -SCHEDULE(T).sigma * score
    )


def test_autoguidance_leaves_what_the_worse_model_says():
    # The worse model has the right mean and too wide a law: guidance makes the law narrower.
    good, worse = Gaussian(SCHEDULE, std=0.5), Gaussian(SCHEDULE, std=0.7)
    x = images()
    guided = Guided(good, worse, scale=2.0)(x, T).x0
    spread = [p.std() for p in (guided, good(x, T).x0, worse(x, T).x0)]
    assert spread == sorted(spread)


def test_guidance_acts_inside_its_interval_alone():
    curve = VE().build()  # where time is sigma / alpha
    positive = Says(images(1), schedule=curve)
    negative = Says(images(1, seed=1), schedule=curve)
    guided = Guided(positive, negative, scale=3.0, interval=(0.5, 2.0))
    for t, acts in ((0.4, False), (0.5, False), (0.51, True), (2.0, True), (2.1, False)):
        before = negative.calls
        same = guided(images(1), scalar(t)).x0 is positive.prediction.x0
        assert (same, negative.calls - before) == (not acts, acts)


def test_in_a_batch_of_mixed_times_each_image_has_its_own_interval():
    curve = VE().build()
    a, b = Gaussian(curve, mean=0.5), Gaussian(curve, mean=-0.5)
    guided = Guided(a, b, scale=3.0, interval=(0.5, 2.0), rescale=0.5)
    everywhere = Guided(a, b, scale=3.0, rescale=0.5)
    x, t = images(3), torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    for ours, free, plain in zip(guided(x, t)[:2], everywhere(x, t)[:2], a(x, t)[:2], strict=True):
        assert torch.equal(ours[1], free[1])
        assert torch.equal(ours[[0, 2]], plain[[0, 2]])


def test_without_an_interval_guidance_acts_on_pure_noise():
    curve = Flow().build()
    assert curve(scalar(1)).alpha == 0
    a, b = Gaussian(curve, mean=0.5), Gaussian(curve, mean=0.0)
    x0 = Guided(a, b, scale=2.0)(images(), scalar(1)).x0
    torch.testing.assert_close(x0, torch.ones_like(x0))


def test_rescaling_brings_each_images_deviation_back():
    a, b = Gaussian(SCHEDULE, std=0.9), Gaussian(SCHEDULE, std=0.1)
    x = images() * torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)
    stds = {
        phi: Guided(a, b, scale=5.0, rescale=phi)(x, T).x0.std((1, 2, 3)) for phi in (0.0, 0.5, 1.0)
    }
    positive = a(x, T).x0.std((1, 2, 3))
    assert (stds[0.0] > 1.5 * positive).all()
    torch.testing.assert_close(stds[1.0], positive)
    torch.testing.assert_close(stds[0.5], (stds[0.0] + positive) / 2)


def test_an_image_of_one_colour_survives_rescaling():
    plain = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64)
    guided = Guided(Says(plain), Says(plain / 2), scale=2.0, rescale=1.0)
    assert torch.equal(guided(images(1), T).x0, 1.5 * plain)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": math.nan}, r"guidance\.scale = nan"),
        ({"scale": math.inf}, r"guidance\.scale = inf"),
        ({"scale": -1.0}, r"guidance\.scale = -1\.0"),
        ({"interval": (2.0, 1.0)}, r"guidance\.interval = \[2\.0, 1\.0\]"),
        ({"interval": (-1.0, 1.0)}, r"guidance\.interval = \[-1"),
        ({"interval": (0.0, math.nan)}, r"guidance\.interval = \[0\.0, nan\]"),
        ({"rescale": 1.1}, r"guidance\.rescale = 1\.1"),
        ({"rescale": math.nan}, r"guidance\.rescale = nan"),
    ],
)
def test_guidance_out_of_range_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        Guided(Says(images()), Says(images()), **options)


@pytest.mark.parametrize("other", [Flow(), Linear(steps=500), Linear(beta_last=0.03)])
def test_a_worse_model_of_another_schedule_is_refused(other):
    with pytest.raises(ConfigError, match="trained on the same schedule"):
        Guided(Gaussian(SCHEDULE), Gaussian(other.build()), scale=2.0)
