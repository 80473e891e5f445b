"""A run's network on its way out: with which weights, and without what is this machine's alone."""

from dataclasses import replace
from pathlib import Path

import torch

from kao.config import RunConfig, load_config
from kao.config.finetuning import FinetuneConfig
from kao.config.sampling import GuidanceConfig
from kao.data.sources import SOURCES
from kao.diffusion import Denoiser, grids
from kao.errors import ConfigError
from kao.exchange.trained import Trained
from kao.files import readable
from kao.networks.lora import merged
from kao.runs.averages import facts_of, known_name
from kao.runs.importing import imported_from
from kao.runs.provenance import Provenance
from kao.runs.run import CONFIG, Run


def trained(run: Run, *, weights: str = "ema") -> Trained:
    """The network of a run as it is given away.

    A network that was made for other levels than its run's, as a fine-tuned one may be, goes as
    what it was made for; adapters are added to the layers that they are on.

    Args:
        run: With a whole checkpoint.
        weights: As for `Run.denoiser`.

    Raises:
        CheckpointError: There is no whole checkpoint, or it has no such weights.
        ConfigError: The run's [sampling] does not fit it.
    """
    checkpoint, _ = run.checkpoint()
    denoiser = run.denoiser(checkpoint, weights=weights, device=torch.device("cpu"))
    config = load_config(checkpoint.config, str(checkpoint.path / CONFIG))
    sampling = run.config.sampling
    if sampling.guidance.worse:  # by another run, which does not come along
        sampling = replace(sampling, guidance=GuidanceConfig())
    sampling = run.drawing(sampling).sampling
    config = _native(public(replace(config, sampling=sampling), base=public_base(run)), denoiser)
    made = known_name(weights)
    return Trained(
        config=config,
        denoiser=Denoiser(
            merged(denoiser.network).eval().requires_grad_(False),
            denoiser.seen,
            config.target,
            sigma_data=denoiser.sigma_data,
            learned_variance=denoiser.learned_variance,
        ),
        name=readable(run.path.resolve().name),
        kind=made or (checkpoint.averages[0] if weights == "ema" else weights),
        images=facts_of(run.path, made).images if made else checkpoint.images,
    )


def public_base(run: Run) -> str:
    """What a run was fine-tuned from, as others know it; "" where it began with noise.

    That is the model of the hub that it goes back to, as was written down when it began, or else
    the last name of a path.  Of an imported run, what was published with it.
    """
    base = run.config.finetune.base
    if not base or imported_from(run.path) is not None:
        return base
    return Provenance.of_run(run.path).hub or last_name(base)


def public(config: RunConfig, *, base: str) -> RunConfig:
    """A configuration without the folders of this machine: of each path its last name is left.

    Names are as they are shown, since other programs want them in UTF-8.

    Args:
        config: Of a run.
        base: From `public_base`.
    """
    data = replace(
        config.data,
        source=readable(public_source(config.data.source)),
        classes=tuple(map(readable, config.data.classes)),
    )
    names = tuple(map(readable, config.conditions.names))
    guidance = replace(config.sampling.guidance, worse=last_name(config.sampling.guidance.worse))
    perceptual = replace(config.loss.perceptual, network=last_name(config.loss.perceptual.network))
    return replace(
        config,
        data=data,
        conditions=replace(config.conditions, names=names),
        sampling=replace(config.sampling, guidance=guidance),
        loss=replace(config.loss, perceptual=perceptual),
        finetune=replace(config.finetune, base=base),
    )


def public_source(source: str) -> str:
    """A source of pictures, as [data] has it, without the folders of this machine.

    Of a data set owner/name is kept.  It is not asked whether a folder of that name is there: what
    is published must not depend on where it is published from.
    """
    prefix, colon, rest = source.partition(":")
    if prefix not in SOURCES:
        return last_name(source)
    hub = rest.count("/") == 1 and not rest.startswith(("/", ".", "~"))
    return f"{prefix}{colon}{rest if hub else last_name(rest)}"


def last_name(path: str) -> str:
    """Of a path, what is left where the folders of this machine are not told."""
    return Path(path).name


def _native(config: RunConfig, denoiser: Denoiser) -> RunConfig:
    """The configuration with the levels and the target that the network itself was made for."""
    tuned = config.finetune
    config = replace(
        config,
        finetune=FinetuneConfig(base=tuned.base, sha256=tuned.sha256),
        schedule=tuned.schedule or config.schedule,
        target=tuned.target or config.target,
    )
    if denoiser.native is None:
        return config
    try:
        config.times(denoiser.seen)
    except ConfigError:
        return replace(config, sampling=replace(config.sampling, grid=grids.uniform))
    return config
