"""The super-resolution networks that Mo & Chen 2021 compare IIRN with; they are here for comparison.

They enlarge what bicubic interpolation has shrunk: nothing in them is invertible, and none of them is the
reason to use this library. They train, load and are measured as the rescalers are.
"""

from invertible_rescaling.models.super_resolution.base import SuperResolver
from invertible_rescaling.models.super_resolution.edsr import EDSR
from invertible_rescaling.models.super_resolution.esrgan import ESRGAN
from invertible_rescaling.models.super_resolution.srcnn import SRCNN
from invertible_rescaling.models.super_resolution.srresnet import SRResNet

__all__ = ["EDSR", "ESRGAN", "SRCNN", "SRResNet", "SuperResolver"]
