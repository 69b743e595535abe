#!/usr/bin/env python3
"""Trains the built-in mini CLIP on crops of procedural rooms; writes weights, vocabulary, calibration and model card.

Worker processes render training rooms for as long as training runs. Every view stays in device memory, where batches
of crops are cut, labelled and augmented. The network is open_clip's CLIP class in a small configuration. The defaults
take about ten minutes on one large GPU with 16 cores; `--smoke` runs all of it in about a minute on a CPU and learns
next to nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import queue
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from mini_clip_card import model_card
from mini_clip_evaluation import calibrate, evaluate
from mini_clip_loss import contrastive_loss
from mini_clip_rooms import class_phrases, render_room
from mini_clip_texts import CANONICAL_PHRASES, TextBank
from mini_clip_views import RoomViews, ViewStore, augment, recolour
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lerf_ros.features.encoder import MINI_CLIP, Encoder, RelevancyCalibration
from lerf_ros.world.kinds.catalogue import EVALUATION_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS
from lerf_ros.world.materials import COLOURS

HEIGHT, WIDTH = 480, 640
MAX_LOGIT_SCALE = 20.0  # CLIP's 100 would let cosines lie close together, which no field reproduces
UNKNOWN_TEXTS = 48
RECOLOURED = 4  # one crop in so many
WARM_UP_STEPS = 300


def main() -> int:
    options = parse_arguments()
    torch.manual_seed(options.seed)
    config = json.loads(options.config.read_text())
    bank = TextBank(class_phrases(), config["text_cfg"]["context_length"])
    config["text_cfg"]["vocab_size"] = bank.tokenizer.vocab_size
    trainer = Trainer(config, bank, options)
    spawn = multiprocessing.get_context("spawn")  # a forked child may not use CUDA
    with ProcessPoolExecutor(options.workers, mp_context=spawn) as pool:
        first = TRAINING_SEEDS[options.seed * options.rooms]
        seeds = range(first, first + options.rooms)
        rooms = Rendering(pool, seeds[: options.first_rooms], options.views)
        validation = Rendering(pool, VALIDATION_SEEDS[-options.test_rooms :], options.views)
        test = Rendering(pool, EVALUATION_SEEDS[-options.test_rooms :], options.views)
        rooms.start(seeds[options.first_rooms :])
        steps = trainer.run(rooms)
        validation, test = ([rendering.get() for _ in range(options.test_rooms)] for rendering in (validation, test))
        pool.shutdown(cancel_futures=True)

    encoder = trainer.encoder(RelevancyCalibration(canonical_phrases=CANONICAL_PHRASES))
    save(options.out, encoder, config, bank)
    encoder.calibration = calibrate(encoder, validation)
    save_calibration(options.out, encoder.calibration)
    figures = evaluate(encoder, test)
    card = model_card(encoder, bank, figures, options, steps, trainer.store.count)
    (options.out / "MODEL_CARD.md").write_text(card)
    print(card)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.5, help="of training, once the first rooms are rendered")
    parser.add_argument("--rooms", type=int, default=1500, help="training rooms at most")
    parser.add_argument("--first-rooms", type=int, default=15, help="training starts when so many are rendered")
    parser.add_argument(
        "--test-rooms", type=int, default=16, help="for calibration, and again for the figures of the card"
    )
    parser.add_argument("--views", type=int, default=12, help="per room")
    parser.add_argument("--batch", type=int, default=2048, help="crops in a step")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--workers", type=int, default=max(1, (multiprocessing.cpu_count() or 1) - 1))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0, help="of the rooms, the weights and the crops")
    parser.add_argument(
        "--config", type=Path, default=MINI_CLIP / "mini.json", help="architecture, in open_clip's format"
    )
    parser.add_argument("--out", type=Path, default=MINI_CLIP)
    parser.add_argument("--smoke", action="store_true", help="a tiny run that touches everything")
    options = parser.parse_args()
    if options.smoke:
        options.minutes, options.rooms, options.first_rooms, options.test_rooms = 0.05, 1, 1, 1
        options.views, options.batch, options.workers = 2, 16, 1
    options.out.mkdir(parents=True, exist_ok=True)
    return options


class Rendering:
    """Rooms that worker processes are rendering, in the order in which they are done."""

    def __init__(self, pool: ProcessPoolExecutor, seeds: range, views: int):
        self._pool, self._views = pool, views
        self._done: queue.SimpleQueue[Future[RoomViews]] = queue.SimpleQueue()
        self.start(seeds)

    def start(self, seeds: range) -> None:
        """Queues more rooms."""
        for seed in seeds:
            self._pool.submit(render_room, seed, self._views).add_done_callback(self._done.put)

    def ready(self) -> bool:
        return not self._done.empty()

    def get(self) -> RoomViews:
        """The next room; waits for it."""
        return self._done.get().result()


class Trainer:
    """The network, its moving average (which is what gets saved) and the views to learn from."""

    def __init__(self, config: dict, bank: TextBank, options: argparse.Namespace):
        self.bank, self.options, self.crop_size = bank, options, config["vision_cfg"]["image_size"]
        self.device = torch.device(options.device)
        self.model = open_clip.CLIP(**config).to(self.device, memory_format=torch.channels_last)
        set_model_preprocess_cfg(self.model, asdict(PreprocessCfg()))
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.998))
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.store = ViewStore(options.rooms * options.views, HEIGHT, WIDTH, bank.names, self.device)
        self.plain = torch.tensor([bank.names.index(_without_colour(name)) for name in bank.names], device=self.device)
        self.random = torch.Generator(self.device).manual_seed(options.seed)
        self.random_texts = torch.Generator().manual_seed(options.seed)
        self.mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN, device=self.device).view(3, 1, 1)
        self.std = torch.tensor(open_clip.OPENAI_DATASET_STD, device=self.device).view(3, 1, 1)

    def run(self, rooms: Rendering) -> int:
        """Trains until the time is over, taking in new rooms between steps; returns the number of steps."""
        for number in range(self.options.first_rooms):
            self.store.add(rooms.get())
            print(f"rendered {number + 1} of the first {self.options.first_rooms} rooms", end="\r", flush=True)
        start, step, shown = time.monotonic(), 0, 0.0
        end = start + 60 * self.options.minutes
        while (now := time.monotonic()) < end:
            if rooms.ready():
                self.store.add(rooms.get())
            progress = (now - start) / (end - start)
            warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
            loss = self.step(self.options.learning_rate * warm_up * (0.5 + 0.5 * math.cos(math.pi * progress)))
            step += 1
            if now > shown + 10:
                shown = now
                print(f"{progress:4.0%} step {step} loss {loss.item():.3f} views {self.store.count}", flush=True)
        return step

    def step(self, learning_rate: float) -> Tensor:
        """One step of AdamW on a fresh batch of crops and one phrasing of every other class -> loss.

        Some crops are recoloured, so that shapes are learnt for themselves and hold in colours never seen: of such a
        crop only the kinds are still true, and a colour is false only together with a kind that is.
        """
        crops = self.store.draw(self.options.batch, self.crop_size, self.random)
        true, false, images, some = crops.true, crops.false, crops.images, len(crops.images) // RECOLOURED
        images[:some] = recolour(images[:some], self.random)
        true[:some] &= self.plain == torch.arange(len(self.plain), device=self.device)
        false[:some] &= false[:some, self.plain]
        images = (augment(images, self.random) - self.mean) / self.std
        classes, known = self.bank.draw(len(self.bank.names) // 2, self.random_texts)
        unknown = self.bank.draw_unknown(UNKNOWN_TEXTS, self.random_texts)
        texts, classes = torch.cat([known, unknown, self.bank.canonical]).to(self.device), classes.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            image_embeds = self.model.encode_image(images, normalize=True).float()
            text_embeds = self.model.encode_text(texts, normalize=True).float()
        true = F.pad(true[:, classes], (0, UNKNOWN_TEXTS))
        false = F.pad(false[:, classes], (0, UNKNOWN_TEXTS), value=True)
        canonical = len(self.bank.canonical)
        scale = self.model.logit_scale.exp()
        loss = contrastive_loss(image_embeds, text_embeds[:-canonical], text_embeds[-canonical:], true, false, scale)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
        self.average.update_parameters(self.model)
        return loss.detach()

    def encoder(self, calibration: RelevancyCalibration) -> Encoder:
        """The averaged network as it will be used."""
        return Encoder("mini", self.average.module, self.bank.tokenizer, calibration)


def _without_colour(name: str) -> str:
    first, _, rest = name.partition(" ")
    return rest if first in COLOURS else name


def save(folder: Path, encoder: Encoder, config: dict, bank: TextBank) -> None:
    """What `load_encoder("mini")` reads, calibration excepted; weights in fp16."""
    weights = {
        name: value.half() if value.is_floating_point() else value for name, value in encoder.model.state_dict().items()
    }
    save_file({name: value.contiguous().cpu() for name, value in weights.items()}, folder / "mini.safetensors")
    (folder / "mini.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "vocabulary.txt").write_text("\n".join(bank.tokenizer.words) + "\n")


def save_calibration(folder: Path, calibration: RelevancyCalibration) -> None:
    """What `RelevancyCalibration.from_file` reads."""
    (folder / "calibration.json").write_text(json.dumps(asdict(calibration), indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
