"""The super-resolution networks that Mo & Chen 2021 compare IIRN with; they are here for comparison.

They enlarge what bicubic interpolation has shrunk: nothing in them is invertible, and none of them is the
reason to use this library. They train, load and are measured as the rescalers are.
"""

from invertible_rescaling.comparison.edsr import EDSR
from invertible_rescaling.comparison.esrgan import ESRGAN
from invertible_rescaling.comparison.srcnn import SRCNN
from invertible_rescaling.comparison.srresnet import SRResNet
from invertible_rescaling.comparison.super_resolver import SuperResolver

__all__ = ["EDSR", "ESRGAN", "SRCNN", "SRResNet", "SuperResolver"]
