"""The Inception score: are classes recognised, and are there many of them?"""

import torch
from torch import Tensor

from kao.errors import DataError
from kao.metrics.scores import Score
from kao.metrics.sight import Sight

SPLITS = 10
"""Parts that the published values are means over."""


def inception_score(drawn: Sight, *, splits: int = SPLITS, name: str = "Inception score") -> Score:
    """Exp of the mean of KL(p(y | x) || p(y)), over splits (Salimans et al. 2016).

    It looks at drawn pictures only, is highest where each is surely of one of ImageNet's classes
    and all classes are equally frequent, and rises with the number of pictures in a split; on
    faces, which are no class, it says little (Barratt & Sharma 2018).

    Its error is the infinitesimal jackknife's within splits: the influence of a picture on the
    logarithm is its own divergence less the mean of all.  The scatter of the splits estimates the
    same from ten numbers.

    Args:
        drawn: Generated pictures, with probabilities.
        splits: Parts; cut along an order that depends on the pictures alone.
        name: Of the score.

    Raises:
        DataError: There are no probabilities, no probabilities in 0..1 that sum to 1, or fewer
            than two pictures a part.
    """
    p = _checked(drawn, splits)[drawn.order]
    values, variances = [], []
    for part in p.tensor_split(splits):
        # p log p is 0 at p = 0, and so is p log q, for then no picture of the part has the class.
        own = torch.special.xlogy(part, part).sum(1)
        divergence = own - torch.special.xlogy(part, part.mean(0)).sum(1)
        value = divergence.mean().exp()
        values.append(value)
        variances.append(value**2 * divergence.var() / len(part))
    error = torch.stack(variances).sum().sqrt() / splits
    return Score(name, torch.stack(values).mean().item(), error.item(), len(p), better="higher")


def _checked(drawn: Sight, splits: int) -> Tensor:
    if drawn.probabilities is None:
        raise DataError(
            f"An Inception score needs probabilities of classes, and {drawn.space} has none: use "
            f'the feature space "inception".'
        )
    p = drawn.probabilities.double()
    if len(p) < 2 * splits:
        raise DataError(
            f"{len(p)} pictures are too few for an Inception score over {splits} splits; expected "
            f"{2 * splits} or more."
        )
    if not bool((p >= 0).all()) or not bool(((p.sum(1) - 1).abs() < 1e-3).all()):
        raise DataError(
            "An Inception score needs probabilities of classes that are 0 or more and sum to 1: "
            "give the softmax of the network's logits."
        )
    return p / p.sum(1, keepdim=True)
