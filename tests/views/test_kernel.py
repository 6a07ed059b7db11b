"""The compiled engine as a guest: where it may write, after a fork, and without numba. What it computes: test_pipeline.

Each runs in a process of its own, for a process imports numba once.
"""

import subprocess
import sys

import pytest

from diptych.views import pipeline

needs_numba = pytest.mark.skipif(not pipeline._kernel(), reason="needs numba")
MAKE = """
import torch
from diptych.views.pipeline import ViewMaker, ViewsConfig
torch.set_num_threads(2)
images = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
make = ViewMaker(ViewsConfig(crop="padded"), 8)
def views():
    return make(images, torch.Generator().manual_seed(0))
"""


def run(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)


@needs_numba
def test_a_forked_process_starts_threads_of_its_own():
    code = "views(); import os; child = os.fork(); views(); child or os._exit(0); assert os.waitpid(child, 0)[1] == 0"
    done = run(
        MAKE.replace("import torch\n", "import torch, warnings\n", 1) + f"warnings.simplefilter('ignore')\n{code}"
    )
    assert done.returncode == 0, done.stderr


@needs_numba
def test_where_no_folder_can_keep_the_compiled_code_it_is_compiled_again():
    nowhere = "import numba.core.caching as caching\ncaching.CacheImpl._locator_classes = []\n"
    done = run(nowhere + MAKE + "views()\nassert make.engine == 'kernel'")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("absent", ["None", "__import__('types').ModuleType('numba')"], ids=["absent", "broken"])
def test_without_numba_torch_makes_the_views(absent):
    done = run(f"import sys\nsys.modules['numba'] = {absent}\n" + MAKE + "print(make.engine, len(views()))")
    assert (done.returncode, done.stdout.split()) == (0, ["torch", "2"]), done.stderr


def test_the_kernel_that_was_asked_for_is_not_replaced_without_numba():
    asked = "ViewMaker(ViewsConfig(), 8, engine='kernel')"
    done = run("import sys\nsys.modules['numba'] = None\n" + MAKE + asked)
    assert "ConfigError: engine 'kernel' needs numba: type `pip install 'diptych[fast]'`" in done.stderr


def test_the_package_is_imported_without_numba():
    done = run("import diptych, diptych.views.pipeline, sys\nassert 'numba' not in sys.modules")
    assert done.returncode == 0, done.stderr
