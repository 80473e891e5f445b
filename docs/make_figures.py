"""Draw the figures of docs/schedules.md, docs/training.md and docs/measuring.md into docs/pictures.

python docs/make_figures.py
"""

import json
import math
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from kao.data.augment import AugmentConfig, augment
from kao.data.toy_faces import ToyFaces
from kao.diffusion import SCHEDULES, Cosine, Flow, Linear, NoiseSchedule, SeededNoise, seeds_of
from kao.pixels import to_float, to_uint8
from kao.visualisation import save_picture, strip

PICTURES = Path(__file__).parent / "pictures"
MEASURED = Path(__file__).parents[1] / "bench/results/metrics.json"
SIZE = 48
FACE = 3
SHARES = torch.linspace(0, 1, 9, dtype=torch.float64)
FINE = torch.linspace(0, 1, 801, dtype=torch.float64)
LIMIT = 16
"""Largest log-snr shown, either way."""

COLOURS = ("#233f86", "#b4452c", "#3a9a92", "#cf8a1d", "#6b4a8f", "#5f5b55", "#a8326b", "#7a9a3a")


def log_snr(schedule: NoiseSchedule, share: Tensor) -> Tensor:
    """log(alpha^2 / sigma^2) at shares of t_max; nan beyond what is shown."""
    values = schedule(share * schedule.t_max).snr.log()
    return values.where(values.abs() <= LIMIT, math.nan)


def noised(schedule: NoiseSchedule, face: Tensor) -> Tensor:
    """One face at `SHARES` with the same noise, side by side: uint8, (3, H, 9 W).

    Where the variance grows beyond 1 the picture is scaled back, as a network's input is.
    """
    eps = SeededNoise(seeds_of(0, [FACE]))(face[None])[0]
    columns = []
    for share in SHARES:
        alpha, sigma = schedule(share * schedule.t_max)
        columns.append((alpha * face + sigma * eps) / max(1.0, math.hypot(alpha, sigma)))
    return to_uint8(torch.cat(columns, dim=-1)[None])[0]


