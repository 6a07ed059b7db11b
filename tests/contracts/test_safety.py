"""Loading a file never runs code: no pickle, no ``weights_only=False``, no import of a name read from a file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import diptych

ROOT = Path(diptych.__file__).parent
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
ALLOWED_IMPORT_MODULE = {"__init__.py", "cli.py"}  # names from our own tuples, never from a file


def findings(text: str, name: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(text)):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [f"{where} imports {m}" for m in modules if m.split(".")[0] in FORBIDDEN_MODULES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called in FORBIDDEN_CALLS:
            found.append(f"{where} calls {called}")
        if called.endswith("torch.load") and keywords.get("weights_only") != "True":
            found.append(f"{where} calls torch.load without weights_only=True")
        if keywords.get("allow_pickle", "False") != "False":
            found.append(f"{where} allows pickle")
        if called.endswith("import_module") and name not in ALLOWED_IMPORT_MODULE:
            found.append(f"{where} imports a module by name")
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_unpickles(path):
    assert not findings(path.read_text(), path.name)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load('x')",
        "torch.load('x', weights_only=False)",
        "np.load('x', allow_pickle=True)",
        "eval('1')",
        "importlib.import_module(name)",
    ],
)
def test_the_search_finds(line):
    assert findings(line, "x.py")


def test_importing_and_helping_load_no_torch():
    code = (
        "import sys, diptych, diptych.cli; assert diptych.cli.main(['--help']) == 0; "
        "assert not {'torch', 'timm', 'tyro', 'matplotlib', 'sklearn', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_importing_changes_nothing_in_the_process():
    code = (
        "import logging, os, random, torch, warnings; "
        "import matplotlib, rich.progress, sklearn, timm, tyro; "  # what they change is theirs
        "state = lambda: (dict(os.environ), logging.root.handlers[:], random.getstate(), "
        "torch.random.initial_seed(), torch.get_num_threads(), torch.get_default_dtype(), list(warnings.filters)); "
        "before = state(); import diptych; diptych.pretrain; assert state()[:6] == before[:6]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
