import pytest
import torch
from PIL import Image

from kao.diffusion import DDIM, SCHEDULES, Ancestral, Prediction, grids, sample
from kao.pixels import to_uint8
from kao.reports import edits

SIZE = 8


class Gaussian:
    """The exact denoiser of pictures whose pixels are N(0.2, 0.3^2)."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, x, t):
        alpha, sigma = self.schedule(t).like(x)
        gain = alpha * 0.09 / (alpha**2 * 0.09 + sigma**2)
        x0 = 0.2 + gain * (x - alpha * 0.2)
        return Prediction(x0, (x - alpha * x0) / sigma)


@pytest.fixture
def drawn(monkeypatch):
    """What the figure handed to `strip`: rows of uint8 pictures and the titles."""
    calls = {}

    def strip(rows, *, titles=(), row_titles=()):
        calls.update(rows=rows, titles=list(titles), row_titles=list(row_titles))
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(edits, "strip", strip)
    return calls


@pytest.fixture
def denoise():
    return Gaussian(SCHEDULES["linear"]().build())


@pytest.fixture
def times(denoise):
    return grids.uniform(denoise.schedule, 50)


def pictures(count):
    generator = torch.Generator().manual_seed(0)
    return (0.2 + 0.3 * torch.randn(count, 3, SIZE, SIZE, generator=generator)).clamp(-1, 1)


def far(a, b):
    """Mean difference in grey levels."""
    return (a.float() - b.float()).abs().mean().item()


def at(*numbers):
    return [(f"t = {n}", torch.tensor(float(n), dtype=torch.float64)) for n in numbers]


def test_recovery_has_four_columns_and_a_row_for_each_picture_and_start(denoise, times, drawn):
    images = pictures(2)
    edits.recovery(denoise, images, times, starts=at(30, 900), seed=0)
    assert drawn["titles"] == ["original", "noisy", "beta", "beta-tilde"]
    assert drawn["row_titles"] == ["t = 30", "t = 30", "t = 900", "t = 900"]
    for row, image in zip(drawn["rows"], [*images, *images], strict=True):
        assert torch.equal(row[0], to_uint8(image))
    for early, late in zip(drawn["rows"][:2], drawn["rows"][2:], strict=True):
        for column in (1, 2, 3):
            assert far(early[0], early[column]) < 15 < 25 < far(late[0], late[column])
        assert far(early[2], early[3]) > 0


def test_a_misled_recovery_loses_what_a_right_one_keeps(denoise, times, drawn):
    images = pictures(2)
    edits.recovery(denoise, images, times, starts=at(20), seed=0)
    right = drawn["rows"]
    assert drawn["row_titles"] == ["t = 20", "t = 20"]
    edits.recovery(denoise, images, times, starts=at(20), seed=0, misled=True)
    assert drawn["row_titles"] == ["t = 20, from T", "t = 20, from T"]
    for good, bad in zip(right, drawn["rows"], strict=True):
        assert torch.equal(good[:2], bad[:2])
        assert far(bad[0], bad[3]) > 3 * far(good[0], good[3])


def test_the_film_of_a_recovery_ends_with_the_last_row_of_each_picture(denoise, times, drawn):
    edited = edits.recovery(denoise, pictures(2), times, starts=at(100, 700), seed=0)
    assert edited.columns == 2 and len(edited.frames) <= edits.MOMENTS
    expected = torch.cat([row[2:] for row in drawn["rows"][2:]])
    assert torch.equal(edited.frames[-1], expected)
    assert far(edited.frames[0], expected) > 20


def test_variations_go_further_the_stronger_they_are(denoise, times, drawn):
    images = pictures(3)
    edited = edits.variations(
        denoise, DDIM(eta=1.0), images, times, strengths=[0.02, 0.1, 0.8], seed=0
    )
    assert drawn["titles"] == ["original", "2 %", "10 %", "80 %"]
    away = [sum(far(row[0], row[column]) for row in drawn["rows"]) for column in range(4)]
    assert away == sorted(away) and away[0] == 0
    assert torch.equal(edited.frames[-1], torch.stack([row[-1] for row in drawn["rows"]]))


def test_completions_differ_under_the_mask_alone(denoise, times, drawn):
    images, mask = pictures(2), torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    mask[..., 2:6, 2:6] = True
    edited = edits.completions(denoise, Ancestral(), images, mask, times, count=3, seed=0)
    assert drawn["titles"] == ["original", "kept", "1", "2", "3"]
    hidden = mask[0].expand(3, SIZE, SIZE)
    for row, image in zip(drawn["rows"], images, strict=True):
        original, kept, *completions = row
        assert torch.equal(original, to_uint8(image))
        assert (kept[hidden] == 128).all()
        for completion in (kept, *completions):
            assert torch.equal(completion[~hidden], original[~hidden])
        assert far(completions[0][hidden], completions[1][hidden]) > 10
    assert torch.equal(edited.frames[-1], torch.cat([row[2:] for row in drawn["rows"]]))
    assert edited.columns == 3


def test_the_way_between_seeds_has_their_own_pictures_at_its_ends(denoise, times, drawn):
    edited = edits.between_seeds(denoise, Ancestral(), times, size=SIZE, seeds=(5, 6), count=4)
    assert drawn["titles"] == ["0 %", "33 %", "67 %", "100 %"]
    own = to_uint8(sample(denoise, Ancestral(), times, (3, SIZE, SIZE), seeds=[5, 6]))
    (row,) = drawn["rows"]
    assert far(row[[0, -1]], own) < 0.1
    assert far(row[0], row[1]) < far(row[0], row[3])
    # There and back, the turning point once.
    assert [torch.equal(a, b[None]) for a, b in zip(edited.frames, row, strict=False)] == [True] * 4
    assert len(edited.frames) == 7 and torch.equal(edited.frames[-1], edited.frames[0])


def test_the_way_between_pictures_stands_between_the_originals(denoise, times, drawn):
    images = pictures(2)
    edited = edits.between_pictures(denoise, images, times, count=3, iterations=10)
    assert drawn["titles"] == ["original", "0 %", "50 %", "100 %", "original"]
    (row,) = drawn["rows"]
    assert torch.equal(row[[0, -1]], to_uint8(images))
    assert far(row[[0, -1]], row[[1, -2]]) < 1
    assert len(edited.frames) == 5


def test_inversion_shows_the_noise_and_tells_the_true_error(denoise, times, drawn):
    images = pictures(2)
    errors = {}
    for iterations in (0, 10):
        edited, rms = edits.inversion(denoise, images, times, iterations=iterations)
        assert drawn["titles"] == ["original", "noise", "back"]
        for row, image, error in zip(drawn["rows"], images, rms, strict=True):
            assert torch.equal(row[0], to_uint8(image))
            shown = (row[2].double() - row[0].double()).div(127.5).square().mean().sqrt()
            assert shown.item() == pytest.approx(error.item(), abs=0.006)
        errors[iterations] = rms
        assert torch.equal(edited.frames[0], to_uint8(images))
    assert (errors[10] < 0.02 * errors[0]).all()


def test_editing_takes_no_gradients(times):
    weight = torch.tensor(0.5, requires_grad=True)
    exact = Gaussian(SCHEDULES["linear"]().build())

    class Learned:
        schedule = exact.schedule

        def __call__(self, x, t):
            prediction = exact(x, t)
            return prediction._replace(x0=prediction.x0 * weight)

    _, rms = edits.inversion(Learned(), pictures(1), times, iterations=1)
    assert not rms.requires_grad
