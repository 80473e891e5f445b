"""The page of a model that is given away: what it is, how good, how it was made, what to mind.

A page is made of plain facts, which whoever knows the run collects; nothing is said that was not
measured, and what is not known is said not to be.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kao.exchange.hub import is_licence
from kao.exchange.markdown import plain
from kao.exchange.own import FILE

GRID = "samples.png"
"""Name of the grid of drawn pictures beside the page."""

_SMALL = 5_000
"""Training pictures below which a model is said to know few faces."""

_CONFIGURED = "`run.toml` has every value of the configuration."

_UNSTATED = "not stated: ask before you share"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number, as people write it.

    Attributes:
        name: What was measured.
        value: Its estimate.
        interval: Its 95 % interval.
        real: What real pictures score; "" where that is not known.
        pictures: Drawn pictures behind it.
    """

    name: str
    value: str
    interval: str
    real: str = ""
    pictures: int


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The figures of one protocol.

    Attributes:
        title: What it was.
        figures: In the order in which they were asked for.
        protocol: Lines that say how it was measured.
        notes: What a reader must know, a sentence each.
    """

    title: str
    figures: Sequence[Figure]
    protocol: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class CopyCheck:
    """Whether drawn pictures are copies of training pictures.

    Attributes:
        sentence: What was found.
        copied: Whether it was more than chance makes.
    """

    sentence: str
    copied: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a page says.

    Attributes:
        name: Of the model, as on the hub: owner/name or a name.
        size: Side of the pictures, pixels.
        parameters: Of the network.
        network: Its kind: "unet".
        schedule: Kind of the noise levels it was trained on.
        target: What it says of them.
        weights: Which weights these are: "ema-0.999".
        images: Images seen.
        minutes: Of training, all sessions together; None where that is not known.
        recipe: Name of the recipe; "" where there was none.
        machine: What it was trained on, in words; "" where that is not known.
        data: Name of the training pictures.
        pictures: How many they were; None where that is not known.
        data_licence: Of the training pictures; "" where it was not stated.
        licence: Of the weights, an identifier of the hub; "" where it was not stated.
        imported: The published model that it is; "" where it was trained with kao.  How that was
            trained is not known, so that nothing of it is told.
        base: What it was fine-tuned from; "" where it began from noise.
        hub: owner/name on the hub of the model that it is or goes back to; "" where none is.
        origin_licence: As was told with the weights that it is or goes back to; "" where it was
            not.
        classes: Names of the classes that it is told.
        measurements: Scores.
        copies: The check for copies; None: it was not made.
        kao: The version that wrote this.
        diffusers: Whether diffusers can load the folder; else why not, in words.
        sampling: How it draws where nothing else is said, in words.
    """

    name: str
    size: int
    parameters: int
    network: str
    schedule: str
    target: str
    weights: str
    images: int
    minutes: float | None
    recipe: str
    machine: str
    data: str
    pictures: int | None
    data_licence: str
    licence: str
    imported: str
    base: str
    hub: str
    origin_licence: str
    classes: tuple[str, ...]
    measurements: Sequence[Measurement]
    copies: CopyCheck | None
    kao: str
    diffusers: bool | str
    sampling: str


