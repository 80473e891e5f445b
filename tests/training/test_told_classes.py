"""What a network is told of the classes of its pictures while it trains."""

import itertools
from dataclasses import replace

import pytest
import torch

from kao.config import RunConfig
from kao.config.conditioning import ConditionsConfig
from kao.config.sections import DataConfig, TrainingConfig
from kao.data.augment import AugmentConfig
from kao.networks import UNetConfig
from kao.training import Classes

BATCH = 6
CPU = torch.device("cpu")


def trainer_of(prepared, *, drop=0.3, classes=True, dropout=0.0, precision="fp32", **training):
    told = ConditionsConfig(True, prepared.classes, drop=drop) if classes else ConditionsConfig()
    config = RunConfig(
        data=DataConfig(size=8, held_out=0, augment=AugmentConfig(flip=True)),
        conditions=told,
        network=UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(4,), dropout=dropout),
        training=TrainingConfig(batch=BATCH, precision=precision, **training),
        length="100 steps",
    )
    return config.build(prepared, CPU)


def table(trainer):
    """The embeddings of the classes and, last, of none."""
    return trainer.denoiser.network.classes.weight


def filled(trainer):
    """With all that begins at zero off it, so that classes make a difference."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trainer.denoiser.parameters():
            if not weight.any():
                weight.copy_(torch.randn(weight.shape, generator=generator) / 8)
    return trainer


def told(trainer, monkeypatch, *, images=0, steps=1):
    """The labels that the network was told of in some steps; None where it was told nothing."""
    seen, forward = [], trainer.gradients.objective.forward

    def watched(x0, conditions, drawn):
        seen.append(None if conditions is None else conditions.label)
        return forward(x0, conditions, drawn)

    monkeypatch.setattr(trainer.gradients.objective, "forward", watched)
    for number, batch in enumerate(itertools.islice(trainer.batches(images), steps)):
        trainer.gradients.of(batch, images=images + number * BATCH, done=0.0)
    return seen


# --- which ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", [0.0, 0.1, 0.5])
def test_as_many_classes_are_kept_back_as_the_share_says(drop):
    kept_back = Classes(2, drop).kept_back(20_000, torch.Generator().manual_seed(0))
    spread = (drop * (1 - drop) / 20_000) ** 0.5
    assert abs(kept_back.double().mean() - drop) <= 4 * spread


def test_what_is_kept_back_and_what_has_no_class_are_told_as_none():
    labels = torch.tensor([0, 1, -1, 1])
    kept_back = torch.tensor([False, True, False, False])
    assert Classes(2, 0.1).told(labels, kept_back).tolist() == [0, 2, 2, 1]
    assert Classes(2, 0.1).told(labels).tolist() == [0, 1, 2, 1]


def test_the_network_is_told_the_class_of_each_picture_or_none(tiny_set, monkeypatch):
    trainer = trainer_of(tiny_set)
    seen = torch.cat(told(trainer, monkeypatch, steps=8))
    stream = itertools.islice(trainer_of(tiny_set).batches(0), 8)
    own = torch.cat([batch.labels for batch in stream])
    none = len(tiny_set.classes)
    assert 0 < (seen == none).sum() < len(seen) / 2
    assert torch.equal(seen[seen != none], own[seen != none])


def test_without_a_share_every_class_is_told(tiny_set, monkeypatch):
    trainer = trainer_of(tiny_set, drop=0.0)
    (seen,) = told(trainer, monkeypatch)
    (batch,) = itertools.islice(trainer.batches(0), 1)
    assert torch.equal(seen, batch.labels)


# --- what follows from the seed and the images alone --------------------------------------------


def test_a_step_tells_the_same_wherever_a_run_is_taken_up(tiny_set, monkeypatch):
    straight = told(trainer_of(tiny_set), monkeypatch, steps=3)
    resumed = told(trainer_of(tiny_set), monkeypatch, images=2 * BATCH)
    assert torch.equal(straight[2], resumed[0])
    assert not torch.equal(straight[0], straight[1])


def test_however_a_batch_is_cut_the_same_is_told_and_learned(tiny_set, monkeypatch):
    whole, cut = (filled(trainer_of(tiny_set, micro_batch=m)) for m in ("auto", 4))
    one, parts = (told(trainer, monkeypatch) for trainer in (whole, cut))
    assert [len(part) for part in parts] == [4, 2]
    assert torch.equal(one[0], torch.cat(parts))
    for (name, p), (_, q) in zip(
        whole.denoiser.named_parameters(), cut.denoiser.named_parameters(), strict=True
    ):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-7, msg=name)


def test_each_class_teaches_its_own_embedding(tiny_set, monkeypatch):
    trainer = filled(trainer_of(tiny_set))
    (labels,) = told(trainer, monkeypatch)
    moved = table(trainer).grad.abs().sum(1) > 0
    assert sorted(set(labels.tolist())) == moved.nonzero().flatten().tolist()


def test_the_seeds_of_a_step_name_that_of_the_classes_where_they_are_told(tiny_set):
    names = [set(trainer_of(tiny_set, classes=c).gradients.seeds(0)) for c in (False, True)]
    assert names[1] - names[0] == {"classes"}


def test_where_no_class_is_told_a_set_with_classes_teaches_what_one_without_does(
    tiny_set, monkeypatch
):
    learned = []
    for prepared in (tiny_set, replace(tiny_set, labels=None)):
        trainer = trainer_of(prepared, classes=False, dropout=0.2)
        for batch in itertools.islice(trainer.batches(0), 3):
            trainer.step(batch)
        learned.append(trainer.denoiser.state_dict())
    assert all(torch.equal(value, learned[1][name]) for name, value in learned[0].items())
    assert told(trainer_of(tiny_set, classes=False), monkeypatch) == [None]
