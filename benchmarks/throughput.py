"""Training speed of the Keras example's network (ResNet-20 v2, heads 2048 / 512) beside the machine's matrix product.

    python benchmarks/throughput.py [ROUNDS]

Every variant takes whole training steps (views, forward, backward, SGD) on batches of 128 pictures of 32 px. Variants
take turns, so that a machine whose speed drifts slows all of them alike; medians over the rounds are printed. The
matrix product is 2048 × 2048 × 2048. FLOP are counted by torch.utils.flop_counter, a multiply-add as two.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from diptych.optim.build import build_optimizer
from diptych.recipes.keras_simsiam import keras_simsiam
from diptych.seeding import generator
from diptych.training.run import build_method
from diptych.views.pipeline import ViewMaker

BATCH, SIDE, WARM = 128, 2048, 2


def step_of(memory_format: torch.memory_format, precision: str) -> Callable[[], float]:
    """Return a function that takes one training step."""
    config = keras_simsiam("photos")
    method, _, _ = build_method(config)
    method = method.to(memory_format=memory_format).train()
    optimizer = build_optimizer(method.parameter_groups(), config.optim)
    make_views = ViewMaker(config.views, config.image_size)
    pictures = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator(0))

    def step() -> float:
        views = [v.contiguous(memory_format=memory_format) for v in make_views(pictures, generator(1))]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = method(views).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def product_of(dtype: torch.dtype) -> Callable[[], float]:
    """Return a function that multiplies two square matrices."""
    a, b = (torch.randn(SIDE, SIDE, generator=generator(n)).to(dtype) for n in range(2))
    return lambda: float((a @ b)[0, 0])


def main(rounds: int) -> None:
    """Measure and print."""
    layouts = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
    steps = {(p, name): step_of(layout, p) for p in ("fp32", "bf16") for name, layout in layouts.items()}
    products = {"fp32": product_of(torch.float32), "bf16": product_of(torch.bfloat16)}
    with FlopCounterMode(display=False) as counter:
        steps["fp32", "channels-last"]()
    flop = counter.get_total_flops()
    work = {**steps, **products}
    seconds: dict[object, list[float]] = {key: [] for key in work}
    for number in range(rounds + WARM):
        for key, run in work.items():
            begun = time.perf_counter()
            run()
            if number >= WARM:
                seconds[key].append(time.perf_counter() - begun)
    median = {key: statistics.median(found) for key, found in seconds.items()}
    print(f"{torch.__version__}, {torch.get_num_threads()} threads; {flop / BATCH / 1e9:.3f} GFLOP a picture and step")
    for precision in products:
        rate = 2 * SIDE**3 / median[precision] / 1e9
        print(f"{precision} matrix product: {rate:.0f} GFLOP/s")
        for layout in layouts:
            taken = median[precision, layout]
            spread = f"{BATCH / max(seconds[precision, layout]):.0f} to {BATCH / min(seconds[precision, layout]):.0f}"
            print(
                f"{precision} {layout}: {BATCH / taken:.0f} pictures/s ({spread}), {flop / taken / 1e9:.1f} GFLOP/s, "
                f"{flop / taken / 1e9 / rate:.0%} of the matrix product"
            )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB (all variants together)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
