"""``python -m diptych``: what ``torchrun -m diptych`` starts."""

from diptych.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