def finish(axes: Axes, title: str) -> None:
    """Frame, grid and words of a panel over t / t_max."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("t / t_max", fontsize=9)
    axes.set_xlim(0, 1)
    axes.tick_params(labelsize=8)
    axes.grid(color="#e6e2dc", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, name: str) -> None:
    """Write a figure, without the version of what drew it."""
    FigureCanvasAgg(figure)
    figure.savefig(PICTURES / name, metadata={"Software": None})


def one(name: str, schedule: NoiseSchedule, face: Tensor) -> None:
    """One schedule: alpha and sigma, log-snr, and a face on its way into the noise."""
    figure = Figure(figsize=(9, 3.5), dpi=100, layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2.5, 1))
    curves, snr = top.subplots(1, 2)
    level = schedule(FINE * schedule.t_max)
    unit = " / t_max" if level.sigma.max() > 1 else ""
    curves.plot(FINE, level.alpha, color=COLOURS[0], label="alpha")
    scale = schedule.t_max if unit else 1.0
    curves.plot(FINE, level.sigma / scale, color=COLOURS[1], label=f"sigma{unit}")
    curves.legend(frameon=False, fontsize=8)
    snr.plot(FINE, log_snr(schedule, FINE), color=COLOURS[0])
    snr.set_ylim(-LIMIT, LIMIT)
    finish(curves, "alpha and sigma")
    finish(snr, "log-snr")
    strip = bottom.subplots(1, 1)
    strip.imshow(noised(schedule, face).permute(1, 2, 0).numpy(), interpolation="nearest")
    strip.set_axis_off()
    save(figure, f"schedule-{name}.png")


def all_of_them() -> None:
    """The log-snr of every schedule in one frame."""
    figure = Figure(figsize=(9, 4.2), dpi=100, layout="constrained")
    axes = figure.subplots(1, 1)
    curves = {name: config for name, config in SCHEDULES.items() if name != "betas"}  # as linear
    for (name, config), colour in zip(curves.items(), COLOURS, strict=True):
        axes.plot(FINE, log_snr(config().build(), FINE), color=colour, label=name)
    axes.set_ylim(-LIMIT, LIMIT)
    axes.legend(frameon=False, fontsize=9)
    finish(axes, "log-snr of every schedule at its defaults")
    save(figure, "schedule-all.png")


def options() -> None:
    """What `zero_terminal_snr` and `shift` do."""
    figure = Figure(figsize=(9, 3.2), dpi=100, layout="constrained")
    ends, shifts = figure.subplots(1, 2)
    for at, (label, config) in enumerate(
        {
            "linear": Linear(),
            "linear, zero_terminal_snr": Linear(zero_terminal_snr=True),
            "cosine": Cosine(),
            "cosine, zero_terminal_snr": Cosine(zero_terminal_snr=True),
        }.items()
    ):
        style = "--" if config.zero_terminal_snr else "-"
        values = log_snr(config.build(), FINE)
        ends.plot(FINE, values, style, color=COLOURS[at // 2], label=label)
    for size, colour in zip((32, 64, 128, 256), COLOURS, strict=False):
        shift = 2 * math.log(64 / size)
        values = log_snr(Flow(shift=shift).build(), FINE)
        shifts.plot(FINE, values, color=colour, label=f"{size} pixels: {shift:.2f}")
    for axes, title in (
        (ends, "zero_terminal_snr"),
        (shifts, "flow, shift = 2 log(64 / size)"),
    ):
        axes.set_ylim(-LIMIT, LIMIT)
        axes.legend(frameon=False, fontsize=8)
        finish(axes, title)
    save(figure, "schedule-options.png")


def augmentation() -> None:
    """Faces as they are in a set, and what EDM's augmentation makes of them."""
    source = ToyFaces(12, size=SIZE)
    faces = torch.stack([torch.as_tensor(source[index].image) for index in range(len(source))])
    generator = torch.Generator().manual_seed(1)
    rows = {"the set": faces}
    for edm, title in ((0.12, "edm = 0.12"), (0.12, "again"), (1.0, "edm = 1")):
        config = AugmentConfig(flip=False, edm=edm)
        rows[title] = augment(faces, config.draw(len(faces), generator))
    picture = strip(list(rows.values()), row_titles=list(rows), gap=2, scale=1)
    save_picture(picture, PICTURES / "augment-edm.png")


def bias_by_number() -> None:
    """Frechet distance, the same without its bias, and KID, by the number of drawn pictures."""
    rows = json.loads(MEASURED.read_text(encoding="utf-8"))["bias"]["found"]
    rows = [row for row in rows if row["space"].startswith("wavelets")]
    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    panels = figure.subplots(1, 2)
    width = rows[0]["width"]
    for kind, colour in (("real", COLOURS[0]), ("noisy", COLOURS[1])):
        for axes, key, style, words in (
            (panels[0], "frechet", "-", "as it comes"),
            (panels[0], "unbiased", "--", "without bias"),
            (panels[1], "kid", "-", "KID"),
        ):
            found = [(row["n"], *row[key]) for row in rows if row["kind"] == kind and key in row]
            n, middle, low, high = zip(*found, strict=True)
            axes.plot(n, middle, style, color=colour, label=f"{kind}, {words}")
            axes.fill_between(n, low, high, color=colour, alpha=0.15, linewidth=0)
    for axes, title in zip(panels, ("Frechet distance", "KID"), strict=True):
        finish(axes, f"{title} of real pictures, and with a little noise")
        axes.set_xscale("log")
        axes.set_xlim(100, 4000)
        axes.set_xlabel("drawn pictures", fontsize=9)
        axes.legend(frameon=False, fontsize=8)
    panels[0].axvline(width, color="#8a857d", linewidth=0.8, linestyle=":")
    panels[0].set_yscale("symlog", linthresh=1)
    save(figure, "n-against-bias.png")


def main() -> None:
    """Draw everything."""
    face = to_float(torch.as_tensor(ToyFaces(FACE + 1, size=SIZE)[FACE].image)[None])[0]
    for name, config in SCHEDULES.items():
        one(name, config().build(), face)
    all_of_them()
    options()
    augmentation()
    bias_by_number()


if __name__ == "__main__":
    main()
