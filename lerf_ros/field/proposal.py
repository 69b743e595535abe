"""A small density field that only says where to sample (mip-NeRF 360, Nerfacto)."""

from __future__ import annotations

from torch import Tensor, nn

from lerf_ros.field.encoding import HashGrid, HashGridConfig
from lerf_ros.field.networks import autocast, density_mlp
from lerf_ros.field.radiance import TruncatedExp


class ProposalNetwork(nn.Module):
    """Density from a small hash grid and a network with one narrow hidden layer.

    Args:
        grid: sizes of the hash grid.
        hidden: width of the network.
        initial_density: 1/m, what an untrained network answers everywhere.
        backend: of the hash grid.
        precision: of the network, see :func:`lerf_ros.field.networks.compute_dtype`.
    """

    def __init__(
        self,
        grid: HashGridConfig,
        hidden: int = 16,
        initial_density: float = 1.0,
        backend: str = "auto",
        precision: str = "auto",
    ) -> None:
        super().__init__()
        self.grid = HashGrid(grid, backend)
        self.precision = precision
        self.network = density_mlp(self.grid.output_dim, hidden, 1, initial_density)

    def forward(self, x_unit: Tensor) -> Tensor:
        """Densities (N,) float32, 1/m, of points (N, 3) of the unit cube."""
        with autocast(self.precision, x_unit.device):
            out = self.network(self.grid(x_unit))
        return TruncatedExp.apply(out[:, 0].float())
