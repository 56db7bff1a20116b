"""One OpenMP thread: two collapse beside any other busy process. Nothing here reaches a network."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import settings

settings.register_profile("qtool", deadline=None)  # a busy machine is no failure: tests never time anything
settings.load_profile("qtool")
