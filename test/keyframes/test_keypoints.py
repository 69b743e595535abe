import numpy as np

from lerf_ros.keyframes.keypoints import detect_keypoints, root_sift


def blob(u, v, sigma):
    y, x = np.mgrid[:120, :160]
    grey = 20 + 200 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2))
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def test_a_blob_lies_at_its_centre_in_pixels_whose_centres_are_whole_numbers():
    keypoints = detect_keypoints(blob(70.0, 50.0, 4.0))
    nearest = np.linalg.norm(keypoints.uv - [70.0, 50.0], axis=1).min()
    assert nearest < 0.05  # OpenCV's own coordinates are off by 0.25 in both directions


def test_an_image_without_texture_has_no_keypoints():
    keypoints = detect_keypoints(np.full((120, 160, 3), 128, np.uint8))
    assert keypoints.uv.shape == (0, 2) and keypoints.descriptors.shape == (0, 128) and len(keypoints.uniqueness) == 0


def test_the_number_of_keypoints_is_bounded(stream):
    keypoints = detect_keypoints(stream.images[0], 100)
    assert len(keypoints.uv) == len(keypoints.size) == len(keypoints.descriptors) == 100


def test_repeated_texture_is_not_unique():
    rng = np.random.default_rng(0)
    tile = np.kron(rng.integers(0, 255, (12, 12, 1), np.uint8), np.ones((8, 8, 3), np.uint8))
    once, twice = np.tile(tile, (1, 1, 1)), np.tile(tile, (1, 2, 1))
    assert np.median(detect_keypoints(twice).uniqueness) < 0.5 * np.median(detect_keypoints(once).uniqueness)


def test_descriptors_have_unit_norm(stream):
    descriptors = root_sift(detect_keypoints(stream.images[0]).descriptors)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1.0, atol=1e-5)
