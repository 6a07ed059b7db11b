"""Ways to ask a representation what it knows: neighbours, a plane, and training on."""
