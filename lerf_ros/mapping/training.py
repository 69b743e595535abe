"""One training step of the map: fixed shapes, and nothing that waits for the device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lerf_ros.captured import Captured, InFlight, SideBySide
from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.mapping import losses
from lerf_ros.mapping.config import MapperConfig, OptimiserConfig
from lerf_ros.mapping.decoding import CropScale, training_features
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.marching import March, march_measured
from lerf_ros.mapping.rays import RayBatch, draw_batch
from lerf_ros.mapping.shrinking import Shrinking
from lerf_ros.mapping.table_adam import TableAdam
from lerf_ros.render.rays import Rays
from lerf_ros.render.resampling import Histogram
from lerf_ros.render.sampling import depth_guided_edges

_QUEUED = 2  # steps: the device never waits for the host, and nothing waits for more than these
_BETAS, _EPS = (0.9, 0.99), 1e-15  # Adam's, as in instant-NGP
_BAND_SIGMAS = 3.0  # standard deviations of a ray's depth: half width of the band that is sampled around it
_FEWEST_RAYS = 256  # of a step, however little memory there is


@dataclass(frozen=True)
class StepStats:
    """Loss terms of a step, before weighting; `skipped`, how many steps of this trainer changed nothing so far because
    their loss or a gradient was not finite. Scalars on the device: reading one with float() waits for it. On CUDA the
    next step overwrites them."""

    step: int
    loss: Tensor
    colour: Tensor
    depth: Tensor
    language: Tensor
    dino: Tensor
    skipped: Tensor


class Trainer:
    """Trains the fields of one map on its keyframes.

    Args:
        rays: of a step; fewer when memory runs out.
    """

    def __init__(
        self, config: MapperConfig, fields: MapFields, store: KeyframeStore, bounds: SceneBounds, rays: Shrinking
    ) -> None:
        self._config = config
        self._fields = fields
        self._store = store
        self._bounds = bounds
        self._rays = rays
        device = store.images.device
        tables, networks = parameter_groups(fields, config.optimiser)
        self._rates = [(group, group["lr"]) for group in tables + networks]
        for group, rate in self._rates:  # on the device, so that a captured step follows them
            group["lr"] = torch.tensor(rate, device=device)
        self._tables = TableAdam(tables, _BETAS, _EPS)
        capturable = device.type == "cuda"
        self._networks = torch.optim.Adam(networks, betas=_BETAS, eps=_EPS, fused=True, capturable=capturable)
        self._skip = torch.zeros((), device=device)  # 1: the step at hand is skipped
        self._skipped = torch.zeros((), device=device, dtype=torch.long)
        self._networks.found_inf = self._skip  # type: ignore[attr-defined]  # as torch's GradScaler tells a fused one
        self._captured = Captured(self._work, device)
        self._side_by_side = SideBySide(device)
        self._in_flight = InFlight(device, _QUEUED)
        self._crop_scale = CropScale(config.language.scale, store.layout, bounds.radius)
        self.steps = 0
        self._younger = 0  # steps that do not count towards the fall of the learning rate

    def freshen(self) -> None:
        """The learning rate is half the full one again, if it is less: there is much to be learnt anew."""
        self._younger = max(self._younger, self.steps - self._config.optimiser.half_life)

    def step(self) -> StepStats:
        """Draws rays, renders them, takes one Adam step. Raises torch.OutOfMemoryError."""
        self._set_rates()
        terms = self._rays.run(self._run, self._discard)
        self._in_flight.add()
        self.steps += 1
        self._store.tick()
        return StepStats(self.steps, *terms)

    def tune(self, config: MapperConfig) -> None:
        """Another `replay.recent` from the next step on."""
        self._config = config

    def _run(self, rays: int) -> tuple[Tensor, ...]:
        recent = self._config.replay.recent  # may be tuned, and the step is then captured anew
        return self._captured.run((rays, self._guided_rays(), self._store.has_language, self._learns_dense(), recent))

    def _discard(self) -> None:
        """Forgets a step that was not finished, and the one captured."""
        self._captured.forget()
        self._tables.clear_gradients()
        self._networks.zero_grad(set_to_none=True)

    def _work(self) -> tuple[Tensor, ...]:
        """The step on the device: loss, colour, depth, language, dino and skipped, as in `StepStats`."""
        rays, guided = self._rays.size, self._guided_rays()
        batch = draw_batch(self._store, rays, self._language_rays, guided, self._config.replay, self._bounds)
        weight, far = self._config.loss, self._config.scene.far
        t_sigma = self._t_sigma(batch)
        trust = weight.sight_sigma / t_sigma  # of an absolute error; 1 of a depth camera
        t_edges, histograms = self._edges(batch, t_sigma, guided)
        near_field = 0.0 if guided else weight.near_field  # depth clears the space before the camera by itself
        marched, errors = march_measured(
            self._fields.radiance, batch.rays, t_edges, batch.t_measured, t_sigma, far, near_field
        )
        self._fields.update_proposal(marched.x_unit.flatten(0, 1), marched.sigmas.detach().flatten())

        rgb = errors.rgb if self._fields.exposure is None else self._fields.exposure(errors.rgb, batch.slots)
        colour = losses.colour_loss(rgb, batch.rgb)
        measured = losses.measured_count(batch.t_measured)
        depth = (trust * errors.depth).sum() / measured
        loss = colour + weight.depth * depth
        if weight.sight:
            loss = loss + weight.sight * ((trust * errors.sight).sum() / measured)
        if weight.distortion:
            loss = loss + weight.distortion * errors.distortion.mean()
        for histogram in histograms:
            free = marched[guided:]
            loss = loss + weight.interlevel * losses.interlevel_loss(free.t_edges, free.weights, histogram)
        if self._fields.exposure is not None:
            loss = loss + weight.exposure * self._fields.exposure.log_gains.square().mean()
        self._networks.zero_grad(set_to_none=True)
        # Language takes from the other fields where samples lie and what they weigh, and gives nothing back.
        (of_language, language, dino), _ = self._side_by_side.run(
            partial(self._learn_language, batch, marched), loss.backward
        )
        loss = loss.detach() + of_language
        self._update(loss)
        return loss, colour.detach(), depth.detach(), language, dino, self._skipped

    def _learn_language(self, batch: RayBatch, marched: March) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the language field. Returns its loss, weighted, and the terms language and dino."""
        if not (self._language_rays and self._store.has_language):
            zero = torch.zeros((), device=batch.uv.device)
            return zero, zero, zero
        language, dino = self._language_losses(batch, marched)
        loss = self._config.loss.language * language
        if self._learns_dense():
            loss = loss.add(dino, alpha=self._config.loss.dino)
        loss.backward()
        return loss.detach(), language.detach(), dino.detach()

    def _t_sigma(self, batch: RayBatch) -> Tensor:
        """(R,) m, standard deviation of where a ray's surface is: of its depth, and the thickness of a surface."""
        return torch.hypot(batch.t_sigma, batch.t_sigma.new_full((), self._config.loss.sight_sigma))

    def _update(self, loss: Tensor) -> None:
        """Takes the Adam step, unless the loss or a gradient of the networks, through which those of the tables come,
        is not finite: then parameters and moments stay as they are."""
        gradients = [p.grad for group in self._networks.param_groups for p in group["params"] if p.grad is not None]
        finite = torch.isfinite(loss) & torch.isfinite(torch.nn.utils.get_total_norm(gradients))
        self._skip.copy_(~finite)
        self._skipped.add_(~finite)
        self._side_by_side.run(self._networks.step, partial(self._tables.step, self._skip))

    @property
    def _language_rays(self) -> int:
        """Rays that also carry language."""
        return round(self._rays.size * self._config.replay.language) if self._fields.language else 0

    def _guided_rays(self) -> int:
        """Rays sampled around their depth, where it is known: all but `sampling.depth_free_share`; none when there are
        keyframes without depth that stereo will not give them."""
        share = 1 - self._config.sampling.depth_free_share
        return round(self._rays.size * share) if self._config.depth.stereo or self._store.all_have_depth else 0

    def _learns_dense(self) -> bool:
        return self._config.loss.dino > 0 and self._store.has_dense

    def _edges(self, batch: RayBatch, t_sigma: Tensor, guided: int) -> tuple[Tensor, tuple[Histogram, ...]]:
        """Sample intervals: the first `guided` rays around their depth, where it is known, the others as in rendering.
        And what proposal networks believed about the latter."""
        sampling, near = self._config.sampling, self._config.scene.near
        first, others = (
            Rays(batch.rays.origins[part], batch.rays.directions[part], batch.rays.radius)
            for part in (slice(guided), slice(guided, None))
        )
        fallback, _ = self._fields.propose(first, sampling.samples, jitter=True, explore=sampling.explore)
        around_depth = depth_guided_edges(
            fallback,
            batch.t_measured[:guided],
            _BAND_SIGMAS * t_sigma[:guided],
            near,
            round(sampling.samples * sampling.surface_share),
        )
        explore = 0.0 if guided else sampling.explore  # guided rays say what lies before a surface
        proposed, histograms = self._fields.propose(others, sampling.samples, jitter=True, explore=explore)
        return torch.cat([around_depth, proposed]), histograms

    def _language_losses(self, batch: RayBatch, marched: March) -> tuple[Tensor, Tensor]:
        """Language at a random crop size of the encoded range, and dense features, on the first rays of the batch."""
        field = self._fields.language
        assert field is not None
        rays = slice(self._language_rays)
        slots, store = batch.slots[rays], self._store
        random = torch.rand_like(batch.z_per_t[rays])
        targets, crop_px = store.layout.supervision(store.embeds, store.valid, slots, batch.uv[rays], random)
        features = training_features(field, marched[rays], self._config.language)
        focal_px = store.intrinsics[slots, 1]
        t = features.t.movedim(0, -1)  # rays last: one or several features a ray
        scale = self._crop_scale.of(crop_px, t, batch.z_per_t[rays], focal_px).movedim(-1, 0)
        dense, known = None, None
        if self._learns_dense():
            dense = store.dense_grid.interpolate(store.dense, slots, batch.uv[rays])
            known = store.dense_valid[slots]
        return losses.language_losses(features, scale, targets, dense, known)

    def _set_rates(self) -> None:
        share = rate_share(self.steps - self._younger, self._config.optimiser)
        for group, rate in self._rates:
            group["lr"].fill_(rate * share)


