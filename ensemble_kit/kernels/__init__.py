"""The fence: numpy, numba and math only, and nothing outside it defines a jitted function.

Every kernel has a plain NumPy oracle of the same name in `reference.py`; `tests/test_kernels.py` runs them side by
side. Kernels take plain arrays, release the GIL, and check nothing: their callers hand them valid input.
"""
