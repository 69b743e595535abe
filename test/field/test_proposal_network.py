import math

import torch

from lerf_ros.field.encoding import HashGridConfig
from lerf_ros.field.proposal import ProposalNetwork

GRID = HashGridConfig(levels=4, features=2, log2_table=12, min_resolution=8, max_resolution=64)


def test_an_untrained_network_answers_about_its_initial_density():
    torch.manual_seed(0)
    sigmas = ProposalNetwork(GRID, initial_density=3.0)(torch.rand(500, 3)).detach()
    assert sigmas.shape == (500,)
    assert abs(math.log(float(sigmas.median()) / 3.0)) < 0.5 and sigmas.std() < 0.1 * sigmas.mean()


def test_it_can_learn_a_step_in_density():
    torch.manual_seed(0)
    network = ProposalNetwork(GRID)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(150):
        x = torch.rand(512, 3)
        truth = torch.where(x[:, 0] > 0.5, 20.0, 0.1)
        loss = (network(x).log() - truth.log()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x = torch.rand(500, 3)
    x = x[(x[:, 0] - 0.5).abs() > 0.05]
    right = (network(x) > 1.0) == (x[:, 0] > 0.5)
    assert right.float().mean() > 0.98
