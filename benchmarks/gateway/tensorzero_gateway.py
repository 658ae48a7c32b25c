"""Runs the gateway that TensorZero's client embeds and prints its URL; for TensorZero's venv."""

import signal
import sys

import tensorzero


def main() -> None:
    """Serves until it is killed."""
    gateway = tensorzero._start_http_gateway(  # noqa: SLF001 - the only way in without a client
        config_file=sys.argv[1],
        clickhouse_url=None,
        postgres_url=None,
        valkey_url=None,
        async_setup=False,
    )
    print(gateway.base_url, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
