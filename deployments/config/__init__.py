"""Configuration files: the models of `penumbra.yaml`, the readers, and the words of errors."""
