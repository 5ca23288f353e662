"""Defaults that the library and the command line share; needs no JAX."""

AUTO = "auto"  # augmentation: what suits the images
