import pytest
import torch

from kao.diffusion import SeededNoise, seeds_of
from kao.errors import ConfigError


def test_an_images_noise_depends_on_its_seed_and_not_on_its_batch():
    x = torch.empty(3, 1, 4, 4)
    together, alone = SeededNoise([7, 8, 9]), SeededNoise([8])
    for _ in range(3):
        assert torch.equal(together(x)[1:2], alone(x[:1]))


def test_successive_draws_differ():
    noise, x = SeededNoise([7]), torch.empty(1, 1, 4, 4)
    assert not torch.equal(noise(x), noise(x))


def test_noise_is_standard_normal_and_like_its_argument():
    draw = SeededNoise([1, 2])(torch.empty(2, 1, 128, 128, dtype=torch.float64))
    assert draw.dtype == torch.float64
    assert draw.mean().abs() < 0.03 and (draw.std() - 1).abs() < 0.03


def test_every_bit_of_a_seed_counts():
    # torch.Generator on the CPU would draw the same for these.
    first, second = SeededNoise([5, 5 + 2**32])(torch.empty(2, 1, 4, 4))
    assert not torch.equal(first, second)


def test_noise_of_another_batch_size_is_a_mistake():
    with pytest.raises(ValueError, match="1 seeds cannot serve 3 images"):
        SeededNoise([5])(torch.empty(3, 1, 4, 4))


def test_a_pictures_seed_depends_on_its_index_alone():
    assert seeds_of(3, range(10))[4:6] == seeds_of(3, [4, 5])


def test_seeds_are_distinct_over_seeds_and_indices():
    seeds = [s for seed in (0, 1, 2**32, 2**40 + 1) for s in seeds_of(seed, range(1000))]
    assert len(set(seeds)) == 4000
    assert all(0 <= s < 2**64 for s in seeds) and max(seeds) > 2**63


def test_seeds_are_the_same_on_every_machine():
    # NumPy keeps SeedSequence's stream fixed; computed once with NumPy 2.
    assert seeds_of(0, [0, 1]) == [8668861027912758289, 4881901421217228719]


@pytest.mark.parametrize("make", [lambda: seeds_of(-1, [0]), lambda: SeededNoise([3, -1])])
def test_negative_seeds_are_refused(make):
    with pytest.raises(ConfigError, match="seed = -1"):
        make()
