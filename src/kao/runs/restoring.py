"""Putting what a checkpoint holds into a trainer: all of it, or what a branch can carry."""

from typing import Any

import torch

from kao.checkpoints import LOSS, MODEL, Checkpoint
from kao.config import RunConfig, dump, leaves
from kao.errors import ConfigError
from kao.runs.changes import changed_keys
from kao.training import Trainer
from kao.training.parallel import place_in

SHAPING = (
    "network.",
    "loss.bound",
    "training.curriculum",
    "data.augment.",
    "conditions.",
    "finetune.",
)
"""Keys that decide which weights a network has."""


def restore(checkpoint: Checkpoint, trainer: Trainer) -> None:
    """Take up a run where a checkpoint of it was written.

    Raises:
        CheckpointError: It is of another model.
    """
    checkpoint.load_into(trainer.denoiser, MODEL)
    if trainer.loss.state_dict():
        checkpoint.load_into(trainer.loss, LOSS)
    for name, average in trainer.ema.items():
        average.load(checkpoint.weights(name))
    trainer.load_state_dict(checkpoint.state())
    _load_shards(checkpoint, trainer)


def _load_shards(checkpoint: Checkpoint, trainer: Trainer) -> None:
    """Fill in what several processes saved of the optimiser's state, each its part."""
    if checkpoint.shards is None:
        return
    from kao.checkpoints.shards import load_shards

    load_shards(checkpoint.shards, place_in(trainer.optimizer))


def refuse_other_weights(checkpoint: Checkpoint, there: RunConfig, now: RunConfig) -> None:
    """Raise a ConfigError where a branch's network has no place for a checkpoint's weights.

    Args:
        checkpoint: Of the run that is branched from.
        there: Its configuration.
        now: The branch's.
    """
    wanted = {n: t.shape for n, t in now.build_denoiser("meta").state_dict().items()}
    held = {n: t.shape for n, t in checkpoint.weights(MODEL).items()}
    if wanted == held:
        return
    misfit = next(n for n in {**wanted, **held} if wanted.get(n) != held.get(n))
    before, after = leaves(dump(there)), leaves(dump(now))
    changes = [
        f"{key} = {before.get(key, 'not set')!r} there and {after.get(key, 'not set')!r} now"
        for key in changed_keys(there, now)
        if key.startswith(SHAPING)
    ]
    raise ConfigError(
        f"The weights of {checkpoint.path} do not fit this network, {misfit} for one: "
        f"{'; '.join(changes)}. Leave that as it is, or begin a new run without --branch."
    )


def carry(
    checkpoint: Checkpoint, trainer: Trainer, *, there: RunConfig, now: RunConfig
) -> list[str]:
    """Begin a branch with what another run has learned.

    Weights and progress go on.  So do averages of the same name, what the loss learned and the
    optimiser's state, where they still mean the same; the rest begins afresh.

    Args:
        checkpoint: Of the run that is branched from; its weights fit.
        trainer: Of the branch, at its start.
        there: Configuration of the run that is branched from.
        now: The branch's.

    Returns:
        What begins afresh, for the user.
    """
    notes: list[str] = []
    checkpoint.load_into(trainer.denoiser, MODEL)
    held = {file.stem for file in checkpoint.path.glob("*.safetensors")}
    for name, average in trainer.ema.items():
        if name not in held:
            notes.append(f"The average {name} begins with the weights as they are.")
        average.load(checkpoint.weights(name if name in held else MODEL))

    learned = {name: tensor.shape for name, tensor in trainer.loss.state_dict().items()}
    if learned:
        saved = checkpoint.weights(LOSS) if LOSS in held else {}
        if there.loss == now.loss and learned == {n: t.shape for n, t in saved.items()}:
            checkpoint.load_into(trainer.loss, LOSS)
        else:
            notes.append("What the loss learns begins afresh.")

    state = checkpoint.state()
    optimizer = _optimizer_state(state["optimizer"], trainer, there=there, now=now)
    if optimizer is None:
        notes.append("The optimiser begins afresh: another optimizer.method, or other parameters.")
    trainer.load_state_dict({**state, "optimizer": optimizer or trainer.optimizer.state_dict()})
    if optimizer is not None:
        _load_shards(checkpoint, trainer)
    return notes


def _optimizer_state(
    saved: dict[str, Any], trainer: Trainer, *, there: RunConfig, now: RunConfig
) -> dict[str, Any] | None:
    """The saved state with the options that changed; None where it is another method's."""
    if type(there.optimizer.method) is not type(now.optimizer.method):
        return None
    before, after = (_groups(config, trainer) for config in (there, now))
    layouts = [[g["params"] for g in groups] for groups in (saved["param_groups"], before, after)]
    if layouts[0] != layouts[1] or layouts[1] != layouts[2]:
        return None
    groups = [
        {**kept, **{key: value for key, value in new.items() if old.get(key) != value}}
        for kept, old, new in zip(saved["param_groups"], before, after, strict=True)
    ]
    return {"state": saved["state"], "param_groups": groups}


def _groups(config: RunConfig, trainer: Trainer) -> list[dict[str, Any]]:
    """The options that an optimiser of that configuration starts with."""
    optimizer: torch.optim.Optimizer = config.build_optimizer(trainer.gradients.objective)
    return optimizer.state_dict()["param_groups"]
