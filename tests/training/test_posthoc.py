import itertools

import pytest
import torch
from torch import nn

from kao.errors import ConfigError
from kao.training.ema import EMA, power_decay
from kao.training.posthoc import PAIR, Blend, Profile, inner_products, mix

STEPS, BATCH, SNAPSHOTS = 1200, 8, 24
BETWEEN = (0.05, 0.07, 0.1, 0.13, 0.17, 0.2, 0.25)


def profile_at(profile, t):
    inside = (profile.gamma + 1) * t**profile.gamma / profile.end ** (profile.gamma + 1)
    return torch.where(t < profile.end, inside, 0.0)


def parts_of(ends, widths=PAIR):
    return [Profile.of(width=width, end=end) for end in ends for width in widths]


# --- profiles -----------------------------------------------------------------------------------


PROFILES = [Profile(0.0, 10.0), Profile(1.8, 10.0), Profile(1.8, 6.0), Profile(17.0, 8.0)]


@pytest.mark.parametrize(("a", "b"), [*itertools.product(PROFILES, PROFILES)])
def test_an_inner_product_is_the_integral_of_the_product(a, b):
    t = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 20_000
    integral = (profile_at(a, t) * profile_at(b, t)).sum() / 20_000
    assert inner_products([a], [b]).item() == pytest.approx(integral.item(), rel=1e-4)


def test_inner_products_of_long_runs_and_narrow_profiles_are_finite():
    parts = parts_of([1e3, 1e9], widths=(0.001, 0.2))
    products = inner_products(parts, parts)
    assert products.isfinite().all()
    assert (products.diagonal() > 0).all()


def test_a_profile_that_was_tracked_is_taken_as_it_is():
    mixture = mix(parts_of([100, 200, 300]), Profile.of(width=PAIR[1], end=300))
    expected = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(mixture.coefficients, expected, rtol=0, atol=1e-8)
    assert mixture.error < 1e-5


@pytest.mark.parametrize("width", [0.02, 0.07, 0.15, 0.28])
@pytest.mark.parametrize("ends", [[100], [10, 100], [33, 66, 99, 100]])
def test_a_weight_that_never_moved_is_reconstructed_as_it_is(width, ends):
    mixture = mix(parts_of(ends), Profile.of(width=width, end=ends[-1]))
    assert mixture.coefficients.sum().item() == pytest.approx(1, abs=1e-9)


def test_no_other_coefficients_that_add_up_to_one_are_nearer():
    parts, target = parts_of([50, 100]), Profile.of(width=0.13, end=100)
    best = mix(parts, target)

    def left(coefficients):
        t = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 1_000
        mixed = sum(c * profile_at(p, t) for c, p in zip(coefficients, parts, strict=True))
        wanted = profile_at(target, t)
        return ((mixed - wanted).norm() / wanted.norm()).item()

    assert left(best.coefficients) == pytest.approx(best.error, rel=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        away = torch.randn(len(parts), generator=generator, dtype=torch.float64) / 100
        assert left(best.coefficients + away - away.mean()) > best.error


def test_more_snapshots_fit_a_profile_better():
    errors = [
        mix(parts_of(range(100 // n, 101, 100 // n)), Profile.of(width=0.15, end=100)).error
        for n in (2, 5, 10, 20)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 < 0.1 < errors[0]


def test_snapshots_of_almost_one_moment_do_not_play_off_each_other():
    ends = [1_000_000 * k / 24 for k in range(1, 25)]
    close = [*ends, 999_992, 999_984, 999_976]
    for width in BETWEEN:
        mixture = mix(parts_of(close), Profile.of(width=width, end=1_000_000))
        assert mixture.coefficients.norm() < 10


@pytest.mark.parametrize("end", [0, -5, 101, float("nan")])
def test_a_moment_that_is_not_known_is_refused(end):
    with pytest.raises(ConfigError, match="expected more than 0 and at most 100"):
        mix(parts_of([50, 100]), Profile(3.0, end))


# --- blending -----------------------------------------------------------------------------------


def test_a_blend_adds_its_parts_one_after_the_other():
    blend = Blend(torch.tensor([[2.0, -1.0], [0.5, 0.5]], dtype=torch.float64))
    blend.add({"w": torch.tensor([1.0, 2.0])})
    blend.add({"w": torch.tensor([3.0, 5.0], dtype=torch.float16)})
    assert [average["w"].tolist() for average in blend.averages] == [[-1.0, -1.0], [2.0, 3.5]]
    assert blend.averages[0]["w"].dtype == torch.float32


# --- a training ---------------------------------------------------------------------------------


def copied(tensors):
    return {name: value.clone() for name, value in tensors.items()}


def small_training():
    """Snapshots of two widths, and averages tracked all along: a convolution learns to denoise."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.SiLU(), nn.Conv2d(12, 3, 3, padding=1)
        )
    pictures = torch.randn(64, 3, 8, 8, generator=generator).cumsum(-1) / 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.99))
    direct = {width: EMA(model, power_decay(width)) for width in BETWEEN}
    snapshots = []
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1.0, (1 - step / STEPS) / 0.4)
        x = pictures[torch.randint(64, (BATCH,), generator=generator)]
        t = torch.rand(BATCH, 1, 1, 1, generator=generator)
        noisy = (1 - t) * x + t * torch.randn(x.shape, generator=generator)
        loss = (model(noisy) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for average in direct.values():
            average.update(step * BATCH, BATCH)
        if step % (STEPS // SNAPSHOTS) == 0:
            kept = {
                w: {n: v.clone() for n, v in direct[w].average.items()} for w in (0.05, 0.1, 0.25)
            }
            snapshots.append((step * BATCH, kept))
    return snapshots, direct


@pytest.fixture(scope="module")
def trained():
    return small_training()


def reconstructed(snapshots, width, *, pair=PAIR, dtype=torch.float32):
    parts = parts_of([images for images, _ in snapshots], pair)
    mixture = mix(parts, Profile.of(width=width, end=snapshots[-1][0]))
    blend = Blend(mixture.coefficients[None])
    for _, kept in snapshots:
        for own in pair:
            blend.add({name: value.to(dtype) for name, value in kept[own].items()})
    return blend.averages[0]


def apart(one, other):
    """|one - other| / |other|."""
    pairs = [(one[name] - other[name], other[name]) for name in other]
    over, under = (torch.cat([v.flatten() for v in side]) for side in zip(*pairs, strict=True))
    return (over.norm() / under.norm()).item()


@pytest.mark.parametrize("width", BETWEEN)
def test_a_reconstruction_is_the_average_that_was_tracked(trained, width):
    snapshots, direct = trained
    assert direct[width].distance() > 1e-2  # the averages differ from the model, and so count
    tracked = direct[width].average
    assert apart(reconstructed(snapshots, width), tracked) < 2e-4
    assert apart(reconstructed(snapshots, width, dtype=torch.float16), tracked) < 1e-3


def test_the_published_pair_is_no_match_for_wide_averages(trained):
    snapshots, direct = trained
    wide = reconstructed(snapshots, 0.25, pair=(0.05, 0.10))
    assert apart(wide, direct[0.25].average) > 1e-3


def test_bf16_would_not_do_for_snapshots(trained):
    snapshots, direct = trained
    rough = reconstructed(snapshots, 0.1, dtype=torch.bfloat16)
    assert apart(rough, direct[0.1].average) > 1e-3
