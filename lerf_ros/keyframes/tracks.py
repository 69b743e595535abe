"""Feature tracks: the keypoints of several images that show one point of the scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lerf_ros.keyframes.keypoints import Keypoints, keypoint_noise


class Tracks(NamedTuple):
    """Observations of P points, those of one point one after another.

    Attributes:
        start: (P + 1,) int64, the observations of point p are start[p] .. start[p + 1] - 1, at least two.
        image: (O,) int64, which image an observation is in; a point has at most one in each.
        uv: (O, 2) float64, pixels.
        noise: (O,) float64, standard deviation of uv, relative to that of a keypoint whose size is one
            pixel.
    """

    start: NDArray[np.int64]
    image: NDArray[np.int64]
    uv: NDArray[np.float64]
    noise: NDArray[np.float64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Observations of each point (P,)."""
        return np.diff(self.start)

    @property
    def track(self) -> NDArray[np.int64]:
        """Point of each observation (O,)."""
        return np.repeat(np.arange(len(self.start) - 1), self.lengths)

    def subset(self, kept: NDArray[np.bool_]) -> Tracks:
        """The observations kept (O,), without the points of which fewer than two remain."""
        counts = np.bincount(self.track[kept], minlength=len(self.start) - 1)
        kept = kept & (counts >= 2)[self.track]
        start = np.concatenate([[0], np.cumsum(counts[counts >= 2])])
        return Tracks(start, self.image[kept], self.uv[kept], self.noise[kept])


def build_tracks(keypoints: Sequence[Keypoints], matches: Mapping[tuple[int, int], NDArray[np.int32]]) -> Tracks:
    """Tracks of the connected components of all matches.

    A component with two keypoints of one image contains a wrong match. It is left out.

    Args:
        matches: (M, 2) indices of keypoints by pair of images.
    """
    offsets = np.concatenate([[0], np.cumsum([len(each.uv) for each in keypoints])]).astype(np.int64)
    total = int(offsets[-1])
    pairs = [np.array([offsets[a], offsets[b]]) + indices for (a, b), indices in matches.items()]
    edges = np.concatenate([np.empty((0, 2), np.int64), *pairs])
    if len(edges) == 0:
        return Tracks(np.zeros(1, np.int64), np.empty(0, np.int64), np.empty((0, 2)), np.empty(0))
    graph = coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(total, total))
    count, component = connected_components(graph, directed=False)
    sizes = np.bincount(component, minlength=count)
    image = np.repeat(np.arange(len(keypoints)), np.diff(offsets))
    (member,) = np.nonzero(sizes[component] > 1)
    order = member[np.lexsort((image[member], component[member]))]
    again = (np.diff(component[order]) == 0) & (np.diff(image[order]) == 0)
    conflicting = np.zeros(count, bool)
    conflicting[component[order][1:][again]] = True
    order = order[~conflicting[component[order]]]
    _, lengths = np.unique(component[order], return_counts=True)
    uv, size = (np.concatenate([getattr(each, name) for each in keypoints])[order] for name in ("uv", "size"))
    return Tracks(
        np.concatenate([[0], np.cumsum(lengths)]), image[order], uv, keypoint_noise(size) / keypoint_noise(1.0)
    )
