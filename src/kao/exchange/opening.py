"""Opening other people's models: by a name, a folder or a file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from kao.data.storage import RUN, find
from kao.errors import CheckpointError, ConfigError, DataError, near_miss
from kao.exchange import diffusers_dit, diffusers_unet, lucidrains, openai, own
from kao.exchange.diffusers_files import CONFIG, INDEX, class_name
from kao.exchange.formats import Facts, Format
from kao.exchange.located import Source, locate
from kao.exchange.model import Model

FORMATS: Mapping[str, Format] = {
    "kao": own.FORMAT,
    "diffusers_unet": diffusers_unet.FORMAT,
    "diffusers_dit": diffusers_dit.FORMAT,
    "lucidrains": lucidrains.FORMAT,
    "openai": openai.FORMAT,
}
"""Formats that are read, in the order in which a source is held against them."""


def import_model(
    name: str | Path,
    *,
    revision: str | None = None,
    weights: str = "auto",
    facts: Facts = MappingProxyType({}),
) -> Model:
    """A model that somebody published, in our terms.

    Args:
        name: A folder, a file (.safetensors, .pt, .pth, .bin), or owner/name on the Hugging Face
            hub, from where configurations and weights alone are fetched.
        revision: A branch, a tag or a commit of the hub; None: the newest.
        weights: Which, where there are several: "auto" takes the averaged ones.
        facts: What the files leave open, by the names of the format's `facts`.

    Raises:
        CheckpointError: It cannot be found, fetched or read, is of no format that is known, has no
            such weights, or is a run of ours.
        ConfigError: It has an option that no network here has, or a fact that its format does not
            know.
        MissingExtraError: It is on the hub, and huggingface_hub is not installed.
    """
    name = str(name)
    source = locate(name, revision=revision, weights=weights)
    pushed = (source.path / own.FILE).is_file()  # with the run.toml that it was made by
    if not pushed and (source.table("card.json") is not None or (source.path / RUN).is_file()):
        raise CheckpointError(
            f"{name} is a kao run already, or one of its checkpoints: name it as it is, as in "
            f"`kao sample RUN` or `kao finetune RUN FACES`."
        )
    format_ = recognised(source)
    if weights != "auto" and not format_.several:
        raise CheckpointError(
            f'{name} has no weights "{weights}": it is {format_.says}, which holds one set of '
            f"them. Leave --weights out."
        )
    if strange := [fact for fact in facts if fact not in format_.facts]:
        known = f"what it leaves open: {', '.join(format_.facts)}" if format_.facts else "nothing"
        raise ConfigError(
            f'"{strange[0]}" cannot be said of {name}{near_miss(strange[0], format_.facts)}: it is '
            f"{format_.says}, of which one can say {known}."
        )
    try:
        model = format_.read(source, facts)
    except CheckpointError as error:
        raise CheckpointError(" ".join([str(error), *source.notes])) from error
    return replace(model, notes=(*source.notes, *model.notes))


def recognised(source: Source) -> Format:
    """The format of a source.

    Raises:
        CheckpointError: It is of none that is known.
    """
    if source.path.suffix.lower() == ".zip":  # as files of torch are, too, by another name
        _refuse_pictures(source)
    for format_ in FORMATS.values():
        if format_.recognises(source):
            return format_
    if (source.path.parent / CONFIG).is_file() and source.path.is_file():
        folder = source.path.parent
        whole = folder.parent if (folder.parent / INDEX).is_file() else folder
        raise CheckpointError(
            f"{source.origin} is a file of weights alone, and what they are of stands in the "
            f"{CONFIG} beside it: name its folder, {whole}."
        )
    _refuse_runs(source)
    _refuse_pictures(source)
    known = "; ".join(["a run of kao", *(format_.says for format_ in FORMATS.values())])
    raise CheckpointError(f"{source.origin} is {_met(source)}: expected {known}.")


def _refuse_runs(source: Source) -> None:
    """Raise a CheckpointError for a folder of runs or of checkpoints."""
    inside = sorted(source.path.iterdir()) if source.path.is_dir() else []
    if own := [file for file in inside if (file / RUN).is_file()]:
        raise CheckpointError(
            f"{source.origin} is a folder of kao runs or checkpoints: name one of them, as "
            f"{own[-1]}."
        )


def _refuse_pictures(source: Source) -> None:
    """Raise a CheckpointError for a folder or a ZIP file of pictures."""
    try:
        pictures = find(source.path).listing().pictures
    except DataError:  # a file that is no archive
        return
    if pictures:
        raise CheckpointError(
            f"{source.origin} holds pictures, and a trained model is expected in its place: kao "
            f"finetune BASE {source.origin} begins with one, and kao train {source.origin} with "
            f"none."
        )


def _met(source: Source) -> str:
    """What a source is that is of no format, as the middle of a sentence."""
    if not source.path.is_dir():
        return "a file of no format that is read"
    if (kind := class_name(source)) is not None:
        return f"a {kind}, which no network here is"
    empty = not any(source.path.iterdir())
    return "an empty folder" if empty else "a folder of no format that is read"
