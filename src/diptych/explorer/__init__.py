"""The map of a set of pictures in the browser: by a small server on this machine, or as a folder that needs none."""
