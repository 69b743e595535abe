#!/usr/bin/env python3
"""Trains the built-in mini CLIP on crops of procedural rooms; writes weights, vocabulary, calibration and model card.

Worker processes render training rooms for as long as training runs. Every view stays in device memory, where batches
of crops are cut, labelled and augmented. The network is open_clip's CLIP class in a small configuration. The defaults
take about ten minutes on one large GPU with 16 cores; `--smoke` runs all of it in about a minute on a CPU and learns
next to nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import queue
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from mini_clip_card import model_card
from mini_clip_evaluation import calibrate, evaluate
from mini_clip_loss import contrastive_loss
from mini_clip_rooms import class_phrases, coloured_part_phrases, render_room
from mini_clip_texts import CANONICAL_PHRASES, TextBank
from mini_clip_views import RoomViews, ViewStore, augment
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg
from safetensors.torch import save_file
from torch import nn

from lerf_ros.features.encoder import MINI_CLIP, Encoder, RelevancyCalibration
from lerf_ros.world.kinds.catalogue import EVALUATION_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS

HEIGHT, WIDTH = 480, 640
MAX_LOGIT_SCALE = 20.0  # CLIP's 100 would let cosines lie close together, which no field reproduces
UNKNOWN_TEXTS = 48
CONTRAST = 0.0  # canonical phrases are trained to lie low beside a thing: ranked by relevancy, places lie there, too
COLOURED_PARTS = 256  # of these classes take part in a step, beside every other one of the common classes
CARD_ROOMS = 9900  # the first evaluation room of the card: never looked at while the tool was made
WARM_UP_STEPS = 300
AVERAGE_DECAY = 0.999  # of a step


def main() -> int:
    options = parse_arguments()
    torch.manual_seed(options.seed)
    config = json.loads(options.config.read_text())
    bank = TextBank(class_phrases(), config["text_cfg"]["context_length"], coloured_part_phrases())
    config["text_cfg"]["vocab_size"] = bank.tokenizer.vocab_size
    trainer = Trainer(config, bank, options)
    spawn = multiprocessing.get_context("spawn")  # a forked child may not use CUDA
    with ProcessPoolExecutor(options.workers, mp_context=spawn) as pool:
        first = TRAINING_SEEDS[options.seed * options.rooms]
        seeds = range(first, first + options.rooms)
        rooms = Rendering(pool, seeds[: options.first_rooms], options.views)
        validation = Rendering(pool, VALIDATION_SEEDS[-options.test_rooms :], options.views)
        test = Rendering(pool, EVALUATION_SEEDS[CARD_ROOMS : CARD_ROOMS + options.test_rooms], options.views)
        rooms.start(seeds[options.first_rooms :])
        steps = trainer.run(rooms)
        checked, unseen = ([rendering.get() for _ in range(options.test_rooms)] for rendering in (validation, test))
        pool.shutdown(cancel_futures=True)

    encoder = trainer.encoder(RelevancyCalibration(canonical_phrases=CANONICAL_PHRASES, contrast=CONTRAST))
    save(options.out, encoder, config, bank)
    encoder.calibration = calibrate(encoder, checked)
    save_calibration(options.out, replace(encoder.calibration, found_threshold=options.map_threshold))
    figures, _ = evaluate(encoder, unseen)
    print(f"rooms of the card: {json.dumps(figures)}", flush=True)
    card = model_card(encoder, bank, figures, options, steps, trainer.store.count)
    (options.out / "MODEL_CARD.md").write_text(card)
    print(card, flush=True)
    figures, tables = evaluate(encoder, checked)  # what is mended next is chosen on these, never on the card's
    print(f"validation rooms: {json.dumps(figures, indent=2)}\n{tables}", flush=True)
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
    parser.add_argument("--repainted", type=int, default=2, help="how often each view is kept in other colours, too")
    parser.add_argument("--batch", type=int, default=2048, help="crops in a step, an even number")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--workers", type=int, default=max(1, (multiprocessing.cpu_count() or 1) - 1))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0, help="of the rooms, the weights and the crops")
    parser.add_argument(
        "--config", type=Path, default=MINI_CLIP / "mini.json", help="architecture, in open_clip's format"
    )
    parser.add_argument("--map-threshold", type=float, default=0.45, help="found_threshold to write: of maps, see card")
    parser.add_argument("--out", type=Path, default=MINI_CLIP)
    parser.add_argument("--smoke", action="store_true", help="a tiny run that touches everything")
    options = parser.parse_args()
    if options.smoke:
        options.minutes, options.rooms, options.first_rooms, options.test_rooms = 0.05, 1, 1, 1
        options.views, options.repainted, options.batch, options.workers = 2, 1, 16, 1
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
        """The next room; waits for it. A room that cannot be rendered must not end the training."""
        while True:
            try:
                return self._done.get().result()
            except (RuntimeError, ValueError) as error:
                print(f"a room is left out: {error}", flush=True)


class Trainer:
    """The network, its moving average (which is what gets saved) and the views to learn from."""

    def __init__(self, config: dict, bank: TextBank, options: argparse.Namespace):
        self.bank, self.options, self.crop_size = bank, options, config["vision_cfg"]["image_size"]
        self.device = torch.device(options.device)
        self.model = open_clip.CLIP(**config).to(self.device, memory_format=torch.channels_last)
        set_model_preprocess_cfg(self.model, asdict(PreprocessCfg()))
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        on_gpu = self.device.type == "cuda"
        self.learning_rate = torch.zeros((), device=self.device)  # a tensor: the graph of a step reads it
        self.optimizer = torch.optim.AdamW(
            groups, lr=self.learning_rate, betas=(0.9, 0.98), fused=on_gpu, capturable=on_gpu
        )
        capacity = options.rooms * options.views * (1 + options.repainted)
        self.store = ViewStore(capacity, HEIGHT, WIDTH, bank.names, self.device)
        self.random = torch.cuda.default_generators[torch.cuda.current_device()] if on_gpu else torch.default_generator
        self.random_texts = torch.Generator().manual_seed(options.seed)
        self.mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN, device=self.device).view(3, 1, 1)
        self.std = torch.tensor(open_clip.OPENAI_DATASET_STD, device=self.device).view(3, 1, 1)
        self.drawn = bank.common // 2, min(COLOURED_PARTS, len(bank.names) - bank.common)
        classes = sum(self.drawn)
        self.classes = torch.zeros(classes, dtype=torch.int64, device=self.device)
        tokens = classes + UNKNOWN_TEXTS + len(bank.canonical), bank.canonical.shape[1]
        self.texts = torch.zeros(tokens, dtype=torch.int64, device=self.device)
        self.loss = torch.zeros((), device=self.device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def run(self, rooms: Rendering) -> int:
        """Trains until the time is over, taking in new rooms between steps; returns the number of steps."""
        for number in range(self.options.first_rooms):
            self.store.add(rooms.get(), self.options.repainted)
            print(f"rendered {number + 1} of the first {self.options.first_rooms} rooms", end="\r", flush=True)
        if self.device.type == "cuda":
            self._record()
        start, step, shown = time.monotonic(), 0, 0.0
        end = start + 60 * self.options.minutes
        while (now := time.monotonic()) < end:
            if rooms.ready():
                self.store.add(rooms.get(), self.options.repainted)
            progress = (now - start) / (end - start)
            warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
            self.step(self.options.learning_rate * warm_up * (0.5 + 0.5 * math.cos(math.pi * progress)))
            step += 1
            if now > shown + 10:
                shown = now
                seconds, loss = now - start, self.loss.item()
                views = self.store.count
                print(f"{progress:4.0%} {seconds:4.0f} s step {step} loss {loss:.3f} views {views}", flush=True)
        return step

    def step(self, learning_rate: float) -> None:
        """One step of AdamW on a fresh batch of crops and one phrasing of every other class; `loss` holds its loss."""
        classes, known = self.bank.draw(*self.drawn, self.random_texts)
        unknown = self.bank.draw_unknown(UNKNOWN_TEXTS, self.random_texts)
        texts = torch.cat([known, unknown, self.bank.canonical])
        if self.device.type == "cuda":
            torch.cuda.current_stream().synchronize()  # else thousands of steps would queue up behind the clock
        self.texts.copy_(texts)
        self.classes.copy_(classes)
        self.learning_rate.fill_(learning_rate)
        if self.graph:
            self.graph.replay()
        else:
            self._update()

    def _record(self) -> None:
        """Records a step as a CUDA graph: launching its thousands of kernels would take longer than running them."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # without effect on the weights
                self.step(0.0)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._update()
            self.graph = graph
        except RuntimeError as error:
            print(f"steps are not recorded but launched one by one, which is slower: {error}", flush=True)
            torch.cuda.synchronize()

    def _update(self) -> None:
        """What a step does on the device; values and shapes on the host are the same in every step."""
        crops = self.store.cut(*self.store.draw(self.options.batch, self.random), self.crop_size)
        images = (augment(crops.images, self.random) - self.mean) / self.std
        true = F.pad(crops.true[:, self.classes], (0, UNKNOWN_TEXTS))
        false = F.pad(crops.false[:, self.classes], (0, UNKNOWN_TEXTS), value=True)
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False):
            image_embeds = self.model.encode_image(images, normalize=True).float()
            text_embeds = self.model.encode_text(self.texts, normalize=True).float()
        known, canonical = text_embeds.tensor_split([-len(self.bank.canonical)])
        loss = contrastive_loss(image_embeds, known, canonical, true, false, self.model.logit_scale.exp())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
            averages, values = list(self.average.parameters()), list(self.model.parameters())
            torch._foreach_lerp_(averages, values, 1 - AVERAGE_DECAY)
        self.loss.copy_(loss.detach())

    def encoder(self, calibration: RelevancyCalibration) -> Encoder:
        """The averaged network as it will be used."""
        for mean, value in zip(self.average.buffers(), self.model.buffers()):
            mean.copy_(value)
        return Encoder("mini", self.average, self.bank.tokenizer, calibration)


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
