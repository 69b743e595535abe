"""What is needed to make a map, as the parameters say it; the making itself is for the worker's thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lerf_ros.features.encoder import load_encoder
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.query.warm_up import warm_up
from lerf_ros.ros.declarations import Settings
from lerf_ros.ros.parameters import mapper_config, preset_name, torch_device


@dataclass(frozen=True)
class MapSetup:
    """Everything that is decided when the node is configured.

    Attributes:
        device_name: "cpu", or that of the GPU.
        path: of a map to load; None: a new one.
    """

    device: torch.device
    device_name: str
    preset: str
    config: MapperConfig
    encoder_model: str
    encoder_pretrained: str
    seed: int
    path: Path | None

    @classmethod
    def of(cls, parameters: Settings) -> MapSetup:
        """Raises ParameterError when a value cannot be used."""
        device = torch_device(parameters)
        preset = preset_name(parameters, device)
        return cls(
            device=device,
            device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            preset=preset,
            config=mapper_config(parameters, preset),
            encoder_model=parameters["encoder.model"],
            encoder_pretrained=parameters["encoder.pretrained"],
            seed=parameters["training.seed"],
            path=Path(parameters["map.path"]).expanduser() if parameters["map.load"] else None,
        )

    def make(self) -> OnlineMapper:
        """Loads the encoder, compiles kernels on a small map (`warm_up`), makes the map. Takes seconds.

        Raises:
            EncoderError, MapFileError, OSError: what cannot be loaded, and what to do.
        """
        encoder = load_encoder(self.encoder_model, self.encoder_pretrained, self.device)
        warm_up(self.config, encoder, self.device)
        online = OnlineMapper(self.config, encoder, self.device, self.seed)
        if self.path is not None:
            online.load(self.path)
        return online

    def __str__(self) -> str:
        return f"encoder '{self.encoder_model}', preset '{self.preset}', on {self.device_name}"
