"""`python -m penumbra.serve.cli`: the same as `penumbra`."""

from penumbra.serve.cli.main import main

main()
