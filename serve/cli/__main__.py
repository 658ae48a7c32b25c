"""`python -m serve.cli`: the same as `penumbra`."""

from serve.cli.main import main

main()
