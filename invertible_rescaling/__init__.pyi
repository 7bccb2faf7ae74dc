"""The package's names for type checkers; ``__init__.py`` imports them when they are asked for."""

from . import (
    errors as errors,
    evaluation as evaluation,
    export as export,
    flows as flows,
    functional as functional,
    images as images,
    kernels as kernels,
    layers as layers,
    losses as losses,
    metrics as metrics,
    models as models,
    pipeline as pipeline,
    registry as registry,
    testing as testing,
    tiling as tiling,
    training as training,
    weights as weights,
)
from .errors import (
    RescalingError as RescalingError,
)
from .layers.base import (
    Inverse as Inverse,
    InvertibleModule as InvertibleModule,
    InvertibleSequential as InvertibleSequential,
)
from .layers.coupling import (
    AdditiveCoupling as AdditiveCoupling,
    AffineCoupling as AffineCoupling,
)
from .layers.haar import (
    HaarDownsampling as HaarDownsampling,
)
from .layers.latents import (
    GaussianLatent as GaussianLatent,
    Latent as Latent,
    WaveletLatent as WaveletLatent,
    ZeroLatent as ZeroLatent,
)
from .layers.subnet_parts import (
    ChannelAttention as ChannelAttention,
)
from .layers.subnets import (
    CRDB as CRDB,
    RRDB as RRDB,
    Conv as Conv,
    DenseBlock as DenseBlock,
)
from .losses import (
    RescalingLoss as RescalingLoss,
)
from .metrics import (
    psnr as psnr,
    ssim as ssim,
)
from .models.factories import (
    edsr_x4 as edsr_x4,
    esrgan_x4 as esrgan_x4,
    iirn_x2 as iirn_x2,
    iirn_x4 as iirn_x4,
    iirn_x8 as iirn_x8,
    irn_x2 as irn_x2,
    irn_x4 as irn_x4,
    irn_x8 as irn_x8,
    linear_x2 as linear_x2,
    linear_x4 as linear_x4,
    linear_x8 as linear_x8,
    small_x2 as small_x2,
    small_x4 as small_x4,
    small_x8 as small_x8,
    srcnn_x4 as srcnn_x4,
    srgan_x4 as srgan_x4,
    srresnet_x4 as srresnet_x4,
)
from .models.loading import (
    load_checkpoint as load_checkpoint,
)
from .models.original_irn import (
    load_original_irn as load_original_irn,
)
from .models.rescaler import (
    InvertibleRescaler as InvertibleRescaler,
)
from .registry import (
    create_model as create_model,
    list_models as list_models,
    register_latent as register_latent,
    register_model as register_model,
    register_subnet as register_subnet,
)
from .weights.checkpoint import (
    save_checkpoint as save_checkpoint,
)

__version__: str
