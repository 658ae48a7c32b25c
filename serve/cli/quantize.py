"""`penumbra quantize`: makes a quantized build of a full-precision model folder."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from penumbra.serve.errors import ConfigurationInvalid
from penumbra.serve.quantization.convert import DEFAULT_GROUP_SIZE, quantize_folder
from penumbra.serve.quantization.errors import QuantizationError
from penumbra.serve.quantization.manifest import Manifest, content_sha256
from penumbra.serve.quantization.schemes import Scheme


def quantize(
    source: Annotated[Path, typer.Argument(help="Full-precision model folder; only read.")],
    target: Annotated[Path, typer.Argument(help="Folder to make; must not exist.")],
    scheme: Annotated[Scheme, typer.Option(help="What to make.")],
    group_size: Annotated[
        int, typer.Option(min=1, help="In-features per scale (weight-only schemes).")
    ] = DEFAULT_GROUP_SIZE,
    experimental: Annotated[
        bool, typer.Option("--experimental", help="Allow a scheme that is expected to fail.")
    ] = False,
) -> None:
    """Make a quantized build of a Llama-like model folder, ready for vLLM."""
    console = Console(stderr=True)
    try:
        made = _quantize_with_progress(source, target, scheme, group_size, experimental, console)
    except QuantizationError as error:
        console.print(
            f"error: {error.message} \\[{error.code}]", style="red", highlight=False, soft_wrap=True
        )
        raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        raise ConfigurationInvalid(
            f"`penumbra quantize` needs {error.name}: pip install '.[cpu]' or '.[gpu]'"
        ) from error
    size_bytes = sum(file.size_bytes for file in made.weights.values())
    typer.echo(f"{target}: {made.scheme}, {size_bytes} bytes of weights, {content_sha256(made)}")


def _quantize_with_progress(
    source: Path,
    target: Path,
    scheme: Scheme,
    group_size: int,
    experimental: bool,
    console: Console,
) -> Manifest:
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        shown = progress.add_task(f"{source.name} → {scheme}", total=None)

        def on_tensor(_name: str, done: int, total: int) -> None:
            progress.update(shown, completed=done, total=total)

        return quantize_folder(
            source,
            target,
            scheme,
            group_size=group_size,
            allow_experimental=experimental,
            on_tensor=on_tensor,
        )
