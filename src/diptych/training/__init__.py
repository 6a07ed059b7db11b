"""The training loop and what stands around it; ``run.pretrain`` is the way in."""
