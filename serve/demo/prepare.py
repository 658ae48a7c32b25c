"""Makes the demo's variants from the committed model.

It takes seconds and no network. A folder is kept if its manifest still describes it and it was made
from the same source by the same tools.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penumbra.serve.quantization import manifest as manifests
from penumbra.serve.quantization.convert import DEFAULT_GROUP_SIZE, quantize_folder, tool_versions
from penumbra.serve.quantization.errors import ManifestMismatch, QuantizationError
from penumbra.serve.quantization.schemes import Scheme

MODEL: Final = Path(__file__).parent / "model"
CHECKSUMS_NAME: Final = "SHA256SUMS"
BASELINE: Final = "full"


@dataclass(frozen=True, slots=True)
class Build:
    """One quantized variant of the demo.

    Attributes:
        scheme: What it is made into.
        group_size: In-features per scale.
    """

    scheme: Scheme
    group_size: int = DEFAULT_GROUP_SIZE


BUILDS: Final[dict[str, Build]] = {
    "int8": Build(Scheme.W8A8_INT8),
    "int4": Build(Scheme.W4A16_INT4),
    "int2": Build(Scheme.W2A16_EXPERIMENTAL),
}
VARIANTS: Final = (BASELINE, *BUILDS)


def prepare(folder: Path, report: Callable[[str], None], model: Path = MODEL) -> None:
    """Makes every variant under `folder`, or keeps those that are up to date.

    Args:
        folder: Where the variants go, each in a folder of its name.
        report: Told one line per variant.
        model: The full-precision model with its `SHA256SUMS`.

    Raises:
        ManifestMismatch: A file of the model is not the one that was committed.
        QuantizationError: A variant could not be made.
    """
    check_sums(model)
    folder.mkdir(parents=True, exist_ok=True)
    source = manifests.content_sha256(manifests.read_manifest(model))
    _prepare_baseline(model, folder / BASELINE, source, report)
    for name, build in BUILDS.items():
        target = folder / name
        if _is_current(target, build, source):
            report(f"{name}: up to date")
            continue
        if target.exists():
            shutil.rmtree(target)
        made = quantize_folder(
            model, target, build.scheme, group_size=build.group_size, allow_experimental=True
        )
        size_bytes = sum(file.size_bytes for file in made.weights.values())
        report(f"{name}: made, {made.scheme}, {size_bytes} bytes of weights")


def check_sums(model: Path) -> None:
    """Checks the model's files against its `SHA256SUMS`.

    Raises:
        ManifestMismatch: The list is missing, or a file differs or is absent.
    """
    listed = model / CHECKSUMS_NAME
    if not listed.exists():
        raise ManifestMismatch(f"{listed} is missing; restore it from the repository.")
    for line in listed.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        path = model / name
        if not path.exists() or manifests.file_sha256(path) != expected:
            raise ManifestMismatch(f"{path} is not the committed file; restore it.")


def _prepare_baseline(
    model: Path, target: Path, source: str, report: Callable[[str], None]
) -> None:
    """A copy, not a link: engines in containers see the variants' folder and nothing else."""
    if _content(target) == source:
        report(f"{BASELINE}: up to date")
        return
    if target.exists():
        shutil.rmtree(target)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.partial-"))
    try:
        shutil.copytree(model, partial, dirs_exist_ok=True)
        partial.chmod(0o755)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    report(f"{BASELINE}: copied")


def _is_current(target: Path, build: Build, source: str) -> bool:
    try:
        manifest = manifests.read_manifest(target)
        manifests.verify(target, manifest)
    except QuantizationError:
        return False
    wanted_group = build.group_size if manifest.group_size is not None else None
    return (
        manifest.source_sha256 == source
        and manifest.scheme == build.scheme.value
        and manifest.group_size == wanted_group
        and manifest.tools == tool_versions()
    )


def _content(folder: Path) -> str | None:
    try:
        return manifests.content_sha256(manifests.read_manifest(folder))
    except QuantizationError:
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the variants")
    options = parser.parse_args(arguments)
    try:
        prepare(options.out, lambda line: print(line, flush=True))  # noqa: T201
    except QuantizationError as error:
        print(f"error: {error.message} [{error.code}]", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
