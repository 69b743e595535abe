import numpy as np

from lerf_ros.keyframes.keypoints import Keypoints
from lerf_ros.keyframes.tracks import build_tracks


def keypoints(count):
    uv = np.arange(2.0 * count).reshape(count, 2)
    return Keypoints(uv, np.full(count, 4.0), np.zeros((count, 128), np.uint8), np.ones(count, np.float32))


def pairs(*indices):
    return np.array(indices, np.int32)


def test_matches_of_several_pairs_join_into_tracks():
    tracks = build_tracks([keypoints(3)] * 3, {(0, 1): pairs((0, 1), (2, 2)), (1, 2): pairs((1, 0))})
    assert tracks.lengths.tolist() == [3, 2]
    assert tracks.image.tolist() == [0, 1, 2, 0, 1]
    assert tracks.uv[:3].tolist() == [[0.0, 1.0], [2.0, 3.0], [0.0, 1.0]]


def test_a_track_with_two_keypoints_of_one_image_is_left_out():
    matches = {(0, 1): pairs((0, 0), (2, 2)), (1, 2): pairs((0, 0)), (0, 2): pairs((1, 0))}
    assert build_tracks([keypoints(3)] * 3, matches).lengths.tolist() == [2]


def test_no_matches_no_tracks():
    tracks = build_tracks([keypoints(3), keypoints(0)], {})
    assert len(tracks.lengths) == len(tracks.uv) == 0


def test_a_subset_has_no_point_that_is_seen_once():
    tracks = build_tracks([keypoints(3)] * 3, {(0, 1): pairs((0, 1), (2, 2)), (1, 2): pairs((1, 0))})
    assert tracks.subset(tracks.image != 0).lengths.tolist() == [2]
