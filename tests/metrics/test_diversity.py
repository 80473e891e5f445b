"""How different pictures are from each other, and how sure that is."""

import math

import pytest
import torch

from kao.errors import DataError
from kao.metrics import Sight, lpips_diversity, pairwise_distance


def points(n, width=4, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def seen(features):
    return Sight("a-space", features)


class Corner:
    """Stands in for LPIPS: the first values of a picture, in 0..1."""

    name, width, resize = "corner-1", 3, "none"

    def __init__(self):
        self.calls = []

    def __call__(self, images):
        self.calls.append(images)
        return images[:, :, 0, 0].float() / 255

    def to(self, device):
        return self


def pictures(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 4, 4), generator=generator).byte()


def test_the_mean_is_that_of_all_pairs():
    x = points(20).double()
    gaps = [(x[i] - x[j]).norm().item() for i in range(20) for j in range(i)]
    score = pairwise_distance(seen(x.float()))
    assert score.value == pytest.approx(sum(gaps) / len(gaps), rel=1e-6)
    assert (score.samples, score.better) == (20, "neither")
    assert "a-space" in score.name


def test_the_error_is_the_jackknife_with_each_left_out():
    x = points(15)
    left_out = torch.tensor(
        [pairwise_distance(seen(x[torch.arange(15) != i])).value for i in range(15)]
    ).double()
    expected = (14 / 15 * (left_out - left_out.mean()).square().sum()).sqrt().item()
    assert pairwise_distance(seen(x)).error == pytest.approx(expected, rel=1e-4)


def test_the_interval_of_pairwise_distances_covers():
    # Two Gaussian points in D dimensions lie 2 Gamma((D + 1) / 2) / Gamma(D / 2) apart.
    true = 2 * math.gamma(2.5) / math.gamma(2)
    scores = [pairwise_distance(seen(points(60, seed=s))) for s in range(300)]
    covered = sum(score.low <= true <= score.high for score in scores) / len(scores)
    assert 0.91 <= covered <= 0.98


def test_a_set_of_one_face_has_no_diversity():
    score = pairwise_distance(seen(points(1).expand(10, -1)))
    assert (score.value, score.error) == (0, 0)
    assert lpips_diversity(pictures(1).expand(10, -1, -1, -1), Corner()).value == 0


def test_a_far_centre_costs_no_digits():
    x = points(20)
    assert pairwise_distance(seen(x + 1024)).value == pytest.approx(
        pairwise_distance(seen(x)).value, rel=1e-4
    )


def test_of_many_pictures_some_take_part():
    scores = [pairwise_distance(seen(points(100)), most=30, seed=seed) for seed in (0, 1)]
    assert [score.samples for score in scores] == [30, 30]
    assert scores[0].value != scores[1].value


def test_no_picture_is_in_two_pairs():
    images = torch.arange(41).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).byte()
    lpips = Corner()
    score = lpips_diversity(images, lpips, pairs=1000)
    used = torch.cat(lpips.calls)[:, 0, 0, 0].tolist()
    assert len(used) == len(set(used)) == 40
    assert score.samples == 40


def test_the_interval_of_lpips_diversity_covers():
    # Uniform bytes over 255: the squared difference of two has mean 2 * variance, three channels.
    true = 3 * 2 * (256**2 - 1) / 12 / 255**2
    scores = [lpips_diversity(pictures(120, seed=s), Corner()) for s in range(300)]
    covered = sum(score.low <= true <= score.high for score in scores) / len(scores)
    assert 0.91 <= covered <= 0.98


@pytest.mark.parametrize("size", [4, 128, 512])
def test_the_larger_pictures_are_the_fewer_are_looked_at_at_a_time(size):
    images = pictures(12).repeat_interleave(size // 4, 2).repeat_interleave(size // 4, 3)
    lpips = Corner()
    score = lpips_diversity(images, lpips)
    assert score.value == pytest.approx(lpips_diversity(pictures(12), Corner()).value)
    most = max(len(call) for call in lpips.calls)
    assert most == {4: 6, 128: 4, 512: 1}[size]


def test_pairs_are_a_function_of_the_seed():
    images = pictures(50)
    values = [lpips_diversity(images, Corner(), pairs=10, seed=s).value for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_too_few_are_refused():
    with pytest.raises(DataError, match="2 pictures are too few"):
        pairwise_distance(seen(points(2)))
    with pytest.raises(DataError, match="2 pairs are too few"):
        lpips_diversity(pictures(5), Corner())
