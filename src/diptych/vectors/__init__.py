"""Vectors of pictures: computed and kept, searched, and told apart."""
