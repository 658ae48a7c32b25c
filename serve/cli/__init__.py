"""The `penumbra` command line."""
