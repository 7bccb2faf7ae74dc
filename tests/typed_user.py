"""A user's script, with every name of the package's own: what a strict type checker is shown.

Nothing here is run by the tests; ``tests/test_typing.py`` has it checked where the checkout is not in sight.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from invertible_rescaling import (
    CRDB,
    RRDB,
    AdditiveCoupling,
    AffineCoupling,
    ChannelAttention,
    Conv,
    DenseBlock,
    GaussianLatent,
    HaarDownsampling,
    Inverse,
    InvertibleModule,
    InvertibleRescaler,
    InvertibleSequential,
    Latent,
    RescalingError,
    RescalingLoss,
    WaveletLatent,
    ZeroLatent,
    create_model,
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
    list_models,
    load_checkpoint,
    load_original_irn,
    psnr,
    register_latent,
    register_model,
    register_subnet,
    save_checkpoint,
    small_x2,
    small_x4,
    small_x8,
    srcnn_x4,
    srgan_x4,
    srresnet_x4,
    ssim,
)
from invertible_rescaling.images import (
    Picture,
    from_uint8,
    read_image,
    read_picture,
    write_image,
    write_picture,
)
from invertible_rescaling.testing import check_invertible, check_log_det
from invertible_rescaling.weights import IIRN_X4_Weights, Weights, WeightsEnum


class Repeated(Latent):
    """LR itself, over and over."""

    def forward(self, lr: Tensor) -> Tensor:
        return lr.repeat(1, self.scale**2 - 1, 1, 1)


class Plain(nn.Module):
    """A sub-network of one layer."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        return found


@register_model
def plain_x2(*, weights: None = None, clamp: float = 1.0) -> InvertibleRescaler:
    """A model of one's own."""
    return InvertibleRescaler(2, blocks=(3,), subnet="plain", latent="repeated", clamp=clamp)


def layers() -> InvertibleSequential:
    """Every layer, in a flow."""
    register_subnet("plain", Plain)
    register_latent("repeated", Repeated)
    parts: list[InvertibleModule] = [
        HaarDownsampling(3),
        AffineCoupling(12, 3, CRDB),
        AffineCoupling(12, 3, lambda i, o: RRDB(i, o, growth=8), clamp=0.8),
        AdditiveCoupling(12, 3, DenseBlock),
        AffineCoupling(12, 3, Conv),
        Inverse(AdditiveCoupling(12, 3, Plain)),
    ]
    attention: Tensor = ChannelAttention(16)(torch.rand(1, 16, 4, 4))
    assert attention.shape[1] == 16
    return InvertibleSequential(*parts)


def train(model: InvertibleRescaler, hr: Tensor, target: Tensor) -> float:
    """A step."""
    loss = RescalingLoss(reconstruction=1.0, guide=4.0, latent=0.0)
    optimizer = torch.optim.Adam(model.enable_reversible_backprop().parameters(), lr=1e-4)
    lr, z = model(hr)
    back: Tensor = model.inverse(lr, z)
    terms = loss(sr=back, hr=hr, lr=lr, lr_target=target, z=z)
    terms.total.backward()
    optimizer.step()
    return float(terms.total)


def use(path: Path, folder: Path) -> dict[str, float]:
    """Everything else."""
    model: InvertibleRescaler = iirn_x4(weights="DEFAULT").eval()
    hr: Tensor = from_uint8(read_image(path)).unsqueeze(0)
    lr: Tensor = model.downscale(hr, tile=256)
    size: tuple[int, int] = (hr.shape[2], hr.shape[3])
    sr: Tensor = model.upscale(lr, size=size)
    write_image(folder / "small.png", lr[0])
    picture: Picture = read_picture(path)
    write_picture(folder / "copy.tif", picture)
    save_checkpoint(model, folder / "model.safetensors", metadata={"steps": 7}, dtype=torch.float16)
    again: InvertibleRescaler = load_checkpoint(folder / "model.safetensors")
    again.save_pretrained(folder / "hub")
    others = [iirn_x2(), iirn_x8(latent=ZeroLatent()), irn_x2(), irn_x4(latent=GaussianLatent(0.5)), irn_x8()]
    others += [linear_x2(), linear_x4(), linear_x8(), small_x2(), small_x4(weights=None), small_x8(blocks=3)]
    others += [iirn_x4(latent=WaveletLatent("db2")), InvertibleRescaler.from_pretrained(folder / "hub")]
    theirs: InvertibleRescaler = load_original_irn(folder / "IRN_x4.pth")
    compared = [srcnn_x4(), srresnet_x4(), srgan_x4(), edsr_x4(), esrgan_x4(blocks=2)]
    enlarged: list[Tensor] = [network(lr) for network in compared]
    names: list[str] = list_models("iirn*", pretrained=True)
    known: WeightsEnum = IIRN_X4_Weights.DEFAULT
    facts: Weights = known.value
    try:
        create_model(names[0], weights=facts.file)
    except RescalingError as error:
        raise SystemExit(str(error)) from error
    flow = layers()
    y, log_det = flow.forward_with_log_det(hr)
    report = check_invertible(flow, hr)
    check_log_det(flow, torch.rand(1, 3, 4, 4, dtype=torch.float64))
    return {
        "psnr": float(psnr(sr, hr, border=4)),
        "ssim": float(ssim(sr, hr)),
        "error": report.forward_error,
        "log-det": float(log_det.mean() + y.mean()),
        "others": float(len(others) + len(enlarged) + theirs.scale),
    }
