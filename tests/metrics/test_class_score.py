import pytest
import torch
from torchmetrics.image.inception import InceptionScore

from kao.errors import DataError
from kao.metrics import Sight, inception_score


def logits(n, classes, *, seed, scale=2.0):
    return scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))


def seen(probabilities):
    features = torch.randn(
        len(probabilities), 4, generator=torch.Generator().manual_seed(len(probabilities))
    )
    return Sight("inception-test", features, probabilities)


def test_sure_and_even_classes_score_their_number():
    surely = torch.eye(5).repeat(8, 1)
    score = inception_score(seen(surely), splits=1)
    assert score.value == pytest.approx(5)
    assert score.error == pytest.approx(0, abs=1e-6)


def test_pictures_that_all_look_the_same_score_one():
    same = torch.tensor([[0.7, 0.2, 0.1]]).repeat(40, 1)
    assert inception_score(seen(same)).value == pytest.approx(1)


class Given(torch.nn.Module):
    """Hands logits on as they are, for torchmetrics, which wants a network."""

    def forward(self, x):
        return x


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore`", "ignore:std")
def test_it_is_that_of_torchmetrics_in_one_split():
    given = logits(60, 7, seed=0)
    theirs = InceptionScore(feature=Given(), splits=1)
    theirs.update(given)
    ours = inception_score(seen(given.softmax(1)), splits=1)
    assert ours.value == pytest.approx(float(theirs.compute()[0]), rel=1e-5)


def test_it_is_the_mean_over_splits_of_the_published_formula():
    sight = seen(logits(43, 6, seed=1).softmax(1))
    p = sight.probabilities[sight.order].double()
    parts = [
        (part * (part.log() - part.mean(0).log())).sum(1).mean().exp()
        for part in p.tensor_split(10)
    ]
    assert inception_score(sight).value == pytest.approx(float(sum(parts)) / 10, rel=1e-6)


def test_a_folder_sorted_by_kind_scores_as_a_shuffled_one():
    p = logits(100, 6, seed=2).softmax(1)
    sight = seen(p)
    by_kind = sight.rows(p.argmax(1).argsort())
    assert inception_score(by_kind).value == pytest.approx(inception_score(sight).value, rel=1e-9)


def test_the_error_is_the_scatter_over_other_pictures():
    found = [inception_score(seen(logits(300, 5, seed=k).softmax(1)), splits=3) for k in range(100)]
    values = torch.tensor([score.value for score in found])
    errors = torch.tensor([score.error for score in found])
    assert float(errors.square().mean().sqrt()) == pytest.approx(float(values.std()), rel=0.2)


def test_what_it_cannot_be_computed_from_is_refused():
    with pytest.raises(DataError, match=r"needs probabilities of classes, and wavelets-1 has none"):
        inception_score(Sight("wavelets-1", torch.zeros(40, 3)))
    with pytest.raises(DataError, match=r"^19 pictures are too few .* expected 20 or more"):
        inception_score(seen(logits(19, 3, seed=0).softmax(1)))
    with pytest.raises(DataError, match="softmax of the network's logits"):
        inception_score(seen(logits(40, 3, seed=0)))
