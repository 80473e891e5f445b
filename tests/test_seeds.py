from itertools import product

import pytest

from kao.seeds import mixed_seed


def test_a_mixed_seed_is_the_same_on_every_machine():
    # From NumPy 2.4.6, SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1: NumPy promises
    # that this never changes, and every run that was ever written depends on it.
    assert mixed_seed(0, 1, 2) == 1535930435702422785
    assert mixed_seed(3, 2**40, 640_000) == 5802910215092916743


def test_neighbouring_parts_give_seeds_that_all_differ():
    seeds = [mixed_seed(*parts) for parts in product(range(5), range(20), range(0, 640, 32))]
    assert len(set(seeds)) == len(seeds)


def test_the_order_of_the_parts_counts():
    assert mixed_seed(1, 2, 3) != mixed_seed(3, 2, 1)


def test_a_seed_fits_a_signed_64_bit_number_and_uses_it():
    seeds = [mixed_seed(1, number) for number in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_a_negative_part_is_refused():
    with pytest.raises(ValueError):
        mixed_seed(-1)
