"""Networks that turn pictures into feature vectors; ``build.build_backbone`` is the way in."""