def rays_per_step(config: MapperConfig) -> Shrinking:
    """For the trainers of one map."""
    return Shrinking("sampling.rays", config.sampling.rays, _FEWEST_RAYS)


def rate_share(step: int, config: OptimiserConfig) -> float:
    """Share of the full learning rate at a step: linear warm-up, then 1 / (1 + step / half_life) down to a floor."""
    return min(1.0, (step + 1) / config.warm_up) * max(config.rate_floor, 1 / (1 + step / config.half_life))


def parameter_groups(fields: MapFields, config: OptimiserConfig) -> tuple[list[dict], list[dict]]:
    """Adam's parameter groups of the hash tables and of all else: tables learn faster than networks, colours have rates
    other than language."""
    tables: list[dict] = []
    networks: list[dict] = []

    def add(module: torch.nn.Module | None, grid_rate: float, network_rate: float) -> None:
        named = list(module.named_parameters()) if module is not None else []
        for is_table, groups, rate in ((True, tables, grid_rate), (False, networks, network_rate)):
            parameters = [p for name, p in named if name.endswith("table") == is_table]
            if parameters:
                groups.append({"params": parameters, "lr": rate})

    add(fields.radiance, config.grid_rate, config.network_rate)
    add(fields.proposal, config.grid_rate, config.network_rate)
    add(fields.language, config.language_grid_rate, config.language_network_rate)
    add(fields.exposure, config.exposure_rate, config.exposure_rate)
    return tables, networks
