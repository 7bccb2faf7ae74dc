"""The parts of train_div2k.py: options, data, loop, state, validation, demo and download."""
