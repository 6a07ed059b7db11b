"""The forms in which a backbone is handed on, and the names of their files."""

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from diptych.errors import ConfigError, suggest

Form: TypeAlias = Literal["timm", "safetensors", "onnx", "torch-export"]

FORMS: tuple[Form, ...] = get_args(Form)
WEIGHTS: tuple[Form, ...] = ("timm", "safetensors")
"""Forms that are weights alone, without what prepares pictures."""
SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2"}
"""Of the files; timm's form is a folder."""
OTHERS = (*SUFFIXES.values(), ".json", ".pt", ".pth", ".bin", ".ckpt")
"""Endings that belong to some form of weights, so that another one is meant in place of them, not behind them."""


def check_form(to: str, out: Path) -> Form:
    """Return the form that was asked for.

    Args:
        to: what was typed after ``--to``.
        out: what was typed after ``--out``.

    Raises:
        ConfigError: there is no such form, or ``out`` has the name of another one, or none.
    """
    form = next((known for known in FORMS if known == to), None)
    if form is None:
        raise ConfigError(f"unknown --to '{to}'{suggest(to, FORMS)}")
    suffix = SUFFIXES.get(form)
    if out.name in ("", ".."):
        kind = "a folder NAME" if suffix is None else f"a file NAME{suffix}"
        raise ConfigError(f"--out {out}: --to {form} writes {kind}; type a name")
    if suffix is None and out.suffix in OTHERS:
        raise ConfigError(f"--out {out}: --to timm writes a folder; give it a name without {out.suffix}")
    if suffix is not None and out.suffix != suffix:
        right = out.with_suffix(suffix) if out.suffix in OTHERS else out.with_name(out.name + suffix)
        raise ConfigError(f"--out {out}: --to {form} writes a file NAME{suffix}; type --out {right}")
    return form
