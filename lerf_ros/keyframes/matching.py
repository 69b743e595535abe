"""Keypoint correspondences of two posed images, guided by the epipolar constraint."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lerf_ros.geometry.poses import Pose
from lerf_ros.keyframes.epipolar import (
    CHI2_99,
    NEAREST,
    RelativePose,
    bearings,
    refine_relative_pose,
    segment_distances,
)
from lerf_ros.keyframes.keypoints import Keypoints, keypoint_noise, root_sift

MAX_RATIO = 0.8  # Lowe's: of the distance to the most similar descriptor to that to the second
MIN_MATCHES = 15  # of a pair of images, as COLMAP's `min_num_inliers`: fewer agree by chance
MATCH_NOISE_PX = 1.0  # standard deviation of a keypoint's position for the choice of candidates: that of large ones

_CHI2_99, _SIGMAS_99 = np.float32(CHI2_99), np.float32(2.576)  # 99 % of one degree of freedom, as a square and a root
_MAX_RATIO2, _MAX_RHO = np.float32(MAX_RATIO**2), np.float32(1.0 / NEAREST)
_compile: Any = njit(nogil=True, cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")


class PosedKeypoints(NamedTuple):
    """Keypoints of an image, T_world_camera (4, 4) and intrinsics (4,): fx, fy, cx, cy in pixels."""

    keypoints: Keypoints
    T_world_camera: Pose
    intrinsics: NDArray[np.float64]


class PairMatches(NamedTuple):
    """Indices (M, 2) of the keypoints of two images that show the same points, and what they say of the relative pose:
    T_b_a and the information (6, 6) about its perturbation, without that of the given poses."""

    indices: NDArray[np.int32]
    T_b_a: Pose
    information: NDArray[np.float64]


def match(a: PosedKeypoints, b: PosedKeypoints, translation: float, rotation: float) -> PairMatches | None:
    """Correspondences of two images; None where fewer than `MIN_MATCHES` agree.

    Twice mutually nearest descriptors that pass the ratio test among the candidates near the epipolar line: first with
    the tolerance that the errors of the given poses ask for, then with that of the pose refined on the first matches.

    Args:
        translation, rotation: standard deviations of an error of each of the two poses, m and rad per axis.
    """
    if min(len(a.keypoints.uv), len(b.keypoints.uv)) < MIN_MATCHES:
        return None
    similarity = root_sift(a.keypoints.descriptors) @ root_sift(b.keypoints.descriptors).T
    p_a, p_b = bearings(a.keypoints.uv, a.intrinsics), bearings(b.keypoints.uv, b.intrinsics)
    noise = MATCH_NOISE_PX / float(np.sqrt(a.intrinsics[:2].mean() * b.intrinsics[:2].mean()))
    T_b_a = np.linalg.inv(b.T_world_camera) @ a.T_world_camera
    prior = np.sqrt(2.0) * np.repeat([translation, rotation], 3)
    prior[:3] = np.hypot(prior[:3], rotation * np.linalg.norm(T_b_a[:3, 3]))  # a turn of b moves a in its axes, too
    pose = RelativePose(T_b_a, np.diag(prior**2))
    for _ in range(2):
        pairs = _guided(a.keypoints, b.keypoints, similarity, p_a, p_b, pose, noise)
        if len(pairs) < MIN_MATCHES:
            return None
        q_a, q_b, variance = p_a[pairs[:, 0]], p_b[pairs[:, 1]], _variance(a, b, pairs)
        pose = refine_relative_pose(T_b_a, prior, q_a, q_b, variance)
    inlier = segment_distances(pose.T_b_a, q_a, q_b) ** 2 <= CHI2_99 * variance
    if inlier.sum() < MIN_MATCHES:
        return None
    information: NDArray[Any] = np.linalg.inv(pose.covariance) - np.diag(prior**-2.0)
    return PairMatches(pairs[inlier], pose.T_b_a, information)


def _variance(a: PosedKeypoints, b: PosedKeypoints, pairs: NDArray[np.int32]) -> NDArray[np.float64]:
    """Of the error between two matched keypoints in the normalised image plane, per axis (M,)."""
    of_a = (keypoint_noise(a.keypoints.size[pairs[:, 0]]) / a.intrinsics[:2].mean()) ** 2
    return of_a + (keypoint_noise(b.keypoints.size[pairs[:, 1]]) / b.intrinsics[:2].mean()) ** 2


def _guided(
    a: Keypoints,
    b: Keypoints,
    similarity: NDArray[np.float32],
    p_a: NDArray[np.float64],
    p_b: NDArray[np.float64],
    pose: RelativePose,
    noise: float,
) -> NDArray[np.int32]:
    """Mutual nearest neighbours (M, 2) that pass the ratio test among the candidates that an uncertain pose allows."""
    # The kernel takes isotropic variances: the mean over axes of the covariance's diagonal.
    variances = pose.covariance.diagonal()
    forward, backward = _nearest_neighbours(
        similarity,
        (p_a @ pose.T_b_a[:3, :3].T).astype(np.float32),
        p_b.astype(np.float32),
        pose.T_b_a[:3, 3].astype(np.float32),
        np.float32(variances[:3].mean()),
        np.float32(variances[3:].mean()),
        np.float32(noise**2),
    )
    (index,) = np.nonzero(forward >= 0)
    index = index[backward[forward[index]] == index]
    other = forward[index]
    unique = np.minimum(a.uniqueness[index], b.uniqueness[other])
    distinct = 2.0 - 2.0 * similarity[index, other] <= MAX_RATIO**2 * unique
    return np.stack([index, other], axis=1)[distinct].astype(np.int32)


@_compile
def _nearest_neighbours(similarity, q, p, t, variance_t, variance_r, noise):
    """For each row and each column of the similarity (A, B) the most similar candidate, -1 where there is none or where
    the second is nearly as similar; q (A, 3) bearings of `a` in the axes of `b`, p (B, 3) bearings of `b`."""
    rows, columns = similarity.shape
    first_row, second_row = np.full(rows, np.float32(-1)), np.full(rows, np.float32(-1))
    first_col, second_col = np.full(columns, np.float32(-1)), np.full(columns, np.float32(-1))
    best_row, best_col = np.full(rows, -1, np.int32), np.full(columns, -1, np.int32)
    tt = t[0] * t[0] + t[1] * t[1] + t[2] * t[2]
    length = np.sqrt(tt) + _SIGMAS_99 * np.sqrt(variance_t)
    for i in range(rows):
        qx, qy, qz = q[i, 0], q[i, 1], q[i, 2]
        nx, ny, nz = t[1] * qz - t[2] * qy, t[2] * qx - t[0] * qz, t[0] * qy - t[1] * qx
        qq, qt = qx * qx + qy * qy + qz * qz, qx * t[0] + qy * t[1] + qz * t[2]
        for j in range(columns):
            s = similarity[i, j]
            if s <= second_row[i] and s <= second_col[j]:
                continue
            px, py, pz = p[j, 0], p[j, 1], p[j, 2]
            e = px * nx + py * ny + pz * nz
            qp, pt = qx * px + qy * py + qz * pz, px * t[0] + py * t[1] + pz * t[2]
            pp = px * px + py * py + pz * pz
            # Squared gradients of e with respect to translation |q x p|^2, rotation |q x (p x t)|^2 and pixels.
            of_t = qq * pp - qp * qp
            of_r = pp * qt * qt - np.float32(2) * qt * qp * pt + tt * qp * qp
            of_px = (pp * tt - pt * pt) + (qq * tt - qt * qt)
            if e * e > _CHI2_99 * (variance_t * of_t + variance_r * of_r + noise * of_px):
                continue
            # Rotated by R, a bearing differs from that in b by the parallax, at most that of the nearest surface.
            reach = length * _MAX_RHO + _SIGMAS_99 * np.sqrt(variance_r + noise)
            if qp <= 0 or of_t > reach * reach * qq * pp:
                continue
            if s > first_row[i]:
                second_row[i], first_row[i], best_row[i] = first_row[i], s, j
            elif s > second_row[i]:
                second_row[i] = s
            if s > first_col[j]:
                second_col[j], first_col[j], best_col[j] = first_col[j], s, i
            elif s > second_col[j]:
                second_col[j] = s
    for i in range(rows):
        # Squared distances of unit vectors are 2 - 2 s.
        if best_row[i] >= 0 and 1 - first_row[i] > _MAX_RATIO2 * (1 - second_row[i]):
            best_row[i] = -1
    for j in range(columns):
        if best_col[j] >= 0 and 1 - first_col[j] > _MAX_RATIO2 * (1 - second_col[j]):
            best_col[j] = -1
    return best_row, best_col
