"""Training that saves memory
==========================

An invertible network need not store its activations: the backward pass works them out again from the
output. ``enable_reversible_backprop()`` does that, and memory no longer grows with depth.
"""

import matplotlib.pyplot as plt
import torch

from invertible_rescaling import RescalingLoss, iirn_x4

# %%
# What autograd keeps between the two passes can be counted with a hook on everything that it saves.


def bytes_kept(blocks: int, reversible: bool) -> int:
    """Bytes that one forward pass leaves for the backward pass."""
    model = iirn_x4(blocks=blocks)
    if reversible:
        model.enable_reversible_backprop()
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = RescalingLoss()(model, torch.rand(2, 3, 64, 64)).total
    total.backward()
    return sum(size for address, size in kept.items() if address not in weights)


depths = [1, 2, 4, 8]
plain = [bytes_kept(depth, reversible=False) / 1e6 for depth in depths]
reversible = [bytes_kept(depth, reversible=True) / 1e6 for depth in depths]
for row in zip(depths, plain, reversible, strict=True):
    print("{} couplings a stage: {:.0f} MB, reversible {:.0f} MB".format(*row))

# %%
# The gradients are the same to rounding. A step takes longer by the time of one more forward pass through
# each coupling; the page on speed and memory has figures.

figure, axis = plt.subplots(figsize=(5, 3.2))
axis.plot(depths, plain, "o-", label="plain")
axis.plot(depths, reversible, "o-", label="reversible")
axis.set(xlabel="couplings a stage", ylabel="MB kept for the backward pass", ylim=(0, None))
axis.legend()
figure.tight_layout()
