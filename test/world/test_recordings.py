import cv2
import numpy as np
import pytest

from lerf_ros.world.poses import look_at
from lerf_ros.world.recordings import RecordingError, RgbdFolder
from lerf_ros.world.source import open_source


@pytest.fixture
def folder(tmp_path):
    """Five small frames, every third of a 30 Hz recording; the pose of the second is lost."""
    rng = np.random.default_rng(0)
    for i in range(5):
        stem = tmp_path / f"frame-{3 * i:06d}"
        cv2.imwrite(f"{stem}.color.png", rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        depth = rng.integers(400, 4000, (12, 16)).astype(np.uint16)
        depth[0, 0], depth[0, 1] = 0, 65535
        cv2.imwrite(f"{stem}.depth.png", depth)
        pose = look_at(np.array([0.1 * i, 0.2, 0.3]), np.array([2.0, 1.0, 0.5]))
        np.savetxt(f"{stem}.pose.txt", np.full((4, 4), np.nan) if i == 1 else pose)
    np.savetxt(tmp_path / "camera-intrinsics.txt", [[20, 0, 8], [0, 21, 6], [0, 0, 1]])
    return tmp_path


def test_frames_are_what_was_written(folder):
    source = open_source(str(folder))
    assert isinstance(source, RgbdFolder)
    assert (len(source), source.skipped, source.rate_hz) == (4, 1, pytest.approx(10.0))
    assert (source.camera.fx, source.camera.fy, source.camera.cx, source.camera.cy) == (20, 21, 8, 6)
    frame = source[1]  # the second is left out, so this is file number 6
    assert frame.stamp_ns == 200_000_000
    np.testing.assert_array_equal(frame.image[..., ::-1], cv2.imread(str(folder / "frame-000006.color.png")))
    raw = cv2.imread(str(folder / "frame-000006.depth.png"), cv2.IMREAD_UNCHANGED)
    assert np.isnan(frame.depth_z[0, :2]).all() and np.isfinite(frame.depth_z).sum() == raw.size - 2
    np.testing.assert_allclose(frame.depth_z[1:], raw[1:] / 1000.0, rtol=1e-6)
    np.testing.assert_allclose(frame.T_world_camera[:3, 3], [0.2, 0.2, 0.3], atol=1e-9)


def test_jpg_and_missing_depth(folder):
    image = np.full((12, 16, 3), (10, 200, 90), np.uint8)
    (folder / "frame-000000.color.png").unlink()
    cv2.imwrite(str(folder / "frame-000000.color.jpg"), image)
    (folder / "frame-000000.depth.png").unlink()
    frame = RgbdFolder(folder)[0]
    assert frame.depth_z is None
    np.testing.assert_allclose(frame.image[6, 8], [90, 200, 10], atol=6)


def _damage(folder, name, data):
    (folder / name).write_bytes(data)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("frame-000006.color.png", b"not a picture", "damaged"),
        ("frame-000006.color.png", b"", "damaged"),
        ("frame-000006.depth.png", b"\x89PNG....", "damaged"),
    ],
)
def test_a_damaged_picture_is_named(folder, name, data, said):
    _damage(folder, name, data)
    source = RgbdFolder(folder)
    source[0]
    with pytest.raises(RecordingError, match=f"{name}.*{said}"):
        source[1]


def test_depth_of_the_wrong_size_or_type_is_refused(folder):
    cv2.imwrite(str(folder / "frame-000006.depth.png"), np.ones((6, 8), np.uint16))
    with pytest.raises(RecordingError, match="frame-000006.*registered"):
        RgbdFolder(folder)[1]
    cv2.imwrite(str(folder / "frame-000006.depth.png"), np.ones((12, 16), np.uint8))
    with pytest.raises(RecordingError, match="16-bit"):
        RgbdFolder(folder)[1]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("frame-000006.pose.txt", None, "frame-000006.pose.txt is missing"),
        ("frame-000006.pose.txt", b"1 0 0", "4x4 matrix, it has 3 numbers"),
        ("frame-000006.pose.txt", b"hello", "does not hold numbers"),
        ("frame-000006.pose.txt", b"2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1", "frame-000006.pose.txt.*not rigid"),
        ("camera-intrinsics.txt", None, "7-Scenes"),
        ("camera-intrinsics.txt", b"0 0 8 0 0 6 0 0 1", "camera-intrinsics.txt.*positive"),
    ],
)
def test_missing_and_damaged_text_files_are_named(folder, name, data, said):
    (folder / name).unlink()
    if data is not None:
        _damage(folder, name, data)
    with pytest.raises(RecordingError, match=said):
        RgbdFolder(folder)


def test_folders_without_usable_frames(folder, tmp_path_factory):
    with pytest.raises(RecordingError, match="no folder"):
        RgbdFolder(folder / "nothing")
    with pytest.raises(RecordingError, match="no frame-NNNNNN"):
        RgbdFolder(tmp_path_factory.mktemp("empty"))
    for pose in folder.glob("*.pose.txt"):
        np.savetxt(pose, np.full((4, 4), np.inf))
    with pytest.raises(RecordingError, match="none of the 5 poses"):
        RgbdFolder(folder)
