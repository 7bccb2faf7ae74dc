"""Train an invertible rescaler, or a network to compare it with, on a folder of images, DIV2K or any other.

    python examples/train_div2k.py --demo
    python examples/train_div2k.py --data photographs --val some_others --model iirn_x4 --out runs/mine
    python examples/train_div2k.py --data photographs --val some_others --model edsr_x4 --out runs/edsr
    python examples/train_div2k.py --download DIV2K --model iirn_x4 --out runs/div2k
    accelerate launch --num_processes 4 examples/train_div2k.py --data DIV2K
    torchrun --nproc_per_node 4 examples/train_div2k.py --data DIV2K

It is the program that comes with the library, ``invertible-rescaling train``; ``--help`` lists its options. A
run can be stopped at any moment, by --time-limit, Ctrl-C or a power cut; the same command goes on with it and
ends with the weights of a run that was never interrupted. In --out it leaves ``best.safetensors`` and
``last.safetensors`` (for ``load_checkpoint``), ``state/`` (for resuming), ``log.jsonl`` and ``tensorboard/``.
"""

import sys

from invertible_rescaling.training.launch import launch

if __name__ == "__main__":
    sys.exit(launch("train_div2k.py"))
