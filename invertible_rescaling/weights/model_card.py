"""The model card that goes with a model to the Hugging Face hub: Markdown with a YAML header."""

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

__all__: list[str] = []  # for the hub alone

# As the hub spells those that weights are likely to have.
_LICENCES = frozenset({"apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"})
_USE = """```python
from invertible_rescaling import InvertibleRescaler
from invertible_rescaling.images import from_uint8, read_image, write_image

model = InvertibleRescaler.from_pretrained("REPOSITORY")  # user/name, or a folder
hr = from_uint8(read_image("photo.jpg")).unsqueeze(0)  # (1, 3, H, W) in [0, 1]
lr = model.downscale(hr)  # 8-bit values, SCALE times smaller
write_image("small.png", lr[0])  # without loss
sr = model.upscale(lr, size=hr.shape[-2:])
```"""


def model_card(model: nn.Module, facts: Mapping[str, Any]) -> str:
    """Write the card of a model.

    Args:
        model: a rescaler or a super-resolver.
        facts: what is known of its weights; ``licence``, ``training_data``, ``recipe`` and ``metrics`` are
            shown if they are as in :class:`~invertible_rescaling.weights.Weights`, and the rest as JSON.

    Example:
        >>> from invertible_rescaling import iirn_x4
        >>> from invertible_rescaling.weights.model_card import model_card
        >>> card = model_card(iirn_x4(blocks=1), {"licence": "CC BY-SA 4.0"})
        >>> card.splitlines()[:2]
        ['---', 'library_name: invertible_rescaling']
        >>> "license: cc-by-sa-4.0" in card
        True
    """
    left = dict(facts)
    licence, data = left.pop("licence", None), left.pop("training_data", None)
    recipe, metrics = left.pop("recipe", None), left.pop("metrics", None)
    for counted in ("parameters", "multiply_adds"):
        left.pop(counted, None)  # said below of the model itself
    parts = [_header(licence), _what(model), "## Use", _use(model), "## The network", _network(model)]
    parts += ["## Measured", _measured(metrics)]
    parts += ["## Training", *_training(data, recipe)]
    if left:
        parts += ["## What else its maker says", _as_json(left)]
    parts += ["## Licence", licence or "Its maker has not said. The code that runs it is under Apache-2.0."]
    return "\n\n".join(parts) + "\n"


def _header(licence: Any) -> str:
    lines = ["library_name: invertible_rescaling", "pipeline_tag: image-to-image"]
    lines += ["tags:", *(f"- {tag}" for tag in ("image-rescaling", "super-resolution", "pytorch"))]
    if isinstance(licence, str):
        spelled = licence.lower().replace(" ", "-")
        lines += (
            [f"license: {spelled}"]
            if spelled in _LICENCES
            else [
                "license: other",
                f"license_name: {json.dumps(spelled)}",
            ]
        )
    return "\n".join(["---", *lines, "---"])


def _what(model: nn.Module) -> str:
    if not _is_super_resolver(model):
        return (
            f"# An invertible rescaler, x{model.scale}\n\nIt shrinks an image {model.scale} times to an "
            "ordinary picture that carries what it takes to bring the large one back, and brings it back. "
            "Made with `invertible_rescaling` (IRN, Xiao et al. 2020; IIRN, Mo & Chen 2021)."
        )
    return (
        f"# {type(model).__name__}, x{model.scale}\n\nA network for super-resolution, for comparison with "
        "the invertible rescalers of `invertible_rescaling`."
    )


def _use(model: nn.Module) -> str:
    name = type(model).__name__ if _is_super_resolver(model) else "InvertibleRescaler"
    place = type(model).__module__ if name != "InvertibleRescaler" else "invertible_rescaling"
    told = _USE.replace("from invertible_rescaling import InvertibleRescaler", f"from {place} import {name}")
    return told.replace("InvertibleRescaler.from", f"{name}.from").replace("SCALE", str(model.scale))


def _network(model: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{count:,} parameters.\n\n{_as_json(model.config)}"


def _is_super_resolver(model: nn.Module) -> bool:
    config: Any = model.config
    return "architecture" in config


def _measured(metrics: Any) -> str:
    if not isinstance(metrics, Mapping) or not metrics:
        return "Nothing was recorded."
    lines = ["| images | PSNR, RGB | SSIM, RGB | PSNR, Y | LR against bicubic |", "|---|---|---|---|---|"]
    for name, found in metrics.items():
        values = [_figure(found.get(key), digits) for key, digits in _COLUMNS]
        lines.append(f"| {name} ({found.get('images', '?')}) | {' | '.join(values)} |")
    return "\n".join(lines) + "\n\nPSNR in dB; LR stored at 8 bits, a border of the scale cropped."


_COLUMNS = (("psnr_rgb", 2), ("ssim_rgb", 4), ("psnr_y", 2), ("psnr_lr", 2))


def _figure(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"


def _training(data: Any, recipe: Any) -> list[str]:
    if not data and not recipe:
        return ["Nothing was recorded."]
    parts = []
    if isinstance(data, list | tuple) and data:
        lines = [f"- {one.get('name')}: {one.get('images')} images, {one.get('licence')}" for one in data]
        parts.append("\n".join(lines))
    if recipe:
        parts.append(_as_json(recipe))
    return parts


def _as_json(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2, sort_keys=True)}\n```"
