"""Invertible layers, the sub-networks and latents they are made with, and reversible backpropagation."""

from invertible_rescaling.layers.base import Inverse, InvertibleModule, InvertibleSequential
from invertible_rescaling.layers.coupling import AdditiveCoupling, AffineCoupling, SubnetFactory
from invertible_rescaling.layers.coupling_step import Combine, CouplingLayer, CouplingStep
from invertible_rescaling.layers.haar import HaarDownsampling
from invertible_rescaling.layers.latents import GaussianLatent, Latent, WaveletLatent, ZeroLatent
from invertible_rescaling.layers.reversible import reversible_forward, reversible_inverse
from invertible_rescaling.layers.subnet_parts import ChannelAttention
from invertible_rescaling.layers.subnets import CRDB, RRDB, Conv, DenseBlock

__all__ = [
    "CRDB",
    "RRDB",
    "AdditiveCoupling",
    "AffineCoupling",
    "ChannelAttention",
    "Combine",
    "Conv",
    "CouplingLayer",
    "CouplingStep",
    "DenseBlock",
    "GaussianLatent",
    "HaarDownsampling",
    "Inverse",
    "InvertibleModule",
    "InvertibleSequential",
    "Latent",
    "SubnetFactory",
    "WaveletLatent",
    "ZeroLatent",
    "reversible_forward",
    "reversible_inverse",
]
