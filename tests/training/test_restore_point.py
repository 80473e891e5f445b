"""A copy of what was learned, and the memory it takes."""

import pytest
import torch
from torch import nn

from kao.training import EMA, warmed_decay
from kao.training.optimizers import AdamW, ScheduleFree
from kao.training.restore_point import RestorePoint


class Learner:
    """A layer, its averages and an optimiser."""

    def __init__(self, method):
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.optimizer = method.build(
            self.model.named_parameters(), rate=0.1, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.averages = {
            **method.averages(self.optimizer, self.model),
            "ema": EMA(self.model, warmed_decay(0.9)),
        }
        self.images = 0

    def step(self):
        self.optimizer.zero_grad()
        self.model(torch.ones(2, 3)).square().sum().backward()
        self.optimizer.step()
        self.images += 2
        for average in self.averages.values():
            average.update(self.images, 2)

    def point(self):
        return RestorePoint(self.model, self.averages, self.optimizer, None)

    def learned(self):
        tensors = [self.model.state_dict(), *(a.average for a in self.averages.values())]
        return [t.clone() for entries in tensors for t in entries.values()]


def places(value):
    """Where the tensors of a tree lie."""
    if isinstance(value, torch.Tensor):
        return [value.data_ptr()]
    return [place for inner in value.values() for place in places(inner)]


@pytest.mark.parametrize("method", [AdamW(), ScheduleFree()])
def test_going_back_brings_what_was_learned_when_it_was_taken_last(method):
    learner = Learner(method)
    point = learner.point()
    for images in (0, 4):
        point.take(images)
        wanted = learner.learned()
        learner.step()
        learner.step()
        point.restore()
        assert all(map(torch.equal, learner.learned(), wanted))
        learner.step()
    assert point.images == 4


def test_taken_anew_it_lies_where_it_lay():
    learner = Learner(AdamW())
    point = learner.point()
    learner.step()
    point.take(2)
    before = places(point._tensors), places(point._state)
    learner.step()
    point.take(4)
    assert (places(point._tensors), places(point._state)) == before


def test_an_average_that_follows_from_the_rest_takes_no_memory():
    learner = Learner(ScheduleFree())
    point = learner.point()
    point.take(0)
    kept = {name.partition("/")[0] for name in point._tensors}
    assert kept == {"objective", "ema"}


def test_it_is_not_worth_taking_where_a_weight_is_no_number():
    learner = Learner(AdamW())
    point = learner.point()
    assert point.worth
    with torch.no_grad():
        learner.averages["ema"].average["bias"][0] = float("nan")
    assert not point.worth
