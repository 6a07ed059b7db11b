"""What each defect of the Keras example costs: its recipe with one thing mended at a time, measured on unseen pictures.

    python benchmarks/keras_defects.py cifar10.zip runs/defects [NAME ...]

Every variant sees the same 10,000 CIFAR-10 training pictures five times and is scored on all 10,000 test pictures, by
kNN, by a linear probe trained to convergence, and by the example's own linear protocol. Prints JSON, a line a variant.
"""

import json
import sys

import diptych
from diptych.progress import Terminal

PICTURES = 10_000
MENDED: dict[str, dict[str, object]] = {
    "as-written": {},
    "crops-that-crop": {"crop": "resized", "crop_scale": (0.2, 1.0)},
    "weight-decay-that-acts": {"weight_decay": 5e-4},
    "final-norm-and-relu": {"backbone": "resnet20v2"},
    "predictor-norm-before-relu": {"predictor_order": "norm-relu"},
    "no-shift-after-the-last-norm": {"projector_last_affine": False},
    "momentum-0.9": {"momentum": 0.9},
}


def main(data: str, folder: str, names: list[str]) -> None:
    """Run the named variants, or all."""
    for name in names or MENDED:
        out = f"{folder}/{name}"
        settings = {"limit": PICTURES, **MENDED[name]}
        run = diptych.pretrain(data, out, recipe="keras-simsiam", overwrite=True, terminal=Terminal(), **settings)
        last = [json.loads(line) for line in open(f"{out}/metrics.jsonl", encoding="utf-8")][-1]
        line: dict[str, object] = {"variant": name, "loss": run.loss, "std": last["embedding_std"]}
        line |= {"rank": last["effective_rank"], "seconds": run.seconds, "warnings": len(run.warnings)}
        for protocol in ("standard", "keras"):
            proof = diptych.evaluate(out, data, limit=PICTURES, protocol=protocol, name=protocol, terminal=Terminal())
            for contender, probes in proof["contenders"].items():
                for probe, scores in probes.items():
                    line[f"{protocol} {contender} {probe}"] = round(100 * scores["top1"], 2)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
