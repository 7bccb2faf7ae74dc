"""The super-resolution networks that Mo & Chen 2021 compare IIRN with; they are here for comparison.

They enlarge what bicubic interpolation has shrunk: nothing in them is invertible, and none of them is the
reason to use this library. They train, load and are measured as the rescalers are.
"""
