"""The loss on pictures that are never trained on, beside that on as many that are.

What training shows of itself is noisy, since each step draws pictures, times and noise anew, and
it cannot tell learning from memorising.  Here all three stay the same from
the first step to the last and from run to run, so that a curve of few points is smooth, and the
difference of the two sets is what the model has memorised: no held-out picture has a near
duplicate among those that are trained on.
"""

import math
import time
from typing import NamedTuple

import torch
from torch import Tensor

from kao.data.keeping import Pictures
from kao.data.split import split
from kao.diffusion import DiscreteSchedule, Drawn, NoiseSchedule
from kao.networks import Conditions
from kao.pixels import to_float
from kao.processes import Processes
from kao.runs.weights import lent
from kao.seeds import mixed_seed
from kao.tracking import Tracker
from kao.training import Trainer
from kao.training.meter import BAND_EDGES, band_names

_PICTURES, _NOISE = 20, 21
"""What the seeds of this file are mixed with; the run's own seed is not among them."""

_MOST, _FEWEST = 252, 24
"""Pairs of a picture and its noise in a set: at most 42 a band, and at least four."""

_SHARE = 0.03
"""Of the time of a run that may go into this."""

_PASSES = 4 / 3
"""What a pair costs, in training steps of one picture: two sets, with two kinds of weights each,
and a network's forward pass is a third of a step."""

LEAST_INTERVAL = math.ceil(_FEWEST * _PASSES / _SHARE)
"""Images between calls below which even the fewest pairs cost more than that share."""

_AT_ONCE = 32
"""Pairs that go through the network together, at most."""

_END = 8.0
"""How far the two outer bands reach, in log-snr: past it there is nothing to see or all."""

_GOLDEN = (math.sqrt(5) - 1) / 2

_Figures = dict[str, float | dict[str, float]]


class Pairs(NamedTuple):
    """What is looked at, pair by pair; n pairs are the first n of any more.

    Attributes:
        picture: Place in the list of held-out pictures, and in that of training pictures, (n,).
        t: Time, float64, (n,).
        band: Noise band, 0 for the noisiest, (n,).
    """

    picture: Tensor
    t: Tensor
    band: Tensor


def pairs(schedule: NoiseSchedule, count: int, *, pictures: int) -> Pairs:
    """Times spread evenly over the log-snr of each band that the schedule reaches.

    Within a band they follow the multiples of the golden ratio, whose fractional parts lie evenly
    however many are taken (Weyl 1916).

    Args:
        schedule: What log-snr a time has.
        count: How many pairs.
        pictures: In a set; with fewer than pairs, each comes again in other bands.
    """
    first = 1.0 if isinstance(schedule, DiscreteSchedule) else 0.0
    reach = schedule(torch.tensor([float(schedule.t_max), first], dtype=torch.float64)).snr.log()
    edges = torch.tensor([-_END, *BAND_EDGES, _END], dtype=torch.float64).clamp(*reach.tolist())
    reached = (edges.diff() > 0).nonzero().flatten()

    k = torch.arange(count)
    picture, again = k % pictures, k // pictures
    asked = reached[(picture + again) % len(reached)]
    earlier = torch.stack([(asked[:i] == asked[i]).sum() for i in k])
    share = (0.5 + _GOLDEN * earlier.double()) % 1
    t = schedule.time_at(torch.lerp(edges[asked], edges[asked + 1], share))
    if isinstance(schedule, DiscreteSchedule):
        t = t.round().clamp(1, schedule.t_max)
    # The whole time nearest may lie in the band beside it.
    log_snr = schedule(t).snr.log()
    inner = torch.tensor(BAND_EDGES, dtype=torch.float64)
    return Pairs(picture, t, torch.bucketize(log_snr, inner, right=True))


def summary(losses: Tensor, seen: Pairs) -> _Figures:
    """Means by band and over all bands alike, each with its standard error.

    The error comes from the scatter between pictures, since noise and times are no sample: they
    are the same in every set (the linearised variance of a ratio, Cochran 1977, sec. 11.8, with a
    picture as the cluster, or a group of near duplicates, which are no independent samples).

    Args:
        losses: Of each pair, or differences of two sets pair by pair, float64, (n,).
        seen: What they are the losses of; `picture` numbers the clusters.

    Returns:
        loss, error, bands, errors; no errors where there is one picture only.
    """
    names = band_names()
    met = sorted(set(seen.band.tolist()))
    means, errors = {}, {}
    influence = torch.zeros_like(losses)
    for band in met:
        here = seen.band == band
        mean = losses[here].mean()
        off = (losses[here] - mean) / here.sum()
        influence[here] = off / len(met)
        means[names[band]] = mean.item()
        errors[names[band]] = _error(off, seen.picture[here])
    told: _Figures = {"loss": math.fsum(means.values()) / len(met), "bands": means}
    overall = _error(influence, seen.picture)
    if overall is not None:
        told["error"] = overall
        told["errors"] = {name: error for name, error in errors.items() if error is not None}
    return told


def _most_cautious(losses: Tensor, *seen: Pairs) -> _Figures:
    """The summary that claims least, of pairs in clusters of either set."""

    def doubt(told: _Figures) -> float:
        error = told.get("error")
        return error if isinstance(error, float) else math.inf

    return max((summary(losses, each) for each in seen), key=doubt)


