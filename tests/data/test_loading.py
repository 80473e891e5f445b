from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from kao.data.augment import AugmentConfig
from kao.data.keeping import keep
from kao.data.loading import batches, indices_at
from kao.data.split import split
from kao.errors import ConfigError

COUNT = 18
ALL = AugmentConfig(flip=True, crop=2, blur=1.0, jitter=0.3, edm=0.5)


def walk(prepared, steps, **options):
    return list(islice(batches(prepared, **options), steps))


@pytest.mark.parametrize("batch", [1, 4, 7, 18, 50])
def test_each_picture_is_seen_once_an_epoch(tiny_set, batch):
    met = torch.cat([b.indices for b in walk(tiny_set, 3 * COUNT, batch=batch, seed=3)])
    for epoch in met[: 3 * COUNT].split(COUNT):
        assert sorted(epoch.tolist()) == list(range(COUNT))


def test_the_order_changes_from_epoch_to_epoch():
    epochs = [tuple(indices_at(COUNT * e, COUNT, count=COUNT, seed=0).tolist()) for e in range(9)]
    assert len(set(epochs)) == 9
    assert tuple(range(COUNT)) not in epochs


def test_the_order_follows_the_seed():
    one, same, other = (indices_at(0, COUNT, count=COUNT, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_order_does_not_depend_on_how_it_is_cut_into_batches():
    whole = indices_at(0, 100, count=COUNT, seed=5)
    for size in (1, 7, 33):
        parts = [
            indices_at(at, min(size, 100 - at), count=COUNT, seed=5) for at in range(0, 100, size)
        ]
        assert torch.equal(torch.cat(parts), whole)


def test_no_place_in_an_epoch_is_a_favourite_of_any_picture():
    orders = torch.stack([indices_at(e * 6, 6, count=6, seed=0) for e in range(3000)])
    for place in range(6):
        counts = torch.bincount(orders[:, place], minlength=6)
        # 3000 draws of one in six: 500, with a standard deviation of 20.
        assert (counts - 500).abs().max() < 100


@pytest.mark.parametrize("augmentation", [None, ALL])
@pytest.mark.parametrize("start", [1, 5, 20])
def test_any_point_of_a_run_reached_at_once_is_that_reached_by_walking(
    tiny_set, augmentation, start
):
    options = {"batch": 5, "seed": 7, "augmentation": augmentation}
    walked = walk(tiny_set, start + 3, **options)[start:]
    reached = walk(tiny_set, 3, images=5 * start, **options)
    for one, other in zip(walked, reached, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.labels, other.labels)


def test_pictures_and_labels_are_those_of_their_indices(tiny_set):
    for batch in walk(tiny_set, 6, batch=7, seed=0):
        indices = batch.indices.numpy()
        assert batch.images.dtype == torch.uint8
        assert np.array_equal(batch.images.numpy(), tiny_set.images[indices])
        assert np.array_equal(batch.labels.numpy(), tiny_set.labels[indices])
        assert batch.labels.dtype == torch.int64


def test_a_set_without_classes_has_no_labels(tiny_set):
    (batch,) = walk(replace(tiny_set, labels=None), 1, batch=3, seed=0)
    assert batch.labels is None


def test_a_batch_may_be_larger_than_the_set(tiny_set):
    first, second = walk(tiny_set, 2, batch=2 * COUNT + 5, seed=0)
    assert len(first.images) == len(second.images) == 2 * COUNT + 5
    assert torch.bincount(first.indices).tolist().count(3) == 5


def test_augmentation_follows_the_seed_and_the_images_seen(tiny_set):
    def drawn(seed, images):
        options = {"batch": COUNT, "augmentation": AugmentConfig(flip=True)}
        (batch,) = walk(tiny_set, 1, seed=seed, images=images, **options)
        plain = torch.from_numpy(tiny_set.images[batch.indices.numpy()])
        mirrored = (batch.images != plain).flatten(1).any(1)
        return tuple(mirrored.tolist())

    assert drawn(0, 0) == drawn(0, 0)
    assert len({drawn(0, 0), drawn(1, 0), drawn(0, COUNT), drawn(0, 2 * COUNT)}) == 4


def test_what_is_done_to_a_batch_leaves_the_set_alone(tiny_set):
    before = tiny_set.images.copy()
    for batch in walk(tiny_set, 3, batch=7, seed=0):
        batch.images.zero_()
    assert np.array_equal(tiny_set.images, before)


@pytest.mark.parametrize("cuts", [(0, 7), (0, 4, 7), (0, 1, 1, 6, 7)])
def test_rows_of_several_processes_are_together_the_batch_of_one(tiny_set, cuts):
    options = {"batch": 7, "seed": 2, "augmentation": ALL}
    shares = [
        walk(tiny_set, 4, rows=slice(first, last), **options) for first, last in pairwise(cuts)
    ]
    for whole, *parts in zip(walk(tiny_set, 4, **options), *shares, strict=True):
        for name in ("images", "indices", "labels", "augmentation"):
            together = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(together, getattr(whole, name)), name
        assert {part.count for part in parts} == {whole.count} == {7}


def test_a_process_reads_its_own_rows_alone(tiny_set):
    taken = []

    class Watched:
        device, labels = tiny_set.device, None

        def __len__(self):
            return len(tiny_set)

        def take(self, indices):
            taken.append(len(indices))
            return tiny_set.take(indices)

    walk(Watched(), 3, batch=9, seed=0, rows=slice(5, 7))
    assert taken == [2, 2, 2]


def test_pictures_that_are_held_out_are_never_met(tiny_set):
    train, held = split(np.arange(COUNT), 5)
    met = torch.cat([b.indices for b in walk(tiny_set, 13, batch=4, seed=1, indices=train)])
    assert not set(met.tolist()) & set(held.tolist())
    for epoch in met.split(len(train)):
        assert sorted(epoch.tolist()) == train.tolist()


def test_pictures_and_labels_of_a_split_are_those_of_their_indices(tiny_set):
    for batch in walk(tiny_set, 4, batch=7, seed=0, indices=split(np.arange(COUNT), 5)[0]):
        indices = batch.indices.numpy()
        assert np.array_equal(batch.images.numpy(), tiny_set.images[indices])
        assert np.array_equal(batch.labels.numpy(), tiny_set.labels[indices])


def test_a_split_that_holds_nothing_out_changes_no_batch(tiny_set):
    options = {"batch": 5, "seed": 1}
    split_off = walk(tiny_set, 5, indices=split(np.arange(COUNT), 0)[0], **options)
    for one, other in zip(walk(tiny_set, 5, **options), split_off, strict=True):
        assert torch.equal(one.indices, other.indices)


@pytest.mark.parametrize("augmentation", [None, AugmentConfig(flip=True)])
def test_nothing_is_told_of_pictures_where_nothing_is_asked_to_be_told(tiny_set, augmentation):
    (batch,) = walk(tiny_set, 1, batch=3, seed=0, augmentation=augmentation)
    assert batch.augmentation is None


def test_what_edm_does_is_told(tiny_set):
    (batch,) = walk(tiny_set, 1, batch=COUNT, seed=0, augmentation=replace(ALL, edm=1.0))
    assert batch.augmentation.shape == (COUNT, ALL.labels)
    assert batch.augmentation.any(1).all()


def test_pictures_kept_in_memory_make_the_same_batches(tiny_set):
    options = {"batch": 5, "seed": 7, "augmentation": ALL}
    kept = walk(keep(tiny_set, "memory", torch.device("cpu")), 5, **options)
    for one, other in zip(walk(tiny_set, 5, **options), kept, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
@pytest.mark.parametrize("place", ["disk", "memory", "device"])
def test_a_gpu_is_given_the_batches_of_the_cpu(tiny_set, place):
    # Without what is computed in floats, and rounds in its own way there.
    options = {"batch": 5, "seed": 7, "augmentation": AugmentConfig(flip=True, crop=2)}
    cuda = torch.device("cuda")
    there = walk(keep(tiny_set, place, cuda), 20, device=cuda, **options)
    for one, other in zip(walk(tiny_set, 20, **options), there, strict=True):
        assert other.images.device.type == "cuda"
        assert torch.equal(one.images, other.images.cpu())
        assert torch.equal(one.indices, other.indices)


def test_a_batch_of_nothing_is_refused(tiny_set):
    with pytest.raises(ConfigError, match=r"training\.batch = 0; expected 1 or more\."):
        next(batches(tiny_set, batch=0, seed=0))
