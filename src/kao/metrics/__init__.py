"""How good pictures are: feature spaces, and distances between sets in them.

distance = KernelDistance(features(real))
score = distance(features(generated))     # value, standard error, number of pictures
"""

from kao.metrics.distances import KernelDistance, Score, frechet_distance, moments
from kao.metrics.features import Features, Wavelets
from kao.metrics.maps import feature_maps

__all__ = [
    "Features",
    "KernelDistance",
    "Score",
    "Wavelets",
    "feature_maps",
    "frechet_distance",
    "moments",
]