def _error(influence: Tensor, picture: Tensor) -> float | None:
    """Standard error from what each pair moves a mean by; None for one picture."""
    clusters = len(set(picture.tolist()))
    if clusters < 2:
        return None
    sums = influence.new_zeros(int(picture.max()) + 1).index_add(0, picture, influence)
    return math.sqrt(sums.square().sum().item() * clusters / (clusters - 1))


def affordable_pairs(every: int) -> int:
    """How many pairs cost a small share of the time between two calls.

    Args:
        every: Images between them.
    """
    return max(_FEWEST, min(_MOST, int(_SHARE * every / _PASSES)))


def images_a_call(every: int) -> float:
    """What a call costs, in training steps of one picture.

    Args:
        every: Images between calls.
    """
    return affordable_pairs(every) * _PASSES


class HeldOut:
    """Losses on held-out and on training pictures, with averaged and with raw weights.

    Each pair is a picture of the set with its time and noise; the two sets share times and noise.
    No picture is augmented, no dropout is on, and nothing of the run is drawn from or changed.  A
    network that is told classes is told that of every picture.

    Args:
        pictures: The whole set.
        tracker: Told of the losses.
        held_out: How many pictures are held out, at least 1.
        every: Images between two calls; decides, too, how many pairs are looked at.
    """

    def __init__(self, pictures: Pictures, tracker: Tracker, *, held_out: int, every: int):
        self.tracker, self.every = tracker, every
        self.count = affordable_pairs(every)
        train, held = split(pictures.groups, held_out)
        self._pictures = min(len(held), len(train), self.count)
        chosen = [self._some(indices) for indices in (held, train)]
        self._images = torch.stack([pictures.take(some).cpu() for some in chosen], dim=1)
        groups = torch.from_numpy(pictures.groups)
        self._clusters = [torch.unique(groups[some], return_inverse=True)[1] for some in chosen]
        labels = pictures.labels
        self._labels = None if labels is None else torch.from_numpy(labels)[torch.stack(chosen, 1)]

    def _some(self, indices: Tensor) -> Tensor:
        """A few of the indices, (n,): of the same pictures in every run."""
        generator = torch.Generator().manual_seed(mixed_seed(_PICTURES, len(indices)))
        return indices[torch.randperm(len(indices), generator=generator)[: self._pictures]]

    def __call__(self, trainer: Trainer) -> None:
        """Take the losses and tell the tracker; nothing on the way out of a stopped run."""
        if trainer.stopping and trainer.done < 1:
            return
        started = time.perf_counter()
        seen = pairs(trainer.denoiser.schedule, self.count, pictures=self._pictures)
        average = next(iter(trainer.ema.values())).average
        figures: dict[str, object] = {"pairs": self.count}
        for weights in (average, None):
            with lent(trainer.denoiser, weights), torch.no_grad(), trainer.gradients.autocast():
                held, train = self._losses(trainer, seen)
            of_held, of_train = (seen._replace(picture=c[seen.picture]) for c in self._clusters)
            sets = {
                "held": summary(held, of_held),
                "train": summary(train, of_train),
                "gap": _most_cautious(held - train, of_held, of_train),
            }
            figures |= {"raw": sets} if weights is None else sets
        figures["seconds"] = round(time.perf_counter() - started, 3)
        self.tracker.event("held_out", trainer.progress.images, figures)

    def _losses(self, trainer: Trainer, seen: Pairs) -> tuple[Tensor, Tensor]:
        """Losses of all pairs, (n,) each, of held-out and of training pictures."""
        own = range(self.count)[trainer.processes.rows(self.count)]
        parts = [self._part(trainer, seen, rows) for rows in shares(self.count, trainer.processes)]
        losses = trainer.processes.gather(torch.cat(parts)[: len(own)])
        held, train = losses.cpu().double().unbind(1)
        return held, train

    def _part(self, trainer: Trainer, seen: Pairs, rows: Tensor) -> Tensor:
        """Losses of some pairs, (len(rows), 2)."""
        x0 = to_float(self._images[seen.picture[rows]].flatten(0, 1).to(trainer.device))
        noise = [_noise(int(row), x0.shape[1:]) for row in rows]
        eps = torch.stack(noise).to(x0).repeat_interleave(2, dim=0)
        t = seen.t[rows].repeat_interleave(2)
        told = self._told(trainer, seen.picture[rows])
        losses = trainer.gradients.objective(x0, told, Drawn(t, torch.ones_like(t), eps, eps))
        return losses.shown.view(-1, 2)

    def _told(self, trainer: Trainer, pictures: Tensor) -> Conditions | None:
        """What the network is told of both sets' pictures, in the order of their losses."""
        classes = trainer.gradients.classes
        if classes is None or self._labels is None:
            return None
        return Conditions(label=classes.told(self._labels[pictures].flatten()).to(trainer.device))


def _noise(pair: int, shape: torch.Size) -> Tensor:
    generator = torch.Generator().manual_seed(mixed_seed(_NOISE, pair))
    return torch.randn(shape, generator=generator)


def shares(count: int, processes: Processes) -> list[Tensor]:
    """This process's pairs, in parts of one size and as many as every other process has.

    A network whose weights lie in several processes must be called by all of them equally often,
    and one that is compiled should not see many sizes.  So the last rows may repeat.
    """
    own = processes.rows(count)
    most = -(-count // processes.world)
    calls = -(-most // _AT_ONCE)
    size = -(-most // calls)
    rows = torch.arange(own.start, own.start + calls * size).clamp(max=max(own.start, own.stop - 1))
    return list(rows.clamp(max=count - 1).view(calls, size))
