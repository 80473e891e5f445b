"""Whether a run's precision computes what fp32 computes: one batch, compared before the run.

Reduced precision fails in two ways that a loss curve shows late or never: numbers that overflow,
and sums that lose what is small beside what is large.  Which of them a network meets depends on
its layers, the hardware and the library's kernels, so it is tried rather than believed.
"""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kao.diffusion import Drawn
from kao.machine import Precision
from kao.pixels import to_float
from kao.seeds import mixed_seed
from kao.shards import sharded
from kao.training.trainer import Trainer

_TEST = 30

PICTURES = 16
"""Compared, at most: enough for every noise level to be met, few enough to take a moment."""

LEAST_COSINE = 0.95
"""Between the two gradients: 18 degrees.

A step along a gradient that is off by an angle goes down by the cosine's share of what the true
one would, so this gives away a twentieth.  Rounding to bf16's 8 bits comes to 0.9996 and more on
fresh networks of our recipes, and to 0.988 to 0.994 after 100,000 images of faces-32, where
gradients are small sums of large terms.  The gradients of two batches of 16 pictures have a cosine
of 0.5 there.
"""

MOST_NORM = 0.15
"""Relative difference of the gradients' norms; 0.002 on fresh networks, to 0.045 on trained ones.

Clipping and Adam divide a constant factor out, so a share of it costs nothing.
"""

MOST_LOSS = 0.02
"""Relative difference of the losses, several times that of one rounding to bf16, 0.4 %; 0.001 at
most was met."""


