"""Protocols by name: all that must be the same for two scores to compare.

What a user asks for otherwise is not refused but becomes part of the name: "ddpm-50k+n5000" is
not "ddpm-50k", and cannot be taken for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from kao.diffusion import DDIM, Ancestral, Grid, Sampler, grids
from kao.errors import ConfigError, near_miss
from kao.metrics.spaces.scripted import Resize


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How pictures are drawn and scored.

    Attributes:
        name: With what was changed.
        about: In words, with its source.
        metrics: Of `kao.metrics.METRICS` and of `kao.evaluation.planning.OTHERS`.
        features: Names of the feature spaces, of `kao.metrics.SPACES`.
        resize: How pictures are resized for Inception.
        n: Pictures drawn, or chosen at random from more.
        all_of_folders: Whether a folder is scored whole, rather than n pictures of it.
        reals: Most real pictures in the reference, chosen at random; None: all of them.
        apart: Whether as many real pictures as are drawn are kept out of the reference, where
            there are enough, to measure the floor with; else the reference is all of them.
        sampler: How runs draw; None: as their configuration says.
        grid: Likewise.
        steps: Likewise.
    """

    name: str
    about: str
    metrics: tuple[str, ...]
    features: tuple[str, ...]
    resize: Resize = "clean"
    n: int
    all_of_folders: bool = False
    reals: int | None = None
    apart: bool = False
    sampler: Sampler | None = None
    grid: Grid | None = None
    steps: int | None = None

    def changed(
        self,
        *,
        n: int | None = None,
        steps: int | None = None,
        sampler: tuple[str, Sampler] | None = None,
        metrics: Sequence[str] = (),
        features: Sequence[str] = (),
    ) -> Self:
        """The protocol with other numbers, of which its name tells.

        Other metrics and spaces leave the name alone, as a score names what it was measured by.

        Args:
            n: Pictures to draw; of a folder too.
            steps: Of the sampler.
            sampler: Its name and what it means.
            metrics: Instead of the protocol's; none: its own.
            features: Likewise.

        Raises:
            ConfigError: n is below 1.
        """
        if n is not None and n < 1:
            raise ConfigError(f"n = {n}; expected 1 picture or more.")
        changes = []
        if n is not None and (n != self.n or self.all_of_folders):
            changes.append(f"n{n}")
        if sampler is not None and sampler[1] != self.sampler:
            changes.append(sampler[0])
        if steps is not None and steps != self.steps:
            changes.append(f"steps{steps}")
        return replace(
            self,
            name="+".join([self.name, *changes]),
            n=n or self.n,
            all_of_folders=self.all_of_folders and n is None,
            steps=steps or self.steps,
            sampler=sampler[1] if sampler else self.sampler,
            metrics=tuple(dict.fromkeys(metrics)) or self.metrics,
            features=tuple(dict.fromkeys(features)) or self.features,
        )


_PAPERS = 50_000  # drawn pictures of a FID in papers

PROTOCOLS: Mapping[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            name="small-data",
            about="For few pictures, without a download: scores that are unbiased however few they "
            "are, in the space that comes with kao.",
            metrics=("kernel", "manifold", "drift", "copies"),
            features=("faces",),
            n=1_000,
            reals=5_000,
            apart=True,
        ),
        Protocol(
            name="ddpm-50k",
            about="FID of 50,000 pictures to the training set after 1,000 ancestral steps (Ho et "
            "al. 2020), by TensorFlow's Inception and its resizing.",
            metrics=("fid",),
            features=("inception",),
            resize="legacy",
            n=_PAPERS,
            sampler=Ancestral(variance="beta"),
            grid=grids.uniform,
            steps=1_000,
        ),
        Protocol(
            name="ddim-table",
            about="FID of 50,000 pictures to the training set after 50 steps of DDIM, or 10, 20 or "
            "100 as asked (Song et al. 2021a, table 1), by TensorFlow's Inception and its "
            "resizing.",
            metrics=("fid",),
            features=("inception",),
            resize="legacy",
            n=_PAPERS,
            sampler=DDIM(eta=0.0),
            grid=grids.uniform,
            steps=50,
        ),
        Protocol(
            name="clean-fid",
            about="FID and KID with antialiased bicubic resizing (Parmar et al. 2022): of 50,000 "
            "pictures, or of all that a folder has.",
            metrics=("fid", "kid"),
            features=("inception",),
            n=_PAPERS,
            all_of_folders=True,
        ),
    )
}
"""The protocols by name."""


def protocol_of(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ConfigError: There is none.
    """
    if name not in PROTOCOLS:
        raise ConfigError(
            f'There is no protocol "{name}"{near_miss(name, PROTOCOLS)}; there are: '
            f"{', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[name]
