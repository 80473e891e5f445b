"""Reading diffusers' UNet2DModel, alone or in a pipeline, as our U-Net."""

from kao.errors import ConfigError
from kao.exchange.diffusers_config import CLASS, read_config
from kao.exchange.diffusers_files import (
    SCHEDULER_FACTS,
    class_name,
    class_names,
    licence_of,
    network_of,
    scheduler_of,
    state_of,
)
from kao.exchange.diffusers_names import renewed, rules
from kao.exchange.facts import whole
from kao.exchange.formats import Facts, Format
from kao.exchange.located import Source
from kao.exchange.model import Model
from kao.exchange.renaming import to_ours


def read(source: Source, facts: Facts) -> Model:
    """A UNet2DModel with its weights and its scheduler.

    Args:
        source: A folder of such a model, or of a pipeline with one.
        facts: Of `FORMAT.facts`.

    Raises:
        ConfigError: It has an option that cannot be expressed here; the message names the key.
        CheckpointError: Weights are missing, damaged or of another network.
    """
    found = network_of(source)
    assert found is not None, "read is called of what was recognised"
    folder, table = found
    described = read_config(table, size=whole(facts, "size"))
    told = scheduler_of(source, facts)
    learned = described.outputs > described.channels
    if told.learned_variance not in (None, learned):
        raise ConfigError(
            f"out_channels = {described.outputs} does not go with the scheduler's variance_type of "
            f"{source.origin}, by which the network says "
            f"{'a' if told.learned_variance else 'no'} variance: one of them is wrong."
        )
    named = rules(
        described.network,
        size=described.size,
        classes=described.classes,
        flipped=described.flipped,
    )
    return Model(
        network=described.network,
        channels=described.channels,
        size=described.size,
        classes=class_names(source, described.classes),
        schedule=told.schedule,
        target=told.target,
        learned_variance=learned,
        weights=to_ours(named, renewed(state_of(folder, source)), origin=source.origin),
        origin=source.origin,
        sampling=told.sampling,
        licence=licence_of(source),
        notes=told.notes,
    )


FORMAT = Format(
    says=f"a folder of diffusers with a {CLASS}",
    recognises=lambda source: class_name(source) == CLASS,
    read=read,
    facts={"size": "pixels along a side, where sample_size is left out", **SCHEDULER_FACTS},
    several=True,
)
