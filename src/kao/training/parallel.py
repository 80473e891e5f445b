"""One objective trained by several processes: data parallel, or fully sharded.

Both see a batch in shares, one a process, and average the gradients, so that a step is that of
the whole batch in one process, to the rounding of sums.

* "ddp": every process holds the whole model (Li et al. 2020).  The fastest while it fits.
* "fsdp": every process holds a part of the weights, of their averages, gradients and optimiser
  state, and fetches each block's weights while it computes with them (Zhao et al. 2023b).
  For networks whose optimiser state does not fit beside them.

The mean over the batch comes out right where each process descends
(sum of the losses of its share) * processes / batch.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from kao.errors import CheckpointError, ConfigError
from kao.machine import Precision
from kao.processes import Processes, meeting
from kao.shards import like, local, sharded
from kao.training.objective import Objective

Mode = Literal["ddp", "fsdp"]


def check_spread(mode: Mode, processes: Processes, *, batch: int, precision: Precision) -> None:
    """Refuse what several processes cannot do.

    Args:
        mode: Of training.parallel.
        processes: Among whom.
        batch: Pictures a step, over all processes.
        precision: Resolved.

    Raises:
        ConfigError: A process would have no picture; or, with "fsdp", shares would differ, or the
            loss scaler of fp16 would be needed, which sees one process's part of the gradient.
    """
    world = processes.world
    if world == 1:
        return
    if batch < world:
        raise ConfigError(
            f"training.batch = {batch} leaves some of {world} processes without a picture: set it "
            f"to {world} or more, or start fewer processes."
        )
    if mode == "fsdp" and batch % world:
        raise ConfigError(
            f'training.parallel = "fsdp" needs shares of one size, and training.batch = {batch} is '
            f"no multiple of {world} processes: try {-(-batch // world) * world}."
        )
    if mode == "fsdp" and precision == "fp16":
        raise ConfigError(
            'training.parallel = "fsdp" does not go with training.precision = "fp16", whose loss '
            'scaler looks at whole gradients: use "bf16" or "fp32", or parallel = "ddp".'
        )


def spread(
    objective: Objective, mode: Mode, processes: Processes, device: torch.device
) -> nn.Module:
    """What to call in place of the objective, so that its gradients are averaged.

    To be called when weights are on the device, with gradient checkpointing set, and before the
    optimiser and averages are made: "fsdp" replaces the network's parameters.

    Args:
        objective: Changed in place by "fsdp".
        mode: Of training.parallel.
        processes: Among whom; one alone gets the objective back.
        device: Where it computes.

    Returns:
        A module with the objective's arguments and outputs.
    """
    if processes.world == 1:
        return objective
    if mode == "ddp":
        with warnings.catch_warnings():  # the newer name of the option is not known everywhere
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            # Buffers are set from gathered figures, the same in every process.
            return DistributedDataParallel(
                objective, broadcast_buffers=False, gradient_as_bucket_view=True
            )
    # Importing it takes half a second, which nobody else need wait.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes.world,))
    for unit in units(objective):
        fully_shard(unit, mesh=mesh)
    return objective


def units(objective: Objective) -> list[nn.Module]:
    """The parts whose weights are fetched together, inner before outer.

    Each entry of the network's lists of blocks is one, and the network with what is in no list
    (embedding, first and last layer); so is each part of the loss that learns.
    """
    network = objective.denoiser.network
    lists = [child for child in network.children() if isinstance(child, nn.ModuleList)]
    blocks = [block for blocks in lists for block in blocks]
    return [unit for unit in (*blocks, network, *objective.loss.children()) if _learns(unit)]


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


@contextmanager
def micro(module: nn.Module, *, last: bool) -> Iterator[None]:
    """Around the forward and backward pass of one piece of a batch.

    Args:
        module: From `spread`.
        last: Whether this is the last piece of this process's share, with which gradients are
            averaged over processes; before it they add up where they are.

    Raises:
        LoneError: Another process is gone.
    """
    if isinstance(module, DistributedDataParallel):
        with meeting() if last else module.no_sync():
            yield
        return
    if not dist.is_initialized():
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_requires_gradient_sync(last, recurse=False)
    with meeting():
        yield


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> float:
    """Scale all gradients down so that their norm together is at most `limit`.

    Args:
        parameters: Plain or sharded; those without a gradient are left out.
        limit: Largest norm; 0 leaves gradients alone.

    Returns:
        The norm before, the same number in every process.  It may be infinite or no number; then
        the gradients are worth nothing.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = get_total_norm([g for g in gradients if not sharded(g)])
    if parts := [local(g) for g in gradients if sharded(g)]:
        square = get_total_norm(parts) ** 2
        with meeting():
            dist.all_reduce(square)
        total = (total.to(square) ** 2 + square).sqrt()
    if limit and gradients:
        # A hair below the limit, as torch has it, so that a norm of zero divides nothing.
        factor = (limit / (total + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([local(g) for g in gradients], factor)
    return float(total)


def shard_state(optimizer: torch.optim.Optimizer) -> None:
    """Lay out an optimiser's state as its parameters are, after whole state was loaded into it."""
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and not sharded(value):
                entries[name] = like(value, parameter)


def place_in(optimizer: torch.optim.Optimizer) -> Callable[[str, torch.Size, torch.dtype], Tensor]:
    """Makes room in an optimiser's state for tensors that processes saved together.

    Args:
        optimizer: With the rest of its state loaded.

    Returns:
        A function from the path of a tensor in the trainer's state, ".../3/exp_avg", its shape and
        its type to the tensor to fill: laid out as the parameter, and already the optimiser's.
        It raises a CheckpointError for a tensor that fits no parameter.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def place(path: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
        *_, index, name = path.split("/")
        parameter = parameters[int(index)] if int(index) < len(parameters) else None
        if parameter is None or parameter.shape != size:
            raise CheckpointError(
                f"The optimiser's state does not fit this model ({path} has the shape "
                f"{tuple(size)}): resume with the configuration that the run was started with."
            )
        tensor = torch.empty_like(parameter.detach(), dtype=dtype)
        optimizer.state[parameter][name] = tensor
        return tensor

    return place
