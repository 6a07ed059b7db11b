"""Proof: frozen features of unseen pictures, beside the same network untrained and raw pixels, with intervals."""
