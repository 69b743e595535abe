"""Joint refinement of keyframe poses from their images alone: sparse bundle adjustment, without any depth.

Each keyframe's SIFT keypoints are found once, when it comes, and matched once with the keyframes that it shares most
with. An adjustment makes tracks of the matches and moves all poses and points until the points are where the images
show them (Triggs et al. 2000), while each pose is pulled towards the given one. It decides on tracks held out whether
the given poses had errors at all; otherwise they stay as they are.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lerf_ros.geometry.poses import Pose, check_pose
from lerf_ros.keyframes.adjustment_run import Adjustment, AdjustmentOptions, AdjustmentRun, Keyframe
from lerf_ros.keyframes.keypoints import detect_keypoints
from lerf_ros.keyframes.matching import PairMatches, PosedKeypoints, match
from lerf_ros.keyframes.overlap import predicted_overlap


class BundleAdjustment:
    """The keyframes of one map, their keypoints and matches. One thread at a time uses it.

    The map keeps the frame that the poses came in: the given poses' prior holds the gauge, scale included, so that
    corrections have mean zero over all keyframes (see `LevenbergMarquardt`). It is not aligned again afterwards.

    Args:
        width, height: of all images, pixels.
    """

    def __init__(self, width: int, height: int, options: AdjustmentOptions | None = None) -> None:
        self._width, self._height = width, height
        self.options = options or AdjustmentOptions()
        self._keyframes: dict[int, Keyframe] = {}
        self._matches: dict[tuple[int, int], PairMatches | None] = {}  # first slot < second; None: does not match
        self._pending: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._keyframes)

    @property
    def pending(self) -> int:
        """Pairs of keyframes that are still to be matched."""
        return len(self._pending)

    def add(
        self,
        slot: int,
        generation: int,
        image: NDArray[np.uint8],
        T_world_camera: ArrayLike,
        intrinsics: ArrayLike,
        current: ArrayLike | None = None,
    ) -> None:
        """Takes a keyframe, in place of a former one in its slot; finds its keypoints and plans its matching.

        Args:
            image: (height, width, 3) RGB.
            T_world_camera: (4, 4), as given.
            intrinsics: (4,) fx, fy, cx, cy, pixels.
            current: (4, 4), where a former adjustment found it; None: where it is given.

        Raises:
            ValueError: the image has another size, or the pose is not rigid.
        """
        if image.shape[:2] != (self._height, self._width):
            raise ValueError(
                f"the image is {image.shape[1]}x{image.shape[0]}, the keyframes are {self._width}x{self._height}"
            )
        given = check_pose(T_world_camera)
        start = given if current is None else check_pose(current)
        self.remove(slot)
        keypoints = detect_keypoints(image, self.options.keypoints)
        self._keyframes[slot] = Keyframe(generation, keypoints, given, start, np.array(intrinsics, np.float64))
        self._plan(slot)

    def remove(self, slot: int) -> None:
        """Forgets the keyframe in a slot, if there is one."""
        self._keyframes.pop(slot, None)
        self._matches = {pair: found for pair, found in self._matches.items() if slot not in pair}
        self._pending = deque(pair for pair in self._pending if slot not in pair)

    def move(self, slot: int, T_world_camera: ArrayLike) -> None:
        """Takes another given pose (4, 4) of a keyframe, as from a loop closure; what was adjusted stays relative to
        it.

        Matches are kept: they belong to the images. Pairs without any are tried again where the new pose has them
        overlap.

        Raises:
            KeyError: the slot is empty.
            ValueError: the pose is not rigid.
        """
        keyframe, given = self._keyframes[slot], check_pose(T_world_camera)
        current = given @ np.linalg.inv(keyframe.given) @ keyframe.current
        self._keyframes[slot] = keyframe._replace(given=given, current=current)
        self._matches = {pair: found for pair, found in self._matches.items() if found is not None or slot not in pair}
        self._plan(slot)

    def match_next(self) -> bool:
        """Matches one planned pair, some ten milliseconds; returns whether any is left."""
        if self._pending:
            pair = self._pending.popleft()
            a, b = (self._posed(slot) for slot in pair)
            self._matches[pair] = match(a, b, self.options.translation, self.options.rotation)
        return bool(self._pending)

    def start(self) -> AdjustmentRun:
        """An adjustment of the present keyframes by the pairs that have been matched. Its steps may run in another
        thread while keyframes come and go here; then give it to `finish`."""
        return AdjustmentRun(dict(self._keyframes), dict(self._matches), self.options)

    def finish(self, run: AdjustmentRun) -> Adjustment:
        """Keeps what a complete run has found, so that the next one starts there, and returns its result.

        Slots that hold another keyframe by now have another generation than in the result; the caller has to leave them
        as they are.

        Raises:
            RuntimeError: the run is not complete.
        """
        if run.result is None:
            raise RuntimeError("the adjustment has not been completed: call step until it returns True")
        present = {slot for slot, old in run.keyframes.items() if self._is_same(slot, old)}
        for slot in present & run.adjusted.keys():
            self._keyframes[slot] = self._keyframes[slot]._replace(current=run.adjusted[slot])
        self._matches.update({pair: found for pair, found in run.rematched.items() if present.issuperset(pair)})
        return run.result

    def adjust(self) -> Adjustment:
        """Matches all planned pairs and makes a whole adjustment."""
        while self._pending:
            self.match_next()
        run = self.start()
        while not run.step():
            pass
        return self.finish(run)

    def _is_same(self, slot: int, old: Keyframe) -> bool:
        """Whether a slot holds the same keyframe, given at the same pose."""
        new = self._keyframes.get(slot)
        return new is not None and new.generation == old.generation and new.given is old.given

    def _posed(self, slot: int) -> PosedKeypoints:
        keyframe = self._keyframes[slot]
        return PosedKeypoints(keyframe.keypoints, keyframe.current, keyframe.intrinsics)

    def _plan(self, slot: int) -> None:
        """Plans the matching of a keyframe with those that it shares most with."""
        others = [other for other in self._keyframes if other != slot]
        if not others:
            return
        current: Pose = self._keyframes[slot].current
        poses = np.stack([self._keyframes[other].current for other in others])
        overlap = predicted_overlap(current, poses, self._keyframes[slot].intrinsics, self._width, self._height)
        for i in np.argsort(-overlap, kind="stable")[: self.options.neighbours]:
            pair = min(slot, others[i]), max(slot, others[i])
            if overlap[i] >= self.options.min_overlap and pair not in self._matches and pair not in self._pending:
                self._pending.append(pair)