def model_card(facts: Facts) -> str:
    """The text of README.md, with the front matter that the hub reads."""
    parts = [
        _front_matter(facts),
        f"# {plain(facts.name.rpartition('/')[2])}",
        _opening(facts),
        f"![Pictures drawn by this model]({GRID})",
        "Drawn by the model from the first seeds, and not chosen.",
        *_scores(facts),
        _origin(facts) if facts.imported else _training(facts),
        _limits(facts),
        _use(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: Facts) -> str:
    """YAML between two lines of dashes; strings as JSON has them, which YAML reads alike."""
    tags = ["diffusion", "unconditional-image-generation", "faces", "kao"]
    if facts.classes:
        tags[1] = "class-conditional-image-generation"
    library = "diffusers" if facts.diffusers is True else "kao"
    kept = facts.origin_licence if facts.imported and is_licence(facts.origin_licence) else ""
    lines = [
        f"library_name: {library}",
        f"license: {json.dumps(facts.licence or kept or 'unknown')}",
        "pipeline_tag: unconditional-image-generation",
        "tags:",
        *(f"  - {json.dumps(tag)}" for tag in tags),
    ]
    if facts.hub:
        lines.append(f"base_model: {json.dumps(facts.hub)}")
    return "\n".join(["---", *lines, "---"])


def _opening(facts: Facts) -> str:
    size = f"{facts.size}\N{MULTIPLICATION SIGN}{facts.size}"
    told = f", told one of {len(facts.classes)} classes," if facts.classes else ""
    made = f"trained with kao {facts.kao}."
    if facts.imported:
        made = f"imported from {plain(facts.imported)} with kao {facts.kao}, and not trained here."
    text = (
        f"A denoising diffusion model of {size} pictures{told} with "
        f"{facts.parameters / 1e6:.1f} M parameters, {made}"
    )
    if facts.copies is not None and facts.copies.copied:
        text += f"\n\n> **This model draws training pictures.** {plain(facts.copies.sentence)}"
    return text


def _scores(facts: Facts) -> Iterator[str]:
    yield "## Scores"
    if not facts.measurements:
        yield "These weights were not evaluated: their quality is not known."
    for measured in facts.measurements:
        yield measured.title
        rows = [
            "| score | value | 95 % interval | real pictures | drawn |",
            "|---|---|---|---|---|",
        ]
        rows += [
            f"| {plain(f.name)} | {f.value} | {f.interval} | {f.real} | {f.pictures:,} |"
            for f in measured.figures
        ]
        yield "\n".join(rows)
        if measured.notes:
            yield "\n".join(f"* {plain(note)}" for note in measured.notes)
        if measured.protocol:
            yield "\n".join(["```text", *map(_one_line, measured.protocol), "```"])


def _origin(facts: Facts) -> str:
    rows = [
        ("model", facts.imported),
        ("licence told with it", facts.origin_licence or _UNSTATED),
        ("licence of the pictures", facts.data_licence),
        *_network(facts),
    ]
    told = "Its weights are as they were published there; how they were trained was not told."
    return "\n".join(["## Where it is from", "", *_listed(rows), "", f"{told} {_CONFIGURED}"])


def _training(facts: Facts) -> str:
    count = "a number not known" if facts.pictures is None else f"{facts.pictures:,}"
    took = "" if facts.minutes is None else f" in {_duration(facts.minutes)}"
    rows = [
        ("pictures", f"{facts.data}, {count} of them at {facts.size} pixels"),
        ("licence of the pictures", facts.data_licence or _UNSTATED),
        ("images seen", f"{facts.images:,}{took}"),
        ("machine", facts.machine),
        ("recipe", facts.recipe),
        ("weights", facts.weights),
        ("fine-tuned from", facts.base),
        ("licence of what it was fine-tuned from", facts.origin_licence),
        *_network(facts),
    ]
    return "\n".join(["## How it was trained", "", *_listed(rows), "", _CONFIGURED])


def _network(facts: Facts) -> list[tuple[str, str]]:
    return [
        ("network", facts.network),
        ("noise schedule, target", f"{facts.schedule}, {facts.target}"),
        ("classes", ", ".join(facts.classes)),
    ]


def _listed(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Rows as a list, without those of which nothing is known."""
    return [f"* {what}: {plain(said)}" for what, said in rows if said]


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _limits(facts: Facts) -> str:
    lines = []
    if facts.copies is None:
        lines.append(
            "It was not checked whether these weights draw copies of training pictures: "
            "`kao evaluate` does."
        )
    else:
        lines.append(f"Copies of training pictures: {plain(facts.copies.sentence)}")
    if not facts.imported and facts.pictures is not None and facts.pictures < _SMALL:
        lines.append(
            f"It has seen {facts.pictures:,} pictures. Of so few it learns their biases (who is "
            f"shown, from where, in which light) as if they were the rule, and may remember some."
        )
    else:
        lines.append(
            "It draws who its training pictures show, and as often: kinds of faces that are rare "
            "among them it draws rarely and worse."
        )
    lines.append(
        f"It draws {facts.size} pixels a side, and was measured at no other size. A face that it "
        f"draws is of nobody, and may still resemble somebody."
    )
    if source := facts.imported or facts.base:
        lines.append(f"It keeps limits, biases and licence of {plain(source)}.")
    return "\n".join(["## Limits", "", *(f"* {line}" for line in lines)])


def _use(facts: Facts) -> str:
    name = facts.name
    text = f"""\
## How to use it

With kao, which draws as the model was made to ({facts.sampling}):

```sh
kao import {name} --run runs/imported
kao sample runs/imported --n 16
```

`{FILE}` has the weights and their whole configuration."""
    if facts.diffusers is True:
        return f"""{text}

With diffusers:

```python
from diffusers import DDIMPipeline

pictures = DDIMPipeline.from_pretrained("{name}")(batch_size=4, num_inference_steps=25).images
```"""
    return f"{text}\n\ndiffusers cannot load it: {plain(str(facts.diffusers))}"


def _duration(minutes: float) -> str:
    if minutes < 1:
        return "less than a minute"
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
