"""Published transformers, as values of our options, have the size that their paper says."""

from dataclasses import replace

import pytest
import torch

from kao.networks import SHAPES, DiTConfig, Takes
from kao.networks.cost import flops, parameters

# Peebles & Xie (2023), table 4, on latents of 4 x 32 x 32 with 1000 classes and learned variances:
# millions of parameters (of patches of 2), and billions of multiply-adds.
MILLIONS = {"S": 33, "B": 130, "L": 458, "XL": 675}
MULTIPLY_ADDS = {"S/8": 0.36, "S/4": 1.41, "S/2": 6.06, "B/2": 23.01, "L/2": 80.71, "XL/2": 118.64}

# To the last, as the definition gives them.
PARAMETERS = {
    "S/8": 33_142_016,
    "S/4": 32_920_448,
    "S/2": 32_865_056,
    "B/8": 130_869_248,
    "B/4": 130_426_496,
    "B/2": 130_315_808,
    "L/8": 458_578_432,
    "L/4": 457_988_224,
    "L/2": 457_840_672,
    "XL/8": 675_664_640,
    "XL/4": 675_000_704,
    "XL/2": 674_834_720,
}
ON_LATENTS = {"channels": 4, "size": 32, "outputs": 8, "takes": Takes(classes=1000)}


def published(name):
    """DiT-S/2 and so on, without numbers."""
    shape, patch = name.split("/")
    with torch.device("meta"):
        return replace(SHAPES[shape], patch=int(patch)).build(**ON_LATENTS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_published_shapes_have_their_parameters(name):
    count = parameters(published(name))
    assert count == PARAMETERS[name]
    assert count / 1e6 == pytest.approx(MILLIONS[name.split("/")[0]], abs=1)


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_the_published_shapes_have_their_operations_two_a_multiply_add(name):
    with torch.device("meta"):
        operations = flops(published(name), (4, 32, 32))
    assert operations / 1e9 == pytest.approx(2 * MULTIPLY_ADDS[name], abs=2 * 0.02)


def test_the_parameters_of_the_smallest_are_those_of_the_definition():
    # Peebles & Xie (2023), section 3.2: 18 C^2 + 15 C a block; the weights of the published code
    # are as many, and the table of positions, which is not learned, beside them.
    width, depth, patch = 384, 12, 2
    blocks = depth * (18 * width**2 + 15 * width)
    embeddings = (256 + 1) * width + (width + 1) * width + (1000 + 1) * width
    ends = (4 * patch**2 + 1) * width + 2 * (width + 1) * width + (width + 1) * 8 * patch**2
    assert parameters(published("S/2")) == blocks + embeddings + ends


def test_the_defaults_are_the_smallest_published_shape():
    assert DiTConfig() == SHAPES["S"]
