"""How tests run Triton kernels: on a GPU where there is one, and under Triton's interpreter, which runs them on a CPU.

The interpreter has to be chosen before a kernel is defined, for a whole process. So a module of such tests runs itself
once more in a process of its own:

    @starts_interpreter
    def test_under_the_interpreter(passed_under_the_interpreter):
        assert passed_under_the_interpreter() >= 5  # tests
"""

import importlib.util
import os

import pytest
import torch

_INSTALLED = importlib.util.find_spec("triton") is not None

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # this is that process
CUDA = torch.cuda.is_available() and not INTERPRETED  # kernels run on a GPU here
DEVICE = "cuda" if CUDA else "cpu"


def _where(condition: bool, otherwise: str) -> pytest.MarkDecorator:
    reason = otherwise if _INSTALLED else "needs triton, which comes with torch on Linux"
    return pytest.mark.skipif(not (_INSTALLED and condition), reason=reason)


needs_kernels = _where(INTERPRETED or CUDA, "runs in test_under_the_interpreter")
# products in float32: on a GPU, where they are never used, they would compile for minutes
needs_interpreter = _where(INTERPRETED, "runs in test_under_the_interpreter")
needs_cuda = _where(CUDA, "needs a CUDA GPU")
starts_interpreter = _where(not INTERPRETED, "this is the process that it starts")
