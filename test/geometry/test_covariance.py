"""Position covariances against samples of the distributions that they describe."""

import numpy as np
import torch
from torch.nn.functional import normalize

from lerf_ros.geometry.covariance import pixel_deviation, position_covariance, voxel_covariance

GENERATOR = torch.Generator().manual_seed(0)


def test_covariance_is_that_of_samples_along_and_across_the_ray():
    direction = normalize(torch.tensor([0.3, -0.5, 0.8]), dim=0)
    basis = torch.linalg.svd(direction[None])[2]  # rows: the direction (up to its sign) and two perpendicular to it
    deviations = torch.tensor([0.2, 0.05, 0.05])
    samples = (deviations * torch.randn(200_000, 3, generator=GENERATOR)) @ basis
    (covariance,) = position_covariance(direction[None], torch.tensor([0.2]), torch.tensor([0.05]))
    np.testing.assert_allclose(covariance.numpy(), np.cov(samples.numpy().T), atol=3e-4)


def test_eigenvectors_are_the_ray_and_its_perpendicular_plane():
    directions = normalize(torch.randn(50, 3, generator=GENERATOR), dim=1)
    along, across = 0.02 + torch.rand(50, generator=GENERATOR), 0.01 * torch.rand(50, generator=GENERATOR) + 0.001
    covariance = position_covariance(directions, along, across)
    assert covariance.shape == (50, 3, 3) and covariance.dtype == torch.float32
    torch.testing.assert_close(covariance, covariance.mT, rtol=0, atol=0)
    torch.testing.assert_close(torch.einsum("nij,nj->ni", covariance, directions), along[:, None] ** 2 * directions)
    perpendicular = normalize(torch.linalg.cross(directions, torch.randn(50, 3, generator=GENERATOR)), dim=1)
    variance = torch.einsum("ni,nij,nj->n", perpendicular, covariance, perpendicular)
    torch.testing.assert_close(variance, across**2, rtol=1e-2, atol=1e-7)
    assert (torch.linalg.eigvalsh(covariance.double()) > 0).all()


def test_pixel_deviation_is_that_of_a_uniform_distribution_over_two_pixels():
    t, focal_px = torch.tensor([2.0]), torch.tensor([500.0])
    samples = t / focal_px * (2 * torch.rand(200_000, generator=GENERATOR) - 1)
    torch.testing.assert_close(pixel_deviation(t, focal_px), samples.std()[None], rtol=1e-2, atol=0)


def test_voxel_covariance_is_that_of_a_uniform_distribution_over_the_voxel():
    covariance = voxel_covariance(4, 0.3, torch.device("cpu"))
    assert covariance.shape == (4, 3, 3) and covariance.dtype == torch.float32
    samples = 0.3 * np.random.default_rng(0).random((200_000, 3))
    np.testing.assert_allclose(covariance[2].numpy(), np.cov(samples.T), atol=5e-5)
