"""What a run will cost, before it starts."""

from kao.config import RunConfig
from kao.config.run import CHANNELS
from kao.networks.cost import activation_bytes, flops, parameters
from kao.networks.recompute import recompute
from kao.runs.timetable import COUNTS
from kao.training import Length
from kao.training.optimizers import AdamW8bit, Adan, Muon, ScheduleFree

_BYTES = 4


def estimate(config: RunConfig) -> list[str]:
    """Parameters, operations, memory and disk, a line each.

    Args:
        config: Checked.
    """
    network = config.build_denoiser("meta").network
    shape = (CHANNELS, config.data.size, config.data.size)
    at_once = _at_once(config, world=1)
    lines = [
        f"parameters: {parameters(network):,}",
        f"operations a picture, forward: {flops(network, shape) / 1e9:.2f} GFLOP",
        f"memory of a step, estimated: {_megabytes(step_bytes(config))}"
        + (f", {at_once} pictures at once" if at_once < config.training.batch else ""),
        f"disk for a checkpoint: {_megabytes(checkpoint_bytes(config))}, of which "
        f"{config.hooks.keep_last} stay",
    ]
    if config.ema.snapshots:
        count = _snapshots(config)
        lines.append(
            f"disk for {count} snapshots of the averages: "
            f"{_megabytes(count * snapshot_bytes(config))}"
        )
    return lines


def step_bytes(config: RunConfig, *, world: int = 1) -> int:
    """Memory that a step takes in each process, estimated.

    Weights and gradients, what the optimiser remembers, the averages, and what the forward pass
    of one piece of the batch keeps, with gradient checkpointing as it is set.  In bf16 the kept
    part is about half of float32's.

    Args:
        config: Checked.
        world: Processes that share the batch, each with a model of its own.
    """
    network = config.build_denoiser("meta").network
    shape = (CHANNELS, config.data.size, config.data.size)
    recompute(network, config.training.gradient_checkpointing)
    kept = activation_bytes(network, shape, batch=_at_once(config, world=world))
    if config.training.precision in ("bf16", "fp16"):
        kept //= 2
    copies = 2 + moments(config) + (0 if config.ema.offload else averages(config))
    return round(copies * _BYTES * parameters(network)) + kept


def _at_once(config: RunConfig, *, world: int) -> int:
    """Pictures that go through the network of one process together."""
    share = -(-config.training.batch // world)
    pieces = config.training.micro_batch
    return share if pieces == "auto" else min(pieces, share)


def moments(config: RunConfig) -> float:
    """Numbers that the optimiser remembers for each weight, in float32's."""
    match config.optimizer.method:
        case Adan():
            return 4
        case Muon():
            return 1  # of what is not in matrices two, but that is little
        case AdamW8bit():
            return 0.5
        case _:
            return 2


def averages(config: RunConfig) -> int:
    """How many averages of the weights are kept."""
    return 1 + len(config.ema.tracked)


def checkpoint_bytes(config: RunConfig) -> int:
    """Bytes of a checkpoint: weights, averages and what the optimiser remembers."""
    weights = parameters(config.build_denoiser("meta").network)
    shown = averages(config) + isinstance(config.optimizer.method, ScheduleFree)
    return round(_BYTES * weights * (1 + shown + moments(config)))


def snapshot_bytes(config: RunConfig) -> int:
    """Bytes of one snapshot of the averages for later, which are kept in half precision."""
    weights = parameters(config.build_denoiser("meta").network)
    return _BYTES // 2 * weights * len(config.ema.tracked)


def _snapshots(config: RunConfig) -> int:
    every = config.ema.snapshots
    if every == "auto":
        return COUNTS["snapshots"]
    images = Length.parse(config.length, batch=config.training.batch).images
    return images // every if images else COUNTS["snapshots"]


def _megabytes(count: float) -> str:
    return f"{count / 2**20:,.0f} MB"
