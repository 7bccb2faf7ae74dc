"""Every tolerance of the suite, in one place: largest absolute differences, unless said otherwise."""

import torch

# Both round trips, any sub-network at gain 0.5, clamp <= 1 and up to 32 couplings a stage.
ROUND_TRIP = {torch.float64: 1e-12, torch.float32: 1e-4}

# The same under autocast to bfloat16. A rounding of the state in float32 can tip one value over to the next
# bfloat16, 2**-8 of it away, in a sub-network's input; two couplings a stage at gain 0.5 make no more of it.
AUTOCAST_ROUND_TRIP = 5e-2

# Relative to 1 + abs(log-det), against slogdet of the autograd Jacobian.
LOG_DET = {torch.float64: 1e-9}

# One computation in another order: another batch, memory layout or formula.
SAME = {torch.float64: 1e-12, torch.float32: 1e-5}

# Gradients of one computation in another order, in float32, relative to 1 + their norm: an activation or two
# may come to lie on the other side of a kink.
KINKED = 2e-2

# pytorch-wavelets rounds its filters to float32, whatever it filters.
WAVELET_TAPS = 1e-6

# The original authors' network, in float64.
IMPORTED = 1e-10

# Against scikit-image, in dB for PSNR.
METRICS = 1e-6

# dB, against the design's printed two decimals.
PRINTED_PSNR = 0.05

# One sub-network at gain 0.5 under autocast to bfloat16, its sums in another order: a few of its 2**-8 steps.
AUTOCAST_SUBNET = 3e-2

# In tiles, layer by layer, against the whole image at gain 0.5, up to two couplings a stage.
TILED = {torch.float64: 1e-10, torch.float32: 1e-5}
TILED_AUTOCAST = 5e-2

# ONNX Runtime against PyTorch: the share of 8-bit LR values that are the same at least, and SR.
ONNX_LR_SAME = 0.999
ENGINE_LR_SAME = 0.9999  # by the shipped weights, on photographs
ONNX_SR = 1e-3

# float32 at gain 0.5, or with shipped weights: another batch size, another number of threads, and the fast
# kernels on or off. LR before it is rounded, and SR; and the share of 8-bit LR values that are the same.
REPRODUCED = 1e-5
REPRODUCED_LR = 0.999
