"""How good pictures are: feature spaces, and distances between sets in them.

distance = KernelDistance(features(real))
score = distance(features(generated))     # value, standard error, number of pictures
"""

from kao.metrics.class_score import inception_score
from kao.metrics.colours import channel_drift, drift_sentence
from kao.metrics.copies import Copies, CopyFinder
from kao.metrics.corruptions import CORRUPTIONS, Corruption
from kao.metrics.diversity import lpips_diversity, pairwise_distance
from kao.metrics.frechet import (
    features_distance,
    frechet_distance,
    frechet_infinity,
    frechet_score,
    gaussian_distance,
)
from kao.metrics.gaussians import Gaussian, Moments, moments
from kao.metrics.kernel import KernelDistance, RadialKernel, cubic
from kao.metrics.manifold import precision_recall_density_coverage
from kao.metrics.maps import feature_maps
from kao.metrics.references import Reference, load_reference, reference_of, save_reference
from kao.metrics.registry import METRICS, Metric
from kao.metrics.scores import Score
from kao.metrics.sight import Sight
from kao.metrics.spaces import SPACES, check_space, check_weights, open_space
from kao.metrics.spaces.faces import Faces
from kao.metrics.spaces.features import Features
from kao.metrics.spaces.scripted import LPIPS, Inception
from kao.metrics.spaces.transformers import CLIP, DINOv2
from kao.metrics.spaces.wavelets import Wavelets
from kao.metrics.typicality import Ranking, ranking
from kao.metrics.weights import WeightFile

__all__ = [
    "CLIP",
    "CORRUPTIONS",
    "LPIPS",
    "METRICS",
    "SPACES",
    "Copies",
    "CopyFinder",
    "Corruption",
    "DINOv2",
    "Faces",
    "Features",
    "Gaussian",
    "Inception",
    "KernelDistance",
    "Metric",
    "Moments",
    "RadialKernel",
    "Ranking",
    "Reference",
    "Score",
    "Sight",
    "Wavelets",
    "WeightFile",
    "channel_drift",
    "check_space",
    "check_weights",
    "cubic",
    "drift_sentence",
    "feature_maps",
    "features_distance",
    "frechet_distance",
    "frechet_infinity",
    "frechet_score",
    "gaussian_distance",
    "inception_score",
    "load_reference",
    "lpips_diversity",
    "moments",
    "open_space",
    "pairwise_distance",
    "precision_recall_density_coverage",
    "ranking",
    "reference_of",
    "save_reference",
]
