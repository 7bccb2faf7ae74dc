"""The models by name: IRN and IIRN, lighter ones, and what IIRN's paper compares them with.

Each factory of a rescaler takes ``weights`` and overrides for any argument of
:class:`~invertible_rescaling.InvertibleRescaler`. ``weights`` is one of

- ``None``, the default: untrained. Every coupling is then the identity: LR is the mean over blocks of pixels,
  and SR what the latent alone makes of it;
- ``"DEFAULT"`` or ``"V1"``, a member of the model's enum in :mod:`invertible_rescaling.weights` or its name:
  trained weights that came with the package, and the configuration they were trained with;
- the path of a checkpoint that ``save_checkpoint`` made of such a model: of the same architecture, scale,
  channels and kind of sub-network. The rest of the configuration, as the number of couplings, is the file's;
- its ``http(s)`` address. The file is kept in torch's hub cache; ``#sha256=...`` at the address's end, or the
  first digits of the hash in its name (``name-1a2b3c4d.safetensors``), are checked.

Whatever they are, all that is read is verified, and nothing in it is executed. Overrides beside weights may
change the latent; any other must be what the weights were trained with. The super-resolution networks take
``weights`` alike, and overrides for the arguments of their classes in
:mod:`invertible_rescaling.models.super_resolution`.
"""

from invertible_rescaling.models.factories import (
    edsr_x4,
    esrgan_x4,
    iirn_x2,
    iirn_x4,
    iirn_x8,
    irn_x2,
    irn_x4,
    irn_x8,
    linear_x2,
    linear_x4,
    linear_x8,
    small_x2,
    small_x4,
    small_x8,
    srcnn_x4,
    srgan_x4,
    srresnet_x4,
)
from invertible_rescaling.models.loading import AnyModel, load_checkpoint, model_of
from invertible_rescaling.models.original_irn import load_original_irn
from invertible_rescaling.models.pretrained_model import PretrainedModel
from invertible_rescaling.models.rescaler import InvertibleRescaler

__all__ = [
    "AnyModel",
    "InvertibleRescaler",
    "PretrainedModel",
    "edsr_x4",
    "esrgan_x4",
    "iirn_x2",
    "iirn_x4",
    "iirn_x8",
    "irn_x2",
    "irn_x4",
    "irn_x8",
    "linear_x2",
    "linear_x4",
    "linear_x8",
    "load_checkpoint",
    "load_original_irn",
    "model_of",
    "small_x2",
    "small_x4",
    "small_x8",
    "srcnn_x4",
    "srgan_x4",
    "srresnet_x4",
]
