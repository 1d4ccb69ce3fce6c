import atexit
import os
import shutil
import sys
import tempfile

# One thread each: tests run two at a time, and timings of the budget stay sane.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What the library keeps of a user is not that of who runs the tests.
os.environ["THALWEG_DATA"] = tempfile.mkdtemp(prefix="thalweg-tests-")

import pytest
import torch
from hypothesis import settings

settings.register_profile("ci", max_examples=25, derandomize=True, deadline=None, database=None)
settings.load_profile("ci")
torch.set_num_threads(1)
atexit.register(shutil.rmtree, os.environ["THALWEG_DATA"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _nothing_compiled():
    """The recorder takes a process in which torch.compile has worked for a compiled training."""
    yield
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is not None:
        dynamo.counters.clear()


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "run"
