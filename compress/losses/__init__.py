"""Losses, one file each. The first argument is what trains and gets gradients, the second what it is held against.

All of them take what autocast made and compute in float32 (the networks of VggLoss and LpipsLoss in the run's precision,
see `compress.frozen`), and give one unweighted number.
"""

from compress.losses.adversarial import GanKind, discriminator_loss, generator_loss
from compress.losses.affinity import feature_affinity
from compress.losses.lpips import LpipsLoss
from compress.losses.multilap import MultiLap
from compress.losses.perceptual import VggLoss
from compress.losses.pixel import charbonnier, l1, mse

__all__ = [
    "GanKind",
    "LpipsLoss",
    "MultiLap",
    "VggLoss",
    "charbonnier",
    "discriminator_loss",
    "feature_affinity",
    "generator_loss",
    "l1",
    "mse",
]
