"""From sets of pictures to scores with their interval and their protocol."""

from kao.evaluation.card import UNKNOWN, Card, Drawing, differences
from kao.evaluation.comparison import Comparison, Difference, Row, compare, pair_differences
from kao.evaluation.evaluate import Examination, evaluate
from kao.evaluation.looking import look
from kao.evaluation.parts import Parts
from kao.evaluation.pictures import PictureSet, overlap
from kao.evaluation.planning import Plan
from kao.evaluation.protocols import PROTOCOLS, Protocol, protocol_of
from kao.evaluation.reading import open_pictures
from kao.evaluation.results import Evaluation, Measured
from kao.evaluation.verdict import Forecast, Verdict, judge
from kao.evaluation.views import Looking

__all__ = [
    "PROTOCOLS",
    "UNKNOWN",
    "Card",
    "Comparison",
    "Difference",
    "Drawing",
    "Evaluation",
    "Examination",
    "Forecast",
    "Looking",
    "Measured",
    "Parts",
    "PictureSet",
    "Plan",
    "Protocol",
    "Row",
    "Verdict",
    "compare",
    "differences",
    "evaluate",
    "judge",
    "look",
    "open_pictures",
    "overlap",
    "pair_differences",
    "protocol_of",
]
