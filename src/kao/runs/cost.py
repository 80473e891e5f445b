"""What a run will cost, before it starts."""

from kao.config import RunConfig
from kao.config.run import CHANNELS
from kao.networks.cost import activation_bytes, flops, parameters

_BYTES = 4
# Weights, gradients, two AdamW moments, one average.
_COPIES = 5


def estimate(config: RunConfig) -> list[str]:
    """Parameters, operations and memory, a line each.

    Memory is that of a float32 step: five copies of the weights (with gradients, both moments
    of AdamW and the average) and what the forward pass keeps.  In bf16 the kept part is about
    half of it.

    Args:
        config: Checked.
    """
    network = config.build_denoiser("meta").network
    shape = (CHANNELS, config.data.size, config.data.size)
    weights = parameters(network)
    kept = activation_bytes(network, shape, batch=config.training.batch)
    if config.training.precision in ("bf16", "fp16"):
        kept //= 2
    total = _COPIES * _BYTES * weights + kept
    return [
        f"parameters: {weights:,}",
        f"operations a picture, forward: {flops(network, shape) / 1e9:.2f} GFLOP",
        f"memory of a step, estimated: {total / 2**20:,.0f} MB",
    ]
