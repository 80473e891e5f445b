"""A model that edits, and what a person hands to it: pictures, masks, times."""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from kao.config import RunConfig
from kao.config.sampling import evenly
from kao.data.pictures import EXTENSIONS, Crop, decode, fit
from kao.data.storage import Folder, Storage, find
from kao.diffusion import Denoise, Denoiser, DiscreteSchedule, NoiseSchedule
from kao.errors import ConfigError, DataError
from kao.files import at_home
from kao.pixels import to_float
from kao.runs.pictures import some_real
from kao.runs.run import Run, guided

MOST = 4
"""Pictures that are taken of a folder, or of the run's own."""

_HALF = 128
_THOUSAND = 1000


@dataclass(frozen=True)
class Chosen:
    """Pictures to edit.

    Attributes:
        names: One a picture.
        images: float32 in [-1, 1], (B, 3, S, S).
    """

    names: list[str]
    images: Tensor


@dataclass(frozen=True)
class Editor:
    """A run's model, with what every edit takes from it.

    Attributes:
        run: The run.
        config: Its configuration, with the steps that are asked for.
        denoiser: Its model.
        denoise: The model as [sampling] wants it.
        times: The grid of the whole way, float64, (steps + 1,).
        device: Where the model is.
    """

    run: Run
    config: RunConfig
    denoiser: Denoiser
    denoise: Denoise
    times: Tensor
    device: torch.device

    @classmethod
    def of(
        cls,
        run: Run,
        config: RunConfig,
        denoiser: Denoiser,
        *,
        steps: int | None = None,
        as_drawn: bool = False,
    ) -> Self:
        """The editor of a model that is loaded.

        Args:
            run: The run.
            config: Its configuration.
            denoiser: Its model.
            steps: Of the whole way; None: see `evenly`.
            as_drawn: Go along the times on which the run draws, whatever they are.

        Raises:
            ConfigError: The grid does not fit the schedule, or as `guided`.
            CheckpointError: As `guided`.
        """
        sampling = config.sampling
        if not as_drawn:
            sampling = evenly(sampling, denoiser.schedule)
        if steps is not None:
            sampling = replace(sampling, steps=steps)
        config = replace(config, sampling=sampling)
        return cls(
            run=run,
            config=config,
            denoiser=denoiser,
            denoise=guided(denoiser, config),
            times=config.times(denoiser.schedule),
            device=next(denoiser.parameters()).device,
        )

    def choose(self, places: Sequence[Path], *, seed: int, most: int = MOST) -> Chosen:
        """The pictures that are named, where the model is; see `choose`."""
        chosen = choose(places, self.config, seed=seed, most=most)
        return Chosen(chosen.names, chosen.images.to(self.device))


def choose(places: Sequence[Path], config: RunConfig, *, seed: int, most: int = MOST) -> Chosen:
    """The pictures a person named, cropped and resized as `kao prepare` does for the run.

    Args:
        places: Picture files, folders, ZIP archives, or either inside an archive; of a folder the
            first `most` pictures by name.  Empty: pictures that the run learned from.
        config: Of the run.
        seed: Chooses among the run's own.
        most: Pictures of a folder, or of the run.

    Raises:
        DataError: A picture is missing, damaged, or of a shape that the run refuses; or the run's
            own are not where they were.
    """
    if not places:
        own = some_real(config, n=most, seed=seed)
        return Chosen([f"picture {i + 1}" for i in range(len(own))], to_float(own))
    names, images = [], []
    for place in places:
        for name, image in _read(place, most=most):
            names.append(name)
            images.append(fit(image, size=config.data.size, crop=config.data.crop, name=name))
    return Chosen(names, to_float(torch.stack(images)))


def mask_of(text: str, *, size: int, crop: Crop) -> Tensor:
    """Which pixels are to be drawn anew.

    Args:
        text: A picture file, white where to draw, cropped and resized as the pictures are; or a
            box "left,top,right,bottom", in shares of a side where all are in 0..1, else in
            pixels of the run's size.
        size: Side of the run's pictures.
        crop: The run's.

    Returns:
        bool, (1, 1, S, S), True where to draw.

    Raises:
        ConfigError: A box is no box of the picture, or the mask holds nothing or everything.
        DataError: The picture is missing or damaged.
    """
    box = _numbers(text)
    mask = _drawn_mask(Path(text), size, crop) if box is None else _box(box, text, size)
    if not mask.any():
        raise ConfigError(
            f"The mask {text} leaves nothing to draw at {size} x {size} pixels: make it white "
            f"where the picture is to be drawn anew, or the box larger."
        )
    if mask.all():
        raise ConfigError(
            f"The mask {text} covers the whole picture, since what is white (lighter than half "
            f"grey) is drawn: make it black where the picture is to stay."
            if box is None
            else f"The mask {text} covers the whole picture, so that nothing is left to go by: "
            f"make the box smaller, or draw new pictures with `kao sample`."
        )
    return mask[None, None]


