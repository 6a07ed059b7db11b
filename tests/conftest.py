"""For every test: one thread each, and `tests/` importable (tiny.py).

Tests run side by side, and threads that wait for each other on a crowded machine turn milliseconds into seconds.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the first `import torch`, here and in every process of a test
