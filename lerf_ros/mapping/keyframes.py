"""The bounded store of keyframes: everything that training reads, pre-allocated on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.features.dense import DenseGrid
from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.poses import Pose
from lerf_ros.mapping.config import KeyframeConfig, MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.scene import STRIDE
from lerf_ros.mapping.selection import cells_of, cells_seen, motion

_LEAST_SIGMA = 1e-4  # m, of stereo
_NEW_AGAIN = 0.02  # of the motion that makes a keyframe: some three pixels
_POINT_STRIDE = 32  # every n-th pixel is enough to see which volume the keyframes cover


class KeyframePoses(NamedTuple):
    """Where the keyframes are, in the order of their stamps: stamps_ns (N,) int64, T_world_camera (N, 4, 4); and what
    their camera is like."""

    stamps_ns: NDArray[np.int64]
    T_world_camera: NDArray[np.float64]
    camera: Camera


class KeyframeStore:
    """`keyframe.capacity` slots for keyframes of one image size, with the embeddings of their crops and, if wanted, the
    dense features of the whole images.

    Slots 0 .. count-1 are in use. When all are, a new keyframe takes the slot of the most redundant one: of the two
    keyframes that are closest to each other, the one whose next neighbour is closer too. New ones are never refused.
    A slot's `generation` grows with each keyframe that it takes, so that embeddings of its former one, finished late,
    are recognised and dropped.

    Memory is bounded by `memory_bytes`. It is reserved at once; on a CPU the system backs a slot with memory only when
    it is first written.

    Args:
        embed_dim: D of the encoder; 0 for a map without language.
        dense_dim: of the dense features; 0 for none.

    Attributes (K = capacity, L = pyramid levels, D = embedding size; all on `device`):
        images (K, H, W, 3) uint8; depth_z (K, H, W) float16 metres, NaN where not known (to 2 mm below 4 m);
        depth_sigma (K, H, W) float16 metres, its standard deviation where stereo found it, 0 elsewhere;
        poses (K, 4, 4) float64 T_world_camera; intrinsics (K, 4) float32 fx, fy, cx, cy in pixels;
        embeds (K, crops, D) float16, one per crop in the order of the pyramid layout; valid (K, L) bool;
        dense (K, rows, columns, dense_dim) float16 on the cells of dense_grid; dense_valid (K,) bool;
        recent (K,) int64 and recent_count () int64: slots that training has seen for less than `replay.recent_steps`
        steps come first: the last `replay.recent_keyframes` new ones, and those that were moved;
        language (K,) int64 and language_count () int64: slots with at least one valid level come first;
        count () int64: slots in use.

    Attributes (on the host):
        crops_missing, dense_missing: crops, and dense features, of the slots in use that were not encoded yet.
    """

    def __init__(
        self, config: MapperConfig, camera: Camera, embed_dim: int, device: torch.device | str, dense_dim: int = 0
    ) -> None:
        capacity = config.keyframe.capacity
        self.config = config.keyframe
        self._recent_steps, self._recent_keyframes = config.replay.recent_steps, config.replay.recent_keyframes
        self.camera = camera
        self.embed_dim, self.dense_dim = embed_dim, dense_dim
        self.layout = PyramidLayout.build(camera.height, camera.width, config.pyramid.fractions, config.pyramid.strides)
        self.dense_grid = DenseGrid.build(camera.height, camera.width, config.dense.rows)
        crops, levels = (self.layout.total if embed_dim else 0), len(self.layout.levels)
        self.images = torch.empty(capacity, camera.height, camera.width, 3, dtype=torch.uint8, device=device)
        self.depth_z = torch.empty(capacity, camera.height, camera.width, dtype=torch.float16, device=device)
        self.depth_sigma = torch.zeros_like(self.depth_z)
        self.poses = torch.zeros(capacity, 4, 4, dtype=torch.float64, device=device)
        self.intrinsics = torch.zeros(capacity, 4, device=device)
        self.embeds = torch.zeros(capacity, crops, embed_dim, dtype=torch.float16, device=device)
        self.valid = torch.zeros(capacity, levels, dtype=torch.bool, device=device)
        cells = (self.dense_grid.rows, self.dense_grid.columns) if dense_dim else (0, 0)
        self.dense = torch.zeros(capacity, *cells, dense_dim, dtype=torch.float16, device=device)
        self.dense_valid = torch.zeros(capacity, dtype=torch.bool, device=device)
        self.recent = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.recent_count = torch.zeros((), dtype=torch.int64, device=device)
        self.language = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.language_count = torch.zeros((), dtype=torch.int64, device=device)
        self.count = torch.zeros((), dtype=torch.int64, device=device)

        self.generations = [0] * capacity
        self.stamps_ns = [0] * capacity
        self._age_order: list[int] = []  # slots, newest first
        self._new: list[int] = []  # of them, those that count as new
        self._born = [0] * capacity  # step at which a slot's keyframe came
        self._moved: list[int] = []  # slots that count as new because they were moved ...
        self._moved_at = 0  # ... at this step
        self._step = 0
        self._poses = np.zeros((capacity, 4, 4))  # host copies: decisions never wait for the device
        self._given_poses = np.zeros((capacity, 4, 4))
        self._valid = np.zeros((capacity, levels), bool)
        self._dense_valid = np.zeros(capacity, bool)
        self._crop_counts = np.array([level.count for level in self.layout.levels])
        self.crops_missing = self.dense_missing = 0  # counted where it changes, asked after every unit of work
        self._has_depth = np.zeros(capacity, bool)
        self._distances = np.full((capacity, capacity), np.inf)
        self._cells: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * capacity
        self.seen = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._age_order)

    @property
    def memory_bytes(self) -> int:
        """Upper bound of the device memory of all slots."""
        buffers = [getattr(self, name) for name in self._saved]
        return sum(buffer.numel() * buffer.element_size() for buffer in buffers)

    @property
    def by_stamp(self) -> KeyframePoses:
        """Copies, so that any thread may read them."""
        stamps_ns = np.array(self.stamps_ns[: len(self)], np.int64)
        order = np.argsort(stamps_ns, kind="stable")
        return KeyframePoses(stamps_ns[order], self.host_poses[order], self.camera)

    @property
    def host_poses(self) -> NDArray[np.float64]:
        """(count, 4, 4) T_world_camera."""
        return self._poses[: len(self)]

    @property
    def given_poses(self) -> NDArray[np.float64]:
        """(count, 4, 4) T_world_camera that keyframes came with or were moved to, before any refinement."""
        return self._given_poses[: len(self)]

    @property
    def refined_slots(self) -> NDArray[np.int64]:
        """Slots (N,) of the keyframes that have another pose than the given one."""
        return np.flatnonzero((self.host_poses != self.given_poses).any(axis=(1, 2)))

    @property
    def refined(self) -> int:
        """How many keyframes have another pose than the given one."""
        return len(self.refined_slots)

    @property
    def host_valid(self) -> NDArray[np.bool_]:
        """(count, L) which levels of which slot have been encoded."""
        return self._valid[: len(self)]

    @property
    def has_language(self) -> bool:
        """Whether any level of any keyframe has been encoded."""
        return bool(self._valid[: len(self)].any())

    @property
    def host_dense_valid(self) -> NDArray[np.bool_]:
        """(count,) which slots have dense features."""
        return self._dense_valid[: len(self)]

    @property
    def has_dense(self) -> bool:
        """Whether any keyframe has dense features."""
        return bool(self.host_dense_valid.any())

    @property
    def all_have_depth(self) -> bool:
        """Whether every keyframe came with a depth image (single pixels of it may be missing)."""
        return bool(self._has_depth[: len(self)].all())

    @property
    def steps_since_news(self) -> int:
        """Training steps since a keyframe came or was moved."""
        return self._step - max(self._moved_at, *self._born)

    @property
    def newest_first(self) -> tuple[int, ...]:
        """Slots in use, from the newest keyframe to the oldest."""
        return tuple(self._age_order)

    def colours(self, slot: int) -> Tensor:
        """(3, H, W) float in [0, 1], as encoders want them."""
        return self.images[slot].permute(2, 0, 1).float() / 255

    def lifted(self, slots: Tensor, uv: Tensor) -> tuple[Tensor, Tensor]:
        """Where keyframes slots (P,) measured the surface at whole pixels uv (P, 2): x_world (P, 3) float64 and depth_z
        (P,) m; NaN where they did not."""
        uv = uv.long()
        depth_z = self.depth_z[slots, uv[:, 1], uv[:, 0]].double()
        focal, middle = self.intrinsics[slots].double().split(2, dim=-1)
        along = torch.nn.functional.pad((uv - middle) / focal, (0, 2), value=1.0)  # what T_world_camera takes, at 1 m
        along[:, :3] *= depth_z[:, None]
        return (self.poses[slots] @ along[..., None])[:, :3, 0], depth_z

    def seen_points(self, slots: Sequence[int] | None = None) -> NDArray[np.float64]:
        """World points (N, 3), metres, of a coarse grid of the pixels of some keyframes, or of all, whose depth is
        known; and their cameras."""
        step = _POINT_STRIDE
        every = list(range(len(self))) if slots is None else list(slots)
        which, v, u = torch.isfinite(self.depth_z[every, ::step, ::step]).nonzero(as_tuple=True)
        points, _ = self.lifted(torch.tensor(every, device=which.device)[which], step * torch.stack([u, v], dim=-1))
        return np.concatenate([points.cpu().numpy(), self.host_poses[every, :3, 3]])

    def insert(self, frame: Frame) -> tuple[int, int]:
        """Takes a keyframe of the store's image size (`Frame.fitted`); returns its (slot, generation)."""
        slot = len(self) if len(self) < self.config.capacity else self._most_redundant()
        camera = frame.camera
        self.images[slot].copy_(torch.from_numpy(np.ascontiguousarray(frame.image)))
        if frame.depth_z is None:
            self.depth_z[slot].fill_(torch.nan)
        else:
            self.depth_z[slot].copy_(torch.from_numpy(frame.depth_z))
        self.depth_sigma[slot].zero_()
        self.poses[slot].copy_(torch.from_numpy(frame.T_world_camera))
        self.intrinsics[slot].copy_(torch.tensor([camera.fx, camera.fy, camera.cx, camera.cy]))
        self.stamps_ns[slot] = frame.stamp_ns
        self.generations[slot] += 1
        self._valid[slot] = self._dense_valid[slot] = False
        self._has_depth[slot] = frame.depth_z is not None
        self._register(slot, frame.T_world_camera, cells_seen(frame, self.config.unseen_voxel))
        return slot, self.generations[slot]

    def move(self, slots: Sequence[int], T_world_camera: NDArray[np.float64]) -> None:
        """Gives keyframes other poses (S, 4, 4), and with them all that was derived from the former ones. They count as
        new again, all of them: what training has put where they were has to go."""
        self._place(slots, T_world_camera)
        self._given_poses[list(slots)] = T_world_camera
        self._note_moved(slots)

    def refine(self, slots: Sequence[int], T_world_camera: NDArray[np.float64]) -> None:
        """As `move`; the poses that were given are kept. Those that move by more than `_NEW_AGAIN` of the motion that
        makes a keyframe count as new again: what has been learnt still holds about elsewhere."""
        far = [
            slot
            for slot, pose in zip(slots, T_world_camera, strict=True)
            if motion(pose, self._poses[slot][None], self.config)[0] > _NEW_AGAIN
        ]
        self._place(slots, T_world_camera)
        if far:
            self._note_moved(far)

    def tune(self, config: KeyframeConfig) -> None:
        """Other thresholds from now on, also between the keyframes that are there."""
        self.config = config
        for slot in range(len(self)):
            self._measure(slot, list(range(len(self))))

    def tick(self) -> None:
        """Counts a training step: keyframes cease to be new."""
        self._step += 1
        aged = bool(self._new) and self._step - self._born[self._new[-1]] >= self._recent_steps
        healed = bool(self._moved) and self._step - self._moved_at >= self._recent_steps
        if aged:
            self._new.pop()
        if healed:
            self._moved = []
        if aged or healed:
            self._publish()

    def write_stereo(self, slot: Tensor, depth_z: Tensor, sigma: Tensor) -> None:
        """Writes depth that other views confirm, and its standard deviation, both (H, W) m, NaN: not known, wherever no
        depth camera measured; what was written before is forgotten. May be captured.

        Args:
            slot: (1,) int64, on the device.
        """
        by_stereo = self.depth_z[slot].isnan() | (self.depth_sigma[slot] > 0)
        known = by_stereo & depth_z.isfinite() & (sigma > 0)
        self.depth_z[slot] = torch.where(by_stereo, torch.where(known, depth_z.half(), torch.nan), self.depth_z[slot])
        # not 0, which float16 would make of the smallest
        self.depth_sigma[slot] = torch.where(known, sigma.clamp_min(_LEAST_SIGMA), 0.0).half()

    def write_embeds(self, slot: int, generation: int, start: int, embeds: Tensor) -> bool:
        """Writes crop embeddings (B, D) from crop index `start`; False when the slot holds another keyframe by now."""
        if self.generations[slot] != generation:
            return False
        self.embeds[slot, start : start + len(embeds)].copy_(embeds)
        return True

    def finish_level(self, slot: int, generation: int, level: int) -> bool:
        """Declares a level complete, so that training uses it; False as for `write_embeds`."""
        if self.generations[slot] != generation:
            return False
        self._valid[slot, level] = True
        self._publish()
        return True

    def write_dense(self, slot: int, generation: int, features: Tensor) -> bool:
        """Writes the dense features (rows, columns, dense_dim) of a keyframe; False as for `write_embeds`."""
        if self.generations[slot] != generation:
            return False
        self.dense[slot].copy_(features)
        return True

    def finish_dense(self, slot: int, generation: int) -> bool:
        """Declares them complete, so that training uses them; False as for `write_embeds`."""
        if self.generations[slot] != generation:
            return False
        self._dense_valid[slot] = True
        self._publish()
        return True

    def state(self) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
        """Tensors and plain values of the slots in use, for saving."""
        n = len(self)
        tensors = {name: getattr(self, name)[:n].cpu() for name in self._saved}
        plain = {
            "generations": self.generations[:n],
            "stamps_ns": self.stamps_ns[:n],
            "newest_first": list(self._age_order),
        }
        tensors["given_poses"] = torch.from_numpy(self.given_poses)
        tensors["cells"] = torch.from_numpy(np.concatenate([*self._cells[:n], np.empty(0, np.int64)]))
        plain["cell_counts"] = [len(cells) for cells in self._cells[:n]]
        return tensors, plain

    def restore(self, tensors: dict[str, Tensor], plain: dict[str, list[int]]) -> None:
        """Fills an empty store with a saved `state` of the same image size and at most as many slots."""
        n = len(plain["generations"])
        for name in self._saved:
            if name in tensors:  # maps from before stereo have no depth_sigma
                getattr(self, name)[:n].copy_(tensors[name])
        self.generations[:n] = plain["generations"]
        self.stamps_ns[:n] = plain["stamps_ns"]
        self._valid[:n] = tensors["valid"].numpy()
        if self.dense_dim:
            self._dense_valid[:n] = tensors["dense_valid"].numpy()
        measured = torch.isfinite(self.depth_z[:n]) & (self.depth_sigma[:n] == 0)
        self._has_depth[:n] = measured.flatten(1).any(dim=1).cpu().numpy()
        ends = np.cumsum(plain["cell_counts"])[:-1]
        cells = np.split(tensors["cells"].numpy(), ends)
        for slot in reversed(plain["newest_first"]):
            self._register(slot, tensors["poses"][slot].numpy(), cells[slot])
        self._given_poses[:n] = tensors.get("given_poses", tensors["poses"]).numpy()  # older maps have no refined ones

    @property
    def _saved(self) -> tuple[str, ...]:
        names = ("images", "depth_z", "depth_sigma", "poses", "intrinsics", "embeds", "valid")
        return (*names, "dense", "dense_valid") if self.dense_dim else names

    def _most_redundant(self) -> int:
        nearest = np.sort(self._distances, axis=1)[:, :2]
        pair = np.flatnonzero(nearest[:, 0] == nearest[:, 0].min())
        return int(pair[np.argmin(nearest[pair, -1])])

    def _register(self, slot: int, T_world_camera: Pose, cells: NDArray[np.int64]) -> None:
        """Enters a keyframe into the host's book-keeping."""
        used = [other for other in self._age_order if other != slot]
        self._age_order = [slot, *used]
        self._born[slot] = self._step
        self._new = [slot, *(other for other in self._new if other != slot)][: self._recent_keyframes]
        self._moved = [other for other in self._moved if other != slot]
        self._poses[slot] = self._given_poses[slot] = T_world_camera
        self._measure(slot, used)
        self._cells[slot] = cells
        self.seen = np.unique(np.concatenate(self._cells))
        self._publish()

    def _place(self, slots: Sequence[int], T_world_camera: NDArray[np.float64]) -> None:
        """Brings poses (S, 4, 4), and all that is derived from them, up to date."""
        self._poses[list(slots)] = T_world_camera
        self.poses.copy_(torch.from_numpy(self._poses))
        for slot in slots:
            self._measure(slot, list(range(len(self))))
            self._cells[slot] = cells_of(self._measured_points(slot), self.config.unseen_voxel)
        self.seen = np.unique(np.concatenate(self._cells))

    def _note_moved(self, slots: Sequence[int]) -> None:
        self._moved = list(dict.fromkeys([*slots, *self._moved]))
        self._moved_at = self._step
        self._publish()

    def _measure(self, slot: int, others: list[int]) -> None:
        """How far a keyframe is from others."""
        distances = motion(self._poses[slot], self._poses[others], self.config)
        self._distances[slot, others] = self._distances[others, slot] = distances
        self._distances[slot, slot] = np.inf

    def _measured_points(self, slot: int) -> NDArray[np.float64]:
        """As `scene.measured_points`, of a keyframe as it is now."""
        v, u = torch.isfinite(self.depth_z[slot, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]).nonzero(as_tuple=True)
        uv = STRIDE * torch.stack([u, v], dim=-1) + STRIDE // 2
        return self.lifted(torch.full_like(u, slot), uv)[0].cpu().numpy()

    def _publish(self) -> None:
        """Brings what a training step reads up to date on the device, and what is missing on the host."""
        self.crops_missing = int((~self.host_valid @ self._crop_counts).sum())
        self.dense_missing = int((~self.host_dense_valid).sum())
        self.valid.copy_(torch.from_numpy(self._valid))
        self.dense_valid.copy_(torch.from_numpy(self._dense_valid))
        recent = list(dict.fromkeys([*self._new, *self._moved]))
        self.recent[: len(recent)].copy_(torch.tensor(recent, dtype=torch.int64))
        self.recent_count.fill_(len(recent))
        with_language = np.flatnonzero(self._valid.any(axis=1))
        self.language[: len(with_language)].copy_(torch.from_numpy(with_language))
        self.language_count.fill_(len(with_language))
        self.count.fill_(len(self))
