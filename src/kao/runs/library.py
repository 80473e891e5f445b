"""The calls that most library users need."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kao.files import readable
from kao.machine import device
from kao.processes import join
from kao.runs.ask import Ask
from kao.runs.run import Run, draw
from kao.runs.start import Session, ending, finish, open_session


def train(
    source: str | Path,
    *,
    run: str | Path,
    recipe: str | None = None,
    length: str | None = None,
    overrides: Sequence[str] = (),
    branch: str | Path | None = None,
) -> Run:
    """Train a model, or go on training it.

    Warns of what was passed over or changed when a run goes on, and of what goes wrong without
    ending it; a bar shows on a terminal while pictures are prepared.  Ctrl-C keeps what the last
    checkpoint holds.

    Args:
        source: A folder or zip file of pictures, "hf:NAME" or "toy".
        run: The run directory; one that exists is taken up where it stopped.
        recipe: Name or path; None takes the one for this machine.
        length: "10 minutes", "100k images", "1000 steps"; None leaves it to the recipe.
        overrides: Changes to the recipe, such as "network.width=64".
        branch: Directory of a new run that begins with the weights of `run`, whose configuration
            may differ, and leaves `run` alone.

    Returns:
        The run that was trained, which is the branch where there is one.

    Raises:
        KaoError: Something that the caller can mend; what was saved stays.
    """
    flags = {} if length is None else {"length": length}
    ask = Ask(
        run=Path(run),
        source=str(source),
        recipe=recipe,
        overrides=tuple(overrides),
        flags=flags,
        branch=None if branch is None else Path(branch),
    )
    return _trained(ask)


def finetune(
    base: str | Path,
    source: str | Path,
    *,
    run: str | Path,
    recipe: str | None = None,
    length: str | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Begin with a trained model and train it on other pictures, or go on with that.

    Network, schedule, target and loss are the base's unless something else is asked for.  Warns of
    what is converted and what is new, and as `train`.

    Args:
        base: A run, one of its checkpoints, or what `kao.exchange.import_model` takes.
        source: A folder or zip file of pictures, "hf:NAME" or "toy".
        run: The run directory; one that exists is taken up where it stopped.
        recipe: Name or path; None changes nothing of the base.
        length: "10 minutes", "100k images", "1000 steps"; None leaves it to the recipe.
        overrides: Changes, such as "finetune.freeze=4" or "finetune.train=lora".

    Returns:
        The run that was trained.

    Raises:
        KaoError: Something that the caller can mend; what was saved stays.
    """
    flags = {} if length is None else {"length": length}
    ask = Ask(
        run=Path(run),
        source=str(source),
        recipe=recipe,
        overrides=tuple(overrides),
        flags=flags,
        base=str(base),
    )
    return _trained(ask)


def _trained(ask: Ask) -> Run:
    session = open_session(ask, device())
    for line in session.plan:
        logging.getLogger("kao").info(readable(line))
    for note in session.notes:
        warnings.warn(readable(note), stacklevel=3)
    try:
        with ending(session):
            for _ in session.trainer.steps():
                _warn(session)
        finish(session)
    finally:
        _warn(session)
    return session.run


def _warn(session: Session) -> None:
    for line in session.news.take():
        logging.getLogger("kao").info(readable(line))
    for line in session.notices.take():
        warnings.warn(readable(line), stacklevel=4)


def sample(
    run: Run | str | Path, *, n: int = 16, seed: int = 0, classes: str | Sequence[str] = ()
) -> Tensor:
    """Draw pictures with a run's averaged weights, as its [sampling] says.

    In a program that a launcher started in several processes, all must call it: each draws its
    share, and all get all pictures.

    Args:
        run: A run, or its directory.
        n: How many.
        seed: Picture i of a seed is the same whatever n is.
        classes: Name of the class to draw, of a model that is told classes; of several, which come
            in turn.  Empty: all, in the shares of the pictures that were learned from.

    Returns:
        uint8, (n, 3, S, S).

    Raises:
        ConfigError: The model knows no such class.
        CheckpointError: The run is missing or has no whole checkpoint.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    processes = join(device())
    drawn = draw(
        opened.denoiser(),
        opened.drawing(),
        indices=range(n),
        classes=[classes] if isinstance(classes, str) else classes,
        seed=seed,
        processes=processes,
    )
    return torch.cat(list(drawn))
