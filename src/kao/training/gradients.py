"""The gradient of one batch, however it is cut into pieces.

A batch is one set of numbers: its times are drawn together, and so are whose class is kept back
and the seed of each image's dropout; its noise in chunks of eight images, each from a generator of
its own.  So the loss of an image does not depend on how many images are worked on at once, nor on
which process works on it; sums differ by their rounding alone.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kao.data.loading import Batch
from kao.diffusion import Drawn
from kao.diffusion.schedules import Level
from kao.errors import LoneError
from kao.machine import Precision, not_compiled, out_of_memory, release
from kao.networks import Conditions
from kao.networks.dropout import seeded
from kao.pixels import to_float
from kao.processes import ALONE, Processes
from kao.seeds import mixed_seed
from kao.training.classes import Classes
from kao.training.curriculum import Curriculum, Glance, Shown, whole_pictures
from kao.training.objective import Objective
from kao.training.parallel import micro

CHUNK = 8
"""Images whose noise comes from one generator."""

_TIMES, _DROPOUT, _NOISE, _CLASSES = 2, 3, 5, 6
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


_NOT_COMPILED = (
    "training.compile = true, and torch cannot compile the network on this machine ({}): install a "
    "C++ compiler that it can use (g++, or the one that CXX names), or set training.compile = "
    "false, which trains the same more slowly."
)


class Figures(NamedTuple):
    """What a step learned of its images, of all processes, in batch order; float64 on the CPU.

    Attributes:
        t: Times, (B,).
        level: Noise levels, fields (B,).
        value: What is descended, (B,).
        shown: Comparable between levels and runs, (B,).
        error: Of x_0, (B,).
        pull: What the gradient grows with, (B,).
        usual: Whether losses are those of pictures as they will be drawn, and so tell of the
            times; small pictures have smaller ones.
    """

    t: Tensor
    level: Level
    value: Tensor
    shown: Tensor
    error: Tensor
    pull: Tensor
    usual: bool = True


class Gradients:
    """Adds the gradient of a batch's mean loss to the parameters.

    Args:
        objective: Denoiser and loss, on the device.
        module: The objective, or what shares it between processes: see `parallel.spread`.
        device: Where the objective is.
        precision: What the network computes in.
        scaler: Of fp16.
        seed: Of the run.
        micro_batch: Most images at once; 0: all of this process's, and fewer from where memory
            runs out.
        channels_last: Whether images are laid out with their channels innermost.
        curriculum: What of each picture is looked at; None: all of it.
        classes: How classes are told; None: they are not.
        processes: Which part of the batch is worked on here.
    """

    def __init__(
        self,
        objective: Objective,
        module: nn.Module,
        *,
        device: torch.device,
        precision: Precision,
        scaler: torch.amp.GradScaler | None,
        seed: int,
        micro_batch: int = 0,
        channels_last: bool = False,
        curriculum: Curriculum | None = None,
        classes: Classes | None = None,
        processes: Processes = ALONE,
    ):
        self.objective, self.module, self.device = objective, module, device
        self.precision, self.scaler, self.seed = precision, scaler, seed
        self.micro_batch, self._fixed = micro_batch, micro_batch > 0
        self.curriculum, self.classes, self.processes = curriculum, classes, processes
        self._layout = torch.channels_last if channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """The context in which the network computes in this run's precision."""
        return torch.autocast(
            self.device.type, _DTYPES[self.precision], enabled=self.precision != "fp32"
        )

    def of(self, batch: Batch, *, images: int, done: float) -> Figures:
        """Backpropagate the mean loss of a batch, and say what was seen.

        Where memory runs out and the size of the pieces is left open, they are halved and the
        batch starts again: the numbers are the same.

        Args:
            batch: This process's pictures.
            images: Images seen before it; decides all that is drawn.
            done: Share of the run that is behind, for the curriculum.

        Raises:
            LoneError: Memory does not hold one piece of the size that was asked for, or a
                single image; or the network is to be compiled and cannot be.
        """
        while True:
            try:
                return self._of(batch, images, done)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    if not_compiled(error):
                        raise LoneError(_NOT_COMPILED.format(_first_line(error))) from error
                    raise
                tried = self.micro_batch or len(batch.images)
                reason = _first_line(error)
            # Outside of the handler, whose traceback holds every activation.
            self._shrink(tried, reason)

    def seeds(self, images: int) -> dict[str, int]:
        """What the generators of the batch that follows after `images` images are seeded with."""
        seeds = {
            "times": mixed_seed(_TIMES, self.seed, images),
            "noise of the first chunk": mixed_seed(_NOISE, self.seed, images, 0),
            "dropout": mixed_seed(_DROPOUT, self.seed, images),
        }
        if self.classes is not None:
            seeds["classes"] = mixed_seed(_CLASSES, self.seed, images)
        return seeds

    def _shrink(self, tried: int, reason: str) -> None:
        if self._fixed or tried == 1 or self.processes.world > 1:
            raise LoneError(
                f"A step of {tried} images at once does not fit into memory ({reason}): set "
                f"training.micro_batch = {max(1, tried // 2)}, training.gradient_checkpointing = "
                f'"blocks", or a smaller network.width.'
            )
        self.micro_batch = (tried + 1) // 2
        for parameter in self.objective.parameters():
            parameter.grad = None
        release(self.device)

    def _of(self, batch: Batch, images: int, done: float) -> Figures:
        objective, count = self.objective, batch.count
        generator = torch.Generator().manual_seed(mixed_seed(_TIMES, self.seed, images))
        times = objective.loss.times(count, generator)
        glance = self._glance(batch, done, generator)
        mine = self.processes.rows(count)
        labels = self._labels(batch, mine, images=images)
        dropout = self._dropout(count, images=images)

        parts, noise = [], None
        for rows in pieces(mine, self.micro_batch):
            here = slice(rows.start - mine.start, rows.stop - mine.start)
            x0 = to_float(batch.images[here].to(self.device, non_blocking=True))
            shown = glance(x0, rows)
            noise = noise or self._noise(shown, mine, images=images)
            drawn = Drawn(times.t[rows], times.weight[rows], *(each[here] for each in noise))
            with (
                micro(self.module, last=rows.stop == mine.stop),
                seeded(objective.denoiser.network, dropout[rows]),
            ):
                with self.autocast():
                    losses = self.module(
                        shown.x0.contiguous(memory_format=self._layout),
                        self._conditions(batch, here, shown, labels),
                        drawn,
                    )
                # Processes share the mean of their gradients, which then is that of the batch.
                loss = losses.value.sum() * (self.processes.world / count)
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            figures = [losses.value.detach(), losses.shown, losses.error, losses.pull]
            parts.append(torch.stack(figures, dim=1))

        # One transfer for all that the host wants to know of the images.
        told = self.processes.gather(torch.cat(parts)).cpu().double()
        value, comparable, error, pull = told.unbind(1)
        level = objective.denoiser.schedule(times.t)
        return Figures(times.t, level, value, comparable, error, pull, usual=shown.noise == 1)

    def _glance(self, batch: Batch, done: float, generator: torch.Generator) -> Glance:
        if self.curriculum is None:
            return whole_pictures
        size = batch.images.shape[-1]
        return self.curriculum.at(done, batch=batch.count, size=size, generator=generator)

    def _labels(self, batch: Batch, mine: slice, *, images: int) -> Tensor | None:
        """What is told of the classes of this process's pictures, (b,); None: nothing."""
        if self.classes is None:
            return None
        assert batch.labels is not None, "a set without classes is refused before"
        generator = torch.Generator().manual_seed(mixed_seed(_CLASSES, self.seed, images))
        kept_back = self.classes.kept_back(batch.count, generator)
        return self.classes.told(batch.labels, kept_back[mine]).to(self.device)

    def _dropout(self, count: int, *, images: int) -> Tensor:
        """The seeds of the batch's dropout, (B,), int64, on the device."""
        generator = torch.Generator().manual_seed(mixed_seed(_DROPOUT, self.seed, images))
        return torch.randint(2**63 - 1, (count,), generator=generator).to(self.device)

    def _conditions(
        self, batch: Batch, here: slice, shown: Shown, labels: Tensor | None
    ) -> Conditions | None:
        augmentation = None
        if batch.augmentation is not None:
            augmentation = batch.augmentation[here].to(self.device)
        if shown.where is None and augmentation is None and labels is None:
            return None
        label = None if labels is None else labels[here]
        return Conditions(shown.where, augmentation, label)

    def _noise(self, shown: Shown, rows: slice, *, images: int) -> tuple[Tensor, Tensor]:
        """Eps and seen of `Drawn` for rows of the batch that follows after `images` images.

        Args:
            shown: What the network is shown of some of them: gives the shape.
            rows: Of the whole batch.
            images: Images seen before the batch.
        """
        like = torch.empty((CHUNK, *shown.x0.shape[1:]), dtype=shown.x0.dtype)
        first = rows.start // CHUNK
        chunks = []
        for chunk in range(first, -(-rows.stop // CHUNK)):
            seed = mixed_seed(_NOISE, self.seed, images, chunk)
            noise = self.objective.loss.noise(like, torch.Generator().manual_seed(seed))
            chunks.append(noise)
        within = slice(rows.start - first * CHUNK, rows.stop - first * CHUNK)

        def placed(each: Sequence[Tensor]) -> Tensor:
            whole = torch.cat(list(each))[within]
            return shown.noise * whole.to(self.device, non_blocking=True)

        eps = placed([eps for eps, _ in chunks])
        if self.objective.loss.input_perturbation == 0:
            return eps, eps
        return eps, placed([seen for _, seen in chunks])


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def pieces(rows: slice, most: int) -> Iterator[slice]:
    """Rows in order, at most `most` at a time; 0: all at once."""
    most = most or max(1, rows.stop - rows.start)
    for start in range(rows.start, rows.stop, most):
        yield slice(start, min(start + most, rows.stop))
