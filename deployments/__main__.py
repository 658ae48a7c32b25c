"""Entry point of the control process.

`python -m penumbra.deployments --config penumbra.yaml --endpoints endpoints.json` serves;
`... --config penumbra.yaml --reset-flag MODEL --reason WHY` gives a model the flag in the file.
"""

import argparse
import asyncio
import functools
import getpass
import logging
import os
import sys
from pathlib import Path

import uvloop
from pydantic import ValidationError

from penumbra.deployments.api.tokens import TOKEN_CHARS, ControlSettings
from penumbra.deployments.config.endpoints import configuration, read_endpoints
from penumbra.deployments.config.hosted_here import Beside, hosted_addresses
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.config.store_url import load_with_store
from penumbra.deployments.control.configuration_at_start import FileAtStart, require_fitting
from penumbra.deployments.errors import DeploymentsError, NotFound, NotLeader
from penumbra.deployments.history.events import ConfigPayload
from penumbra.deployments.server import open_plane, run_control
from penumbra.monitoring.logs import configure_logs
from penumbra.monitoring.tracing.export import tracing
from penumbra.monitoring.tracing.settings import TracingMisconfigured
from penumbra.router.hangups import ignore_hangups
from penumbra.router.secret_values import SecretUnreadable

EXIT_REFUSED = 2
"""Exit status if the configuration, the environment or the store prevents the start."""


def main() -> int:
    """Run the control process.

    Returns:
        The exit status.
    """
    ignore_hangups()
    arguments = _parser().parse_args()
    try:
        spec = _read_spec(arguments)
        if arguments.reset_flag:
            reset = _reset(spec, arguments.reset_flag, arguments.reason, is_adopted=arguments.adopt)
            return asyncio.run(reset)
        payload = _payload_of(spec, arguments)
        access = ControlSettings.read(os.environ).access()
        configure_logs("control")
        # Otherwise it logs on every start that there is nothing to do.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        beside = Beside(arguments.replicas, arguments.hosting)
        with tracing(os.environ, "penumbra-control", "control") as tracer:
            config = FileAtStart(
                str(arguments.config), arguments.adopt, functools.partial(_read, arguments)
            )
            uvloop.run(run_control(spec, payload, access, config, beside, tracer))
    except DeploymentsError as error:
        return _complain(error.message)
    except (TracingMisconfigured, SecretUnreadable) as error:
        return _complain(str(error))
    except ValidationError as error:
        return _complain("\n".join(_variable_problem(item["loc"][0]) for item in error.errors()))
    except OSError as error:
        return _complain(str(error.strerror or error))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m penumbra.deployments", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="penumbra.yaml")
    parser.add_argument(
        "--endpoints", type=Path, help="JSON: model -> variant -> base URL of what is hosted here"
    )
    parser.add_argument(
        "--replicas", type=Path, help="JSON: where each replica of them answers; may come and go"
    )
    parser.add_argument(
        "--hosting",
        type=Path,
        help="folder in which a `penumbra up` is told which engines to run, and tells of them",
    )
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="put the file into force at each start; by default it fills an empty store only",
    )
    parser.add_argument("--port", type=int, help="instead of control.port")
    parser.add_argument("--reset-flag", metavar="MODEL", help="give it the flag in the file")
    parser.add_argument("--reason", default="", help="why, for the history")
    return parser


def _read(arguments: argparse.Namespace) -> tuple[PenumbraSpec, ConfigPayload]:
    spec = _read_spec(arguments)
    return spec, _payload_of(spec, arguments)


def _read_spec(arguments: argparse.Namespace) -> PenumbraSpec:
    return _on_port(load_with_store(arguments.config, os.environ), arguments.port)


def _payload_of(spec: PenumbraSpec, arguments: argparse.Namespace) -> ConfigPayload:
    endpoints = read_endpoints(arguments.endpoints)
    if arguments.hosting is not None:  # those that were written at the start may lack new ones
        endpoints = hosted_addresses(spec)
    return configuration(spec, endpoints, str(arguments.endpoints or arguments.config))


def _on_port(spec: PenumbraSpec, port: int | None) -> PenumbraSpec:
    if port is None:
        return spec
    control = spec.control.model_copy(update={"port": port, "address": None})
    return spec.model_copy(update={"control": control})


async def _reset(spec: PenumbraSpec, name: str, reason: str, *, is_adopted: bool) -> int:
    if not reason.strip():
        return _complain("--reset-flag wants a --reason")
    if name not in spec.models:
        raise NotFound.among("model", name, spec.models)
    plane = open_plane(spec)
    controller = plane.controller
    try:
        await plane.leadership.stand_alone()
        flag = spec.models[name].flag
        if not is_adopted:  # what is in force stays in force at the next start
            require_fitting(controller.state, name, flag)
        epoch = await controller.reset(name, flag, getpass.getuser(), reason)
    except NotLeader as error:
        return _complain(
            f"{error.message}: stop it first, or change the flag through it (`penumbra flags set`)"
        )
    finally:
        await plane.leadership.resign()
        controller.close()
    print(f"epoch {epoch}: {name} has the flag in the file")  # noqa: T201 -- a command's output
    return 0


def _variable_problem(field: object) -> str:
    variable = f"PENUMBRA_{field}".upper()
    return (
        f"the environment variable {variable}: wanted a token of {TOKEN_CHARS} characters or more"
    )


def _complain(message: str) -> int:
    print(message, file=sys.stderr)  # noqa: T201 -- read by a person
    return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
