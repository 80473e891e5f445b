"""Which average draws best: the pictures of each, held against real ones."""

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from kao.checkpoints import Checkpoint, fill
from kao.runs.averages import Facts, SavedAverage
from kao.runs.tuning import Bench
from kao.training.ema import average_width


def candidates(
    checkpoint: Checkpoint, reconstructed: Iterable[SavedAverage]
) -> Iterator[SavedAverage]:
    """The averages that a checkpoint holds, the one that is drawn with first, and then others.

    What was reconstructed although the checkpoint holds it is left out: it would draw the same.

    Args:
        checkpoint: Of the run.
        reconstructed: From its snapshots.

    Raises:
        CheckpointError: An average of the checkpoint is damaged.
    """
    held = set()
    for kind in checkpoint.averages:
        facts = Facts(kind, images=checkpoint.images, width=average_width(kind))
        held.add((facts.width, facts.images))
        yield SavedAverage(facts, checkpoint.weights(kind))
    for average in reconstructed:
        if (average.facts.width, average.facts.images) not in held:
            yield average


def drawn_features(bench: Bench, weights: Mapping[str, Tensor], *, n: int) -> Iterator[Tensor]:
    """Draw with other weights, as the run does, and see what the features say.

    Args:
        bench: Its model takes the weights; its noise is that of pictures 0..n - 1 of its seed,
            the same for all weights.
        weights: Tensors by name.
        n: Pictures.

    Yields:
        Features of a batch, float32, (B, D), on the CPU.

    Raises:
        CheckpointError: The weights are of another network.
    """
    fill(bench.denoiser, weights, bench.run.path)
    for images in bench.draw(bench.run.drawing(), range(n)):
        yield bench.features_of(images, batch=len(images))