def time_of(schedule: NoiseSchedule, number: float) -> Tensor:
    """A time as a person counts it.

    Args:
        schedule: Whose times.
        number: 1..T on a discrete schedule; thousandths of t_max, above 0, on a continuous one.

    Returns:
        float64, shape ().

    Raises:
        ConfigError: It is out of range.
    """
    last = _last(schedule)
    if isinstance(schedule, DiscreteSchedule):
        if not (float(number).is_integer() and 1 <= number <= last):
            raise ConfigError(
                f"t = {number:g}; this schedule counts times in whole numbers from 1 to {last}."
            )
        return torch.tensor(number, dtype=torch.float64)
    if not 0 < number <= last:
        raise ConfigError(
            f"t = {number:g}; on this schedule, which is continuous, a time is given in "
            f"thousandths of its end, above 0 and up to 1000."
        )
    return torch.tensor(number / last * schedule.t_max, dtype=torch.float64)


def some_times(schedule: NoiseSchedule) -> list[float]:
    """An early, a middle and the last time, as `time_of` takes them: at 10, 50 and 100 %."""
    return [float(max(1, round(share * _last(schedule)))) for share in (0.1, 0.5, 1.0)]


def _last(schedule: NoiseSchedule) -> int:
    """The noisiest time as a person counts it."""
    return int(schedule.t_max) if isinstance(schedule, DiscreteSchedule) else _THOUSAND


def _read(place: Path, *, most: int) -> Iterator[tuple[str, Tensor]]:
    """Names and decoded pictures, uint8 (3, H, W), at one place."""
    place = at_home(place)
    storage, names = _held(place)
    if not names:
        raise DataError(
            f"{place} holds no picture; expected one or more of {' '.join(sorted(EXTENSIONS))}."
        )
    for name in names[:most]:
        yield name, decode(storage.read(name), name).image


def _held(place: Path) -> tuple[Storage, list[str]]:
    """Where a place is, and the names of the pictures it stands for."""
    try:
        if place.is_file() and not zipfile.is_zipfile(place):
            return Folder(place.parent), [place.name]
        in_archive = any(parent.is_file() for parent in place.parents)
        missing = not place.exists() and not in_archive
    except OSError as error:
        raise DataError(
            f"{place} cannot be read ({error.strerror}): check the path and its permissions."
        ) from error
    if missing:
        raise DataError(
            f"There is no picture, folder or ZIP file {place}: check the path (you are in "
            f"{Path.cwd()})."
        )
    if in_archive and place.suffix.lower() in EXTENSIONS:
        storage = find(place.parent)
        if place.name not in storage.listing().pictures:
            raise DataError(f"There is no picture {place.name} in {place.parent}: check its name.")
        return storage, [place.name]
    storage = find(place)
    return storage, storage.listing().pictures


def _numbers(text: str) -> list[float] | None:
    """The numbers of "a,b,c"; None if it is not that."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return None


def _box(box: Sequence[float], text: str, size: int) -> Tensor:
    shares = all(0 <= number <= 1 for number in box)
    sides = [round(number * size) if shares else number for number in box]
    if len(sides) == 4 and all(float(side).is_integer() for side in sides):
        left, top, right, bottom = (int(side) for side in sides)
        if 0 <= left < right <= size and 0 <= top < bottom <= size:
            mask = torch.zeros(size, size, dtype=torch.bool)
            mask[top:bottom, left:right] = True
            return mask
    raise ConfigError(
        f"--mask = {text} is no box of a picture of {size} x {size} pixels: expected "
        f"left,top,right,bottom, as shares of a side (0.25,0.25,0.75,0.75) or in whole pixels."
    )


def _drawn_mask(path: Path, size: int, crop: Crop) -> Tensor:
    if not at_home(path).is_file():
        raise DataError(
            f"There is no mask {path}: give a picture file that is white where to draw, or a box "
            f"left,top,right,bottom."
        )
    ((name, image),) = _read(path, most=1)
    # Inverted, so that the white bars of crop "pad" are kept and not drawn.
    kept = fit(255 - image, size=size, crop=crop, name=name)
    return kept.float().mean(0) < _HALF
