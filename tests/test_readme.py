"""The README's Python, run as it is written, save that it trains once through the pictures and not twenty times."""

import re
from pathlib import Path

import pytest
from colours import paint
from PIL import Image

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paint(tmp_path / "labelled", 6)
    paint(tmp_path / "pictures", 6, seed=1)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (16, 16), "red").save(tmp_path / name)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert "epochs=20)" in code
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code.replace("epochs=20)", "epochs=1)"), str(README), "exec"), names)
    sentence, found = capsys.readouterr().out.strip().splitlines()
    assert "retraining" in sentence and re.fullmatch(r"\S+\.png -?[01]\.\d+", found)
    assert names["features"].shape == (2, names["backbone"].num_features)  # type: ignore[attr-defined]
