import math

import pytest
import torch

from kao.config import Request, RunConfig, dump
from kao.errors import ConfigError
from kao.training import Length, Progress
from kao.training.rates import RATES, Constant, CosineRate, InverseSqrt, Trapezoid


@pytest.mark.parametrize(
    ("images", "done", "share"),
    [
        (0, 0.0, 1 / 100),
        (49, 0.0, 50 / 100),
        (99, 0.0, 1.0),
        (5000, 0.3, 1.0),
        (5000, 0.6, 1.0),
        (5000, 0.8, 0.5),
        (5000, 0.9, 0.25),
        (5000, 1.0, 0.0),
    ],
)
def test_a_trapezoid_rises_stays_and_falls(images, done, share):
    assert Trapezoid(warmup=100, cooldown=0.4)(images, done) == pytest.approx(share)


@pytest.mark.parametrize("done", [0.0, 0.5, 1.0])
def test_a_trapezoid_without_cooldown_stays_flat(done):
    assert Trapezoid(warmup=0, cooldown=0.0)(1, done) == 1


def test_a_trapezoid_that_is_all_cooldown_is_a_triangle():
    rate = Trapezoid(warmup=0, cooldown=1.0)
    assert [rate(0, done) for done in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]


@pytest.mark.parametrize("done", [0.0, 0.1, 0.5, 0.75, 1.0])
def test_a_cosine_rate_is_half_a_cosine(done):
    # Loshchilov & Hutter (2017), eq. 5, with eta_min = 0.
    expected = (1 + math.cos(math.pi * done)) / 2
    assert CosineRate(warmup=0)(1_000, done) == pytest.approx(expected)


def test_a_cosine_rate_warms_up_first():
    assert CosineRate(warmup=1000)(249, 0.01) == pytest.approx(0.25, rel=1e-3)


def test_a_constant_rate_stays_to_the_end():
    rate = Constant(warmup=10)
    assert [rate(4, 0.0), rate(9, 0.0), rate(500, 1.0)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(("images", "share"), [(10, 1.0), (100, 1.0), (400, 0.5), (10_000, 0.1)])
def test_an_inverse_square_root_halves_at_four_times_its_reference(images, share):
    # Karras et al. (2024a): 1 / sqrt(max(t / t_ref, 1)).
    assert InverseSqrt(warmup=0, reference=100)(images, 0.5) == pytest.approx(share)


def test_an_inverse_square_root_does_not_know_how_long_the_run_is():
    rate = InverseSqrt(warmup=100)
    assert [rate(10**6, done) for done in (0.1, 0.5, 1.0)] == [rate(10**6, 0.2)] * 3


def test_an_inverse_square_root_may_cool_down_at_the_end():
    rate = InverseSqrt(warmup=0, reference=100, cooldown=0.2)
    assert [rate(400, done) for done in (0.5, 0.9, 1.0)] == pytest.approx([0.5, 0.25, 0.0])


@pytest.mark.parametrize("name", RATES)
def test_every_rate_is_a_share(name):
    rate = RATES[name]()
    shares = [rate(100_000 * k // 100, k / 100) for k in range(101)]
    assert all(0 <= share <= 1 for share in shares)
    assert max(shares) > 0.9


@pytest.mark.parametrize("name", ["trapezoid", "cosine"])
def test_a_rate_that_cools_down_ends_at_zero(name):
    assert RATES[name]()(10**6, 1.0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", RATES)
def test_every_rate_is_above_zero_at_the_first_step(name):
    assert RATES[name]()(0, 0.0) > 0


# --- warm-up of short runs ----------------------------------------------------------------------


@pytest.mark.parametrize("name", RATES)
def test_a_short_run_is_warm_after_a_tenth(name):
    rate, calm = RATES[name](warmup=1000), RATES[name](warmup=0)
    length = Length(images=2000)
    shares = {i: rate(i, i / length.images) / calm(i, i / length.images) for i in (50, 100, 200)}
    assert shares == pytest.approx({50: 0.25, 100: 0.5, 200: 1.0})


@pytest.mark.parametrize("name", RATES)
def test_a_long_run_warms_up_over_its_images(name):
    rate, calm = RATES[name](warmup=1000), RATES[name](warmup=0)
    assert rate(499, 499 / 10**6) / calm(499, 499 / 10**6) == pytest.approx(0.5)


def test_how_much_of_a_run_may_be_warm_up_is_an_option():
    assert Constant(warmup=1000, warmup_share=0.5)(100, 100 / 1000) == pytest.approx(0.2)


# --- images alone -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RATES)
def test_the_rate_of_a_run_in_images_depends_on_images_alone(name):
    rate, length = RATES[name](warmup=64), Length(images=960)

    def rates(batch, seconds_a_step):
        moments = [
            Progress(images, images / batch * seconds_a_step) for images in range(0, 960, batch)
        ]
        return {p.images: rate(p.images, length.done(p, reserve=1e3)) for p in moments}

    alone, small = rates(32, 1.0), rates(8, 0.01)
    assert alone == {images: small[images] for images in alone}


def test_pieces_of_a_batch_have_the_rate_of_the_whole(tiny, tiny_set):
    def rates(pieces):
        words = (*tiny, "data.size=8", "optimizer.schedule.warmup=16", f"training.{pieces}")
        config = Request.of("toy-32", words, {"length": "40 images"}).over(dump(RunConfig()))
        trainer = config.build(tiny_set, torch.device("cpu"))
        return [
            (trainer.progress.images, trainer.optimizer.param_groups[0]["lr"])
            for _ in trainer.steps()
        ]

    assert rates("micro_batch=1") == rates("micro_batch=4")


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES.values())
def test_a_negative_warmup_is_refused(rate):
    with pytest.raises(ConfigError, match=r"warmup = -1; expected 0 images or more\."):
        rate(warmup=-1)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, math.nan])
@pytest.mark.parametrize("rate", RATES.values())
def test_a_share_of_warmup_that_is_none_is_refused(rate, share):
    with pytest.raises(ConfigError, match=r"warmup_share = .*; expected a share of the run above"):
        rate(warmup_share=share)


@pytest.mark.parametrize("cooldown", [-0.1, 1.5, math.nan])
@pytest.mark.parametrize("rate", [Trapezoid, InverseSqrt])
def test_a_cooldown_that_is_no_share_is_refused(rate, cooldown):
    with pytest.raises(ConfigError, match=r"cooldown = .*; expected a share of the run, 0 to 1\."):
        rate(cooldown=cooldown)


def test_a_reference_below_one_image_is_refused():
    with pytest.raises(ConfigError, match=r"reference = 0; expected 1 image or more\."):
        InverseSqrt(reference=0)
