"""What the plots of this room share: colours, the look of a panel, and matplotlib to a picture."""

import io
import warnings

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from kao.files import readable

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


def label(name: str) -> str:
    """A name that people gave as matplotlib writes it: no formula, whatever dollars it has."""
    return readable(name).replace("$", r"\$")


def rendered(figure: Figure) -> Image.Image:
    """The figure as an RGB picture; letters that the font has not are boxes in it."""
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        FigureCanvasAgg(figure).print_png(data)
    return Image.open(data).convert("RGB")
