"""What each defect of the Keras example costs: its recipe with one thing mended at a time, measured on unseen pictures.

    python benchmarks/keras_defects.py cifar10.zip runs/defects [NAME ...]

Every variant sees the same 10,000 CIFAR-10 training pictures twice, in bfloat16 (two epochs instead of five, and half
the precision: minutes a variant), and is scored on all 10,000 test pictures by kNN and by a linear probe trained to
convergence on these 10,000. Prints a line of JSON a variant.
"""

import json
import sys

import diptych
from diptych.evaluation.features import backbone_features
from diptych.evaluation.pictures import open_labelled, read_labelled
from diptych.evaluation.probes import knn, linear
from diptych.frozen import random_twin
from diptych.progress import Terminal

PICTURES, EPOCHS = 10_000, 2
MENDED: dict[str, dict[str, object]] = {
    "as-written": {},
    "crops-that-crop": {"crop": "resized", "crop_scale": (0.2, 1.0)},
    "weight-decay-that-acts": {"weight_decay": 5e-4},
    "final-norm-and-relu": {"backbone": "resnet20v2"},
    "predictor-norm-before-relu": {"predictor_order": "norm-relu"},
    "higher-rate-and-momentum": {"lr": 0.5, "momentum": 0.9},
}


def main(data: str, folder: str, names: list[str]) -> None:
    """Run the named variants, or all."""
    pictures = read_labelled(open_labelled(data, None, PICTURES, seed=0), 32, Terminal(quiet=True))
    for name in names or MENDED:
        out = f"{folder}/{name}"
        settings = {"limit": PICTURES, "epochs": EPOCHS, "precision": "bf16", **MENDED[name]}
        run = diptych.pretrain(data, out, recipe="keras-simsiam", overwrite=True, terminal=Terminal(), **settings)
        last = [json.loads(line) for line in open(f"{out}/metrics.jsonl", encoding="utf-8")][-1]
        line: dict[str, object] = {"variant": name, "loss": run.loss, "std": last["embedding_std"]}
        line |= {"rank": last["effective_rank"], "seconds": run.seconds, "warnings": len(run.warnings)}
        for contender, network in {"pretrained": diptych.load(out), "random": random_twin(out)}.items():
            train = backbone_features(network, pictures.train.images, pictures.train_labels)
            test = backbone_features(network, pictures.test.images, pictures.test_labels)
            found, _ = knn.classify(train, test.values, len(pictures.classes))
            probe = linear.fit_linear(train, test.values, len(pictures.classes), seed=0)
            for what, answers in {"knn": found, "linear": probe.logits}.items():
                line[f"{contender} {what}"] = round(100 * (answers.argmax(1) == test.labels).float().mean().item(), 2)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