@dataclass(frozen=True)
class PrecisionTest:
    """One batch in the run's precision against the same in fp32.

    Attributes:
        precision: Of the run.
        pictures: In the batch.
        loss: Relative difference of the mean loss, 0 and up; no number where one is not finite.
        cosine: Of the angle between the gradients of all learned parameters together.
        norm: Relative difference of the norms of those gradients, likewise.
        worst: The parameter with the largest share of the difference of the gradients.
        seconds: It took.
    """

    precision: Precision
    pictures: int
    loss: float
    cosine: float
    norm: float
    worst: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the differences are what rounding explains; false where one is no number."""
        return self.loss <= MOST_LOSS and self.cosine >= LEAST_COSINE and self.norm <= MOST_NORM

    @property
    def sentence(self) -> str:
        """The result for a log."""
        compared = f"{self.precision} against fp32 on {self.pictures} pictures"
        if not math.isfinite(self.loss):
            return f"{compared}: the loss is not finite."
        if not math.isfinite(self.norm):
            return f"{compared}: the gradient of {self.worst} is not finite."
        figures = (
            f"{compared}: loss differs by {self.loss:.2%}, gradients' norm by {self.norm:.2%}, "
            f"cosine {self.cosine:.4f}"
        )
        if self.passed:
            return f"{figures}."
        return f"{figures}; that is more than rounding explains, most of it in {self.worst}."


def compare_precision(trainer: Trainer) -> PrecisionTest | None:
    """Take loss and gradient of one batch in the run's precision and in fp32.

    Both times weights, pictures, times and noise are the same and dropout is off.  An untrained
    network says nothing of its inside, since its residual blocks and its last layer begin at zero
    and so does the gradient of all that lies behind them; matrices that are zero altogether are
    lent the values of an ordinary initialisation, variance 1 / fan-in, while this looks.

    In fp32 matrices are multiplied as the run would have it: in TF32 where that is allowed.

    Nothing of the run is changed: weights are put back to the bit, no generator, gradient,
    optimiser, loss scaler or meter is touched.

    Args:
        trainer: Before its first step, or wherever it stands.

    Returns:
        The comparison, the same in every process; None where there is nothing to compare: the run
        is in fp32, its weights are spread over processes, or memory does not hold one picture.
    """
    objective = trainer.gradients.objective
    if trainer.gradients.precision == "fp32" or any(map(sharded, objective.parameters())):
        return None
    started = time.perf_counter()
    images = next(trainer.batches(trainer.progress.images)).images
    count = min(PICTURES, len(images), trainer.gradients.micro_batch or PICTURES)
    test = None
    with _only_lent(trainer):
        while test is None and count > 0:
            try:
                test = _compared(trainer, images[:count])
            except torch.OutOfMemoryError:
                count //= 2
    if test is not None:
        test = replace(test, seconds=time.perf_counter() - started)
    # Each process has pictures of its own, and all must come to the same verdict.
    agreed: PrecisionTest | None = trainer.processes.broadcast(test)
    return agreed


def _compared(trainer: Trainer, images: Tensor) -> PrecisionTest:
    gradients = trainer.gradients
    names = [name for name, p in gradients.objective.named_parameters() if p.requires_grad]
    exact_loss, exact = _gradient(trainer, images, scale=1.0, fp32=True)
    # fp16 needs its loss scaled up, by less where that overflows: see `torch.amp.GradScaler`.
    scale = 1.0 if gradients.scaler is None else float(gradients.scaler.get_scale())
    loss, rough = _gradient(trainer, images, scale=scale, fp32=False)
    while scale > 1 and math.isfinite(loss) and not _finite(rough):
        scale = max(1.0, scale / 8)
        loss, rough = _gradient(trainer, images, scale=scale, fp32=False)

    pairs = list(zip(rough, exact, strict=True))
    norm, exact_norm = (float(_sums(g * g for g in side).sum().sqrt()) for side in (rough, exact))
    across = float(_sums(a * b for a, b in pairs).sum())
    apart = _sums((a - b).square() for a, b in pairs)
    return PrecisionTest(
        precision=gradients.precision,
        pictures=len(images),
        loss=abs(loss - exact_loss) / abs(exact_loss),
        cosine=across / (norm * exact_norm) if norm else 0.0,
        norm=abs(norm - exact_norm) / exact_norm,
        worst=names[int(apart.nan_to_num(math.inf).argmax())],
        seconds=0.0,
    )


def _gradient(
    trainer: Trainer, images: Tensor, *, scale: float, fp32: bool
) -> tuple[float, list[Tensor]]:
    """Mean loss of a batch and its gradient, in the run's precision or in fp32.

    Args:
        trainer: Whose objective.
        images: uint8, (B, 3, S, S).
        scale: Factor on the loss while its gradient is taken.
        fp32: Whether to leave the run's precision aside.

    Returns:
        The loss, and of every learned parameter its gradient, without the factor.
    """
    objective = trainer.gradients.objective
    seed = mixed_seed(_TEST, trainer.gradients.seed, trainer.progress.images)
    generator = torch.Generator().manual_seed(seed)
    x0 = to_float(images.to(trainer.device))
    t, importance = objective.loss.times(len(x0), generator)
    drawn = Drawn(t, importance, *objective.loss.noise(x0, generator))
    learned = [p for p in objective.parameters() if p.requires_grad]
    with (
        torch.autocast(trainer.device.type, enabled=False) if fp32 else trainer.gradients.autocast()
    ):
        loss = objective(x0, None, drawn).value.mean()
    found = torch.autograd.grad(loss * scale, learned, allow_unused=True)
    pairs = zip(found, learned, strict=True)
    return loss.item(), [torch.zeros_like(p) if g is None else g / scale for g, p in pairs]


def _sums(tensors: Iterable[Tensor]) -> Tensor:
    """Sum of each, float64 on the CPU."""
    return torch.stack([tensor.sum() for tensor in tensors]).cpu().double()


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@contextmanager
def _only_lent(trainer: Trainer) -> Iterator[None]:
    """Dropout off, layers uncompiled, zero matrices lent values; everything back at the end."""
    objective = trainer.gradients.objective
    training = {module: module.training for module in objective.modules()}
    zero = [p for p in objective.parameters() if p.ndim >= 2 and not p.detach().any()]
    kept = [p.detach().clone() for p in zero]
    generator = torch.Generator().manual_seed(mixed_seed(_TEST, trainer.gradients.seed))
    with torch.compiler.set_stance("force_eager"):  # for one batch nothing is compiled
        try:
            objective.eval()
            for parameter in zero:
                _lend(parameter, generator)
            yield
        finally:
            for module, mode in training.items():
                module.training = mode
            with torch.no_grad():
                for parameter, value in zip(zero, kept, strict=True):
                    parameter.copy_(value)  # a zero may have a sign


@torch.no_grad()
def _lend(parameter: nn.Parameter, generator: torch.Generator) -> None:
    fan_in = parameter[0].numel()
    values = torch.randn(parameter.shape, generator=generator) / math.sqrt(fan_in)
    parameter.copy_(values)
