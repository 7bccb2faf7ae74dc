"""Trained weights and checkpoints: their files, what is known of them, and where they come from.

What is known of a member lies in ``files/MODEL_vN.json``, beside the file itself;
``tools/ship_weights.py`` measures a checkpoint and writes both.
"""

from invertible_rescaling.weights.checkpoint import (
    load_weights,
    read_metadata,
    save_checkpoint,
    verify_checkpoint,
)
from invertible_rescaling.weights.enums import (
    EDSR_X4_Weights,
    ESRGAN_X4_Weights,
    IIRN_X2_Weights,
    IIRN_X4_Weights,
    IIRN_X8_Weights,
    IRN_X2_Weights,
    IRN_X4_Weights,
    IRN_X8_Weights,
    LINEAR_X2_Weights,
    LINEAR_X4_Weights,
    LINEAR_X8_Weights,
    SMALL_X2_Weights,
    SMALL_X4_Weights,
    SMALL_X8_Weights,
    SRCNN_X4_Weights,
    SRGAN_X4_Weights,
    SRResNet_X4_Weights,
    Weights,
    WeightsEnum,
    weights_of,
)

__all__ = [
    "EDSR_X4_Weights",
    "ESRGAN_X4_Weights",
    "IIRN_X2_Weights",
    "IIRN_X4_Weights",
    "IIRN_X8_Weights",
    "IRN_X2_Weights",
    "IRN_X4_Weights",
    "IRN_X8_Weights",
    "LINEAR_X2_Weights",
    "LINEAR_X4_Weights",
    "LINEAR_X8_Weights",
    "SMALL_X2_Weights",
    "SMALL_X4_Weights",
    "SMALL_X8_Weights",
    "SRCNN_X4_Weights",
    "SRGAN_X4_Weights",
    "SRResNet_X4_Weights",
    "Weights",
    "WeightsEnum",
    "load_weights",
    "read_metadata",
    "save_checkpoint",
    "verify_checkpoint",
    "weights_of",
]
