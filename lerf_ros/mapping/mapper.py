"""The map of one robot: its fields, its keyframes and their training."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.geometry.poses import Pose, rotation_angle
from lerf_ros.geometry.units import METRES
from lerf_ros.keyframes.depth_prior import DepthPrior
from lerf_ros.mapping import checkpoint
from lerf_ros.mapping.close_ups import CloseUps
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.corrections import Correction, Drift, Trajectory
from lerf_ros.mapping.decoding import CropScale
from lerf_ros.mapping.extraction import MapSurface, SurfaceSource
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.pose_adjustment import PoseAdjustment
from lerf_ros.mapping.rendering import Rendering, psnr, render_view
from lerf_ros.mapping.scene import enclosing, first_bounds, measured_points
from lerf_ros.mapping.selection import KeyframeSelector, motion
from lerf_ros.mapping.stereo_depth import StereoDepth, StereoWork
from lerf_ros.mapping.training import StepStats, Trainer, rays_per_step

_LOG = logging.getLogger(__name__)

_MUCH_OUTSIDE = 0.2  # share of a keyframe's points outside the volume
_LEAST_CORRECTION = 0.01  # of the distance between keyframes: less is not worth learning anew
_PREQUENTIAL_STRIDE = 16  # pixels; a keyframe is judged on this grid before it is trained on


@dataclass(frozen=True)
class Quality:
    """How well a view was predicted before it was trained on: psnr, dB; depth_error, median, m (NaN without depth)."""

    psnr: float
    depth_error: float


@dataclass(frozen=True)
class KeyframeDecision:
    """What became of an offered frame. When accepted: its slot and generation, and `stamp_ns` of the frame that was
    taken (a blurred frame may be taken later than it was offered). `prequential` is None until there is a map."""

    accepted: bool
    reason: str
    slot: int | None = None
    generation: int | None = None
    stamp_ns: int | None = None
    prequential: Quality | None = None


@dataclass(frozen=True)
class _KeptSurface:
    """The surface, what was asked for, and the version and the time (monotonic, s) of the map that it is of."""

    surface: MapSurface
    asked: tuple[int, CloseUps | None]
    version: int
    made: float

    @property
    def age(self) -> float:
        return time.monotonic() - self.made


class Mapper:
    """Trains a language embedded radiance field on keyframes as they come; owns one device and is used by one thread.

    Args:
        config: every number, see `config.py`.
        camera: fixes the image size and reserves memory now; None: the first frame does.
        embed_dim: D of the encoder; 0 for a map of colours and depth only.
        device: torch device.
        seed: of initial values and random rays; sets torch's global seed.
        dense_dim: of the dense features that regularise language; 0 for none.
        depth_prior: completes the depth that stereo finds.

    Attributes:
        version: grows with every change of the map.
        keyframes_version: grows when keyframes come, go or move.
        outside_share: share of the measured points of the keyframes, since the volume last grew, that lie outside it,
            where space is squashed and detail is lost.
    """

    def __init__(
        self,
        config: MapperConfig,
        camera: Camera | None,
        embed_dim: int,
        device: torch.device | str,
        seed: int = 0,
        dense_dim: int = 0,
        depth_prior: DepthPrior | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.config = config
        self.embed_dim = embed_dim
        self._depth_prior = depth_prior
        self.dense_dim = dense_dim
        self.device = torch.device(device)
        self.version = self.keyframes_version = 0
        self.fields = MapFields(config, embed_dim, dense_dim).to(self.device)
        self.store: KeyframeStore | None = None
        self.stereo: StereoDepth | None = None
        self._adjustment: PoseAdjustment | None = None
        self.bounds: SceneBounds | None = None
        self._bounds_are_guessed = False  # until there is depth
        self._trainer: Trainer | None = None
        self._rays = rays_per_step(config)
        self._selectors: dict[str, KeyframeSelector] = {}  # by stream: how sharp is sharp depends on the camera
        self._points = self._points_outside = 0
        self._trajectory: Trajectory | None = None  # the latest correction
        self._drift: Drift | None = None  # of given poses, as refined ones tell
        self._source: SurfaceSource | None = None
        self._surface: _KeptSurface | None = None
        if camera is not None:
            self._reserve(camera)

    @property
    def keyframes(self) -> int:
        """Number of keyframes."""
        return len(self.store) if self.store is not None else 0

    @property
    def layout(self) -> PyramidLayout | None:
        """The crop pyramid of the keyframes; None until the image size is known."""
        return self.store.layout if self.store is not None else None

    @property
    def steps(self) -> int:
        """Training steps taken."""
        return self._trainer.steps if self._trainer is not None else 0

    @property
    def steps_since_news(self) -> int:
        """Training steps since there was something new to be learnt."""
        return self.store.steps_since_news if self.store is not None else 0

    @property
    def outside_share(self) -> float:
        return self._points_outside / max(self._points, 1)

    @property
    def lacks_baseline(self) -> bool:
        """As `StereoDepth.lacks_baseline`; False where there is no stereo."""
        return self.stereo is not None and self.stereo.lacks_baseline

    def tune(self, values: Mapping[str, float]) -> None:
        """Changes some of the settings `config.TUNABLE`, by dotted name, in the midst of mapping."""
        self.config = self.config.override(values)
        for selector in self._selectors.values():
            selector.tune(self.config.keyframe)
        if self.store is not None:
            self.store.tune(self.config.keyframe)
        if self._trainer is not None:
            self._trainer.tune(self.config)

    def add_frame(self, frame: Frame) -> KeyframeDecision:
        """Offers the next frame of the stream. The first one fixes the image size of the map; later ones of another
        size are fitted to it."""
        if self.store is None:
            self._reserve(frame.camera)
        assert self.store is not None
        frame = frame.fitted(self.store.camera.width, self.store.camera.height)
        if self._trajectory is not None and (corrected := self._trajectory.at(frame.stamp_ns)) is not None:
            frame = replace(frame, T_world_camera=corrected)  # it was on its way when the correction came
        selector = self._selectors.setdefault(frame.stream, KeyframeSelector(self.config.keyframe))
        selection = selector.offer(frame, self.store.host_poses, self.store.seen)
        if selection.frame is None:
            if self.stereo is not None:
                self.stereo.add_between(
                    replace(frame, T_world_camera=self.corrected(frame.T_world_camera, frame.stamp_ns))
                )
            return KeyframeDecision(False, selection.reason)
        frame = selection.frame
        pose = self.corrected(frame.T_world_camera, frame.stamp_ns)
        if self.bounds is None:
            self._bounds_are_guessed = frame.depth_z is None and self.config.scene.radius is None
            self._bound(first_bounds(self.config.scene, frame))
        quality = self._prequential(frame, pose) if self.steps else None
        slot, generation = self.store.insert(frame)
        if pose is not frame.T_world_camera:
            self.store.refine([slot], pose[None])
        if self.stereo is not None:
            self.stereo.add_keyframe(slot)
        if self._adjustment is not None:
            self._adjustment.add_keyframe(slot)
        if self.fields.exposure is not None:
            self.fields.exposure.reset(slot)
        self._fit_volume(measured_points(frame))
        self.version += 1
        self.keyframes_version += 1
        return KeyframeDecision(True, selection.reason, slot, generation, frame.stamp_ns, quality)

    def correct(self, trajectory: Trajectory) -> Correction:
        """Moves keyframes to where they were in truth; further training heals the map.

        Colours, depth and embeddings of crops belong to images and stay. All else that came from the former poses is
        made anew, and the keyframes that were moved are trained on like new ones. Frames that come later with a stamp
        of before are corrected, too.
        """
        self._trajectory, self._drift = trajectory, None
        for selector in self._selectors.values():
            selector.forget()  # it has a former pose
        store = self.store
        if store is None or self.bounds is None:
            return Correction(0, 0, 0)
        known = {slot: trajectory.at(stamp_ns) for slot, stamp_ns in enumerate(store.stamps_ns[: len(store)])}
        matched = {slot: pose for slot, pose in known.items() if pose is not None}
        former = {slot: store.given_poses[slot].copy() for slot in matched}  # refined ones differ anyway
        moved = [
            slot
            for slot, pose in matched.items()
            if motion(pose, former[slot][None], store.config)[0] > _LEAST_CORRECTION
        ]
        if not moved:
            return Correction(len(store), len(matched), 0)
        store.move(moved, np.stack([matched[slot] for slot in moved]))
        if self.stereo is not None:
            self.stereo.move(moved)
        if self._adjustment is not None:
            self._adjustment.move(moved)
        self._surface = None  # its points lie where the surface was
        self._points = self._points_outside = 0
        self._fit_volume(store.seen_points())
        assert self._trainer is not None
        self._trainer.freshen()
        self.version += 1
        self.keyframes_version += 1
        return Correction(
            len(store),
            len(matched),
            len(moved),
            max(float(np.linalg.norm((matched[slot] - former[slot])[:3, 3])) for slot in moved),
            max(rotation_angle(matched[slot][:3, :3], former[slot][:3, :3]) for slot in moved),
        )

    def find_depth(self, work: StereoWork) -> None:
        """Does `stereo.next_work`. The first depth of a map without a depth camera decides the mapped volume."""
        assert self.stereo is not None and self.store is not None
        first = self.stereo.do(work)
        self.version += 1
        if not first:
            return
        if self._bounds_are_guessed:
            self._bounds_are_guessed = False
            self._begin_anew()
        else:
            self._fit_volume(self.store.seen_points(first))

    def step(self) -> StepStats:
        """One training step; of fewer rays from now on, where memory runs out.

        Raises:
            RuntimeError: before the first keyframe.
            torch.OutOfMemoryError: even the fewest rays take more memory than there is.
        """
        if self._trainer is None:
            raise RuntimeError("there is nothing to train on before the first keyframe")
        self.version += 1
        return self._trainer.step()

    def refine_poses(self, wait: bool = False) -> None:
        """Moves keyframes to where their adjustment in the background has found them to be by now, if it has; see
        `PoseAdjustment`. Returns at once otherwise. It starts with the first call.

        Args:
            wait: until all keyframes that are there have been adjusted.
        """
        if self._adjustment is None or (update := self._adjustment.update(wait)) is None:
            return
        self._drift = self._find_drift()
        if self.stereo is not None:
            self.stereo.adjust(update.moved, update.depths)
        self._surface = None  # its points lie where the surface was
        if update.is_large and self._trainer is not None:
            self._trainer.freshen()
        self.version += 1
        self.keyframes_version += 1
        _LOG.info("%s", update)

    def corrected(self, T_world_camera: Pose, stamp_ns: int) -> Pose:
        """Where a camera is in the map whose pose (4, 4) comes from where those of the keyframes come from: the same,
        unless these were refined, and err alike from one to the next."""
        return T_world_camera if self._drift is None else self._drift.corrected(T_world_camera, stamp_ns)

    def _find_drift(self) -> Drift | None:
        store = self.store
        if store is None or not store.refined:
            return None
        return Drift(np.array(store.stamps_ns[: len(store)]), store.given_poses, store.host_poses)

    @property
    def is_refining(self) -> bool:
        """Whether there are keyframes whose poses are still to be adjusted, by calls of `refine_poses`."""
        return self._adjustment is not None and self._adjustment.is_busy

    def render(self, camera: Camera, T_world_camera: Pose, *, stride: int = 1, features: bool = False) -> Rendering:
        """Renders a view; measured depth plays no part in it.

        Args:
            camera: of any size.
            T_world_camera: (4, 4) optical.
            stride: every n-th pixel per axis, from stride // 2.
            features: also what each pixel knows about language.

        Raises:
            RuntimeError: before the first keyframe.
        """
        if self.store is None or self.bounds is None:
            raise RuntimeError("there is nothing to render before the first keyframe")
        crop_scale = CropScale(self.config.language.scale, self.store.layout, self.bounds.radius) if features else None
        return render_view(self.fields, self.config, self.bounds, camera, T_world_camera, stride, crop_scale)

    def surface(self, max_points: int, close_ups: CloseUps | None = None, max_age: float = 0.0) -> MapSurface:
        """Surface points with their language, kept until the map changes.

        Args:
            close_ups: what a closer look asks beside the field.
            max_age: s, kept for so long even when the map changes: one more training step moves little.
        Raises:
            RuntimeError: before the first keyframe, or when the map has no language (embed_dim 0).
        """
        if self.store is None or self.bounds is None:
            raise RuntimeError("there is no surface before the first keyframe")
        if self.fields.language is None:
            raise RuntimeError("this map was made without an encoder: it has colours and depth, but no language")
        kept, asked = self._surface, (max_points, close_ups)
        if kept is None or kept.asked != asked or (kept.version != self.version and kept.age > max_age):
            if self._source is None or self._source.close_ups is not close_ups:
                self._source = SurfaceSource(self.fields, self.config, self.bounds, self.store, close_ups)
            surface = self._source.everywhere(max_points)
            kept = self._surface = _KeptSurface(surface, asked, self.version, time.monotonic())
        return kept.surface

    @property
    def surface_age(self) -> float:
        """s, for how long the kept surface has been behind the map; 0 when there is none, or the map is as it was."""
        kept = self._surface
        return kept.age if kept is not None and kept.version != self.version else 0.0

    def save(self, path: Path | str, encoder: str = "") -> None:
        """Writes the map to the folder `path`, keyframes included; an existing map there is replaced only once the new
        one is complete.

        Args:
            encoder: name of the encoder that the embeddings come from.
        Raises:
            RuntimeError: before the first keyframe.
            OSError: the disk is full, the folder is not writable, ...
        """
        if self.store is None or self.bounds is None:
            raise RuntimeError("there is nothing to save before the first keyframe")
        saved = checkpoint.SavedMap(self.config, self.bounds, self.fields, self.store, encoder, self.steps)
        checkpoint.write(Path(path), saved)

    def load(self, path: Path | str, encoder: str = "") -> None:
        """Replaces this map by the one in the folder `path`, its settings included; training can go on.

        Args:
            encoder: name of the present encoder; a map of another one is refused.
        Raises:
            MapFileError: missing, damaged, of another version, encoder or embedding size; this map stays as it is.
        """
        saved = checkpoint.read(Path(path), self.embed_dim, encoder, self.device)
        self.config, self.fields = saved.config, saved.fields
        self.store = saved.store
        self.dense_dim = saved.store.dense_dim
        self._rays = rays_per_step(saved.config)
        self._selectors = {}
        self._points = self._points_outside = 0
        self._trajectory, self._drift = None, self._find_drift()
        self._bounds_are_guessed = False
        self.stereo, self._adjustment = self._make_stereo(saved.store), self._make_adjustment(saved.store)
        self._bound(saved.bounds)
        assert self._trainer is not None
        self._trainer.steps = saved.steps
        self.version += 1
        self.keyframes_version += 1

    def _reserve(self, camera: Camera) -> None:
        self.store = KeyframeStore(self.config, camera, self.embed_dim, self.device, self.dense_dim)
        self.stereo, self._adjustment = self._make_stereo(self.store), self._make_adjustment(self.store)

    def _make_stereo(self, store: KeyframeStore) -> StereoDepth | None:
        if not self.config.depth.stereo:
            return None
        return StereoDepth(self.config.depth, self.config.keyframe, store, self._depth_prior)

    def _make_adjustment(self, store: KeyframeStore) -> PoseAdjustment | None:
        refinement = self.config.refinement
        # Poses without a scale come from structure from motion, which has adjusted them in the same way.
        is_wanted = refinement.enabled and self.config.scene.units == METRES
        may_move = min(refinement.translation, refinement.rotation, refinement.time_share) > 0
        return PoseAdjustment(refinement, store) if is_wanted and may_move else None

    def _bound(self, bounds: SceneBounds) -> None:
        assert self.store is not None
        self.bounds = bounds
        self._let_go()
        self._trainer = Trainer(self.config, self.fields, self.store, bounds, self._rays)

    def _let_go(self) -> None:
        """Of all that works with the present fields: what comes next needs the device's memory."""
        in_use = self._trainer is not None
        self._trainer = self._source = self._surface = None
        if in_use:
            gc.collect()  # captured work and whoever has captured it refer to each other

    def _begin_anew(self) -> None:
        """Training begins anew, in a volume around all that the keyframes see."""
        assert self.store is not None
        self._let_go()
        self.fields = MapFields(self.config, self.embed_dim, self.dense_dim).to(self.device)
        self._bound(enclosing(self.config.scene, self.store.seen_points()))
        self._points = self._points_outside = 0

    def _prequential(self, frame: Frame, pose: Pose) -> Quality:
        rendering = self.render(frame.camera, pose, stride=_PREQUENTIAL_STRIDE)
        grid = slice(_PREQUENTIAL_STRIDE // 2, None, _PREQUENTIAL_STRIDE)
        psnr_db = psnr(rendering.rgb.cpu().numpy(), frame.image[grid, grid] / 255)
        if frame.depth_z is None:
            return Quality(psnr_db, math.nan)
        depth_errors = np.abs(rendering.depth_z.cpu().numpy() - frame.depth_z[grid, grid])
        known = depth_errors[np.isfinite(depth_errors)]
        return Quality(psnr_db, float(np.median(known)) if len(known) else math.nan)

    def _fit_volume(self, points: NDArray[np.float64]) -> None:
        """Counts which of the points (N, 3) that keyframes see lie outside the volume; when these are many, an
        automatic volume grows.

        Growing means to begin training anew, in a volume around all that the keyframes see: they are all still there,
        so that the map is back within seconds. Each growth adds the margin, so there are few.
        """
        assert self.bounds is not None and self.store is not None
        outside = len(points) - int(self.bounds.contains(torch.from_numpy(points)).sum())
        self._points += len(points)
        self._points_outside += outside
        if outside <= _MUCH_OUTSIDE * len(points):
            return
        if self.config.scene.radius is None:
            self._begin_anew()
            _LOG.info("the mapped volume grew to a radius of %.1f m; training starts anew", self.bounds.radius)
        else:
            _LOG.warning(
                "%.0f %% of what keyframes see lies outside the mapped volume, where detail is lost: set a "
                "larger scene.radius (now %.1f m) and reset the map",
                100 * outside / len(points),
                self.bounds.radius,
            )
