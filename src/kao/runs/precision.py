"""The precision of a run that begins: chosen by hardware, kept if it computes what fp32 does."""

from dataclasses import replace

import torch

from kao.config import RunConfig
from kao.data.prepared import PreparedSet
from kao.machine import release
from kao.processes import ALONE, Processes
from kao.training.selftest import PrecisionTest, compare_precision


def trusted(
    config: RunConfig,
    prepared: PreparedSet,
    device: torch.device,
    *,
    chosen: bool,
    processes: Processes = ALONE,
) -> tuple[RunConfig, list[str]]:
    """Compare one batch in the run's precision with fp32, on a model that is thrown away.

    A precision that fails is replaced by fp32 where it was chosen for the user; one that the user
    asked for stays, since they may know better, and is warned about.

    Args:
        config: With its precision resolved.
        prepared: The pictures.
        device: Where it will train.
        chosen: Whether the precision was "auto".
        processes: Among which the run is shared; all of them test, the first decides.  A model
            that is sharded over them is not tested, since it need not fit into one.

    Returns:
        The configuration, and what the user should be told.
    """
    training = config.training
    if training.precision == "fp32" or (processes.world > 1 and training.parallel == "fsdp"):
        return config, []
    # One batch: copying all pictures to where they will lie, and compiling, would take longer.
    once = replace(
        config,
        data=replace(config.data, keep="disk"),
        training=replace(training, compile=False),
    )
    test: PrecisionTest | None = compare_precision(once.build(prepared, device))
    release(device)  # so that the run finds all memory free
    test = processes.broadcast(test)
    if test is None or test.passed:
        return config, [test.sentence] if test else []
    if chosen:
        config = replace(config, training=replace(training, precision="fp32"))
        return config, [f"{test.sentence} This run computes in fp32."]
    return config, [f'{test.sentence} Set training.precision = "fp32" if the loss does not fall.']
