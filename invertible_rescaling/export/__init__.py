"""Both directions as modules of their own, and as graphs that run elsewhere: ``torch.export`` and ONNX."""

from invertible_rescaling.export.directions import Direction, Downscale, Upscale
from invertible_rescaling.export.onnx_file import OPSET, export_onnx
from invertible_rescaling.export.program import export_program

__all__ = ["OPSET", "Direction", "Downscale", "Upscale", "export_onnx", "export_program"]
