"""What the plots of this room share: colours, the look of a panel, and matplotlib to a picture."""

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

COLOURS = (
    "#233f86",
    "#c2452d",
    "#2f8f86",
    "#d9961a",
    "#7a4fa3",
    "#5a9bd4",
    "#7d6b4f",
    "#c2608f",
    "#8a9a2b",
)
"""One a curve, told apart in print and by most who see fewer colours."""

INK, FAINT, RULE = "#2a2826", "#8b867e", "#e6e2dc"

_DPI = 110


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose parts make room for each other."""
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")


def style(axes: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """A quiet panel: a faint grid, two sides of the frame, its title above its left edge."""
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=9)
    axes.set_xlabel(xlabel, fontsize=11, color=INK)
    axes.set_ylabel(ylabel, fontsize=11, color=INK)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=11, color=FAINT, labelcolor=INK)


def rendered(figure: Figure) -> Image.Image:
    """The figure as an RGB picture."""
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data)
    return Image.open(data).convert("RGB")
