"""Objects of this package as bytes, and back: what checkpoints hold.

A fold has state in some forty classes, which share parts. Pickle writes all of that bit for bit, in
C. But pickle can also call anything. So bytes are read only if a control process has written them:
they are signed with a key that is made from its tokens and is not in the store. Besides, only
classes that are defined in the modules of a fold are found.

Bytes mean something only to the code that wrote them. `version` names that code by its sources:
after an upgrade, whatever it changed, there is no checkpoint, and the rows are folded anew. Where
the rows are not there any more, it is enough that the classes have the same fields: `shape`.

Reading order: dump, load, version, shape.
"""

import ast
import hashlib
import hmac
import io
import pickle
import sys
import zlib
from collections.abc import Mapping
from importlib import metadata, resources
from typing import Any, TypeVar

T = TypeVar("T")

_PACKAGES = (
    "penumbra.deployments.evidence",
    "penumbra.deployments.history",
    "penumbra.deployments.metrics",
    "penumbra.deployments.rollouts",
    "penumbra.monitoring",
    "penumbra.monitoring.signals",
    "penumbra.monitoring.stats",
    "penumbra.router.flags",
)
"""Packages whose code makes or reads what is kept."""
EVIDENCE_MODULES = (
    "penumbra.deployments.evidence.build_readings",
    "penumbra.deployments.evidence.calibration_buffer",
    "penumbra.deployments.evidence.coverage",
    "penumbra.deployments.evidence.evidence_clock",
    "penumbra.deployments.evidence.evidence_path",
    "penumbra.deployments.evidence.guardrail_monitor",
    "penumbra.deployments.evidence.instrument",
    "penumbra.deployments.evidence.kind_guards",
    "penumbra.deployments.evidence.known_builds",
    "penumbra.deployments.evidence.latency_floors",
    "penumbra.deployments.evidence.proving_streams",
    "penumbra.deployments.evidence.renewals",
    "penumbra.deployments.evidence.run_evidence",
    "penumbra.deployments.evidence.run_proofs",
    "penumbra.deployments.evidence.run_totals",
    "penumbra.deployments.evidence.scorer_faults",
    "penumbra.deployments.evidence.seen_clusters",
    "penumbra.deployments.evidence.self_tests",
    "penumbra.deployments.evidence.slice_proofs",
    "penumbra.deployments.evidence.workload",
    "penumbra.deployments.rollouts.findings",
    "penumbra.deployments.rollouts.spec",
    "penumbra.monitoring.observations",
    "penumbra.monitoring.signals.calibration",
    "penumbra.monitoring.stats.betting",
    "penumbra.monitoring.stats.block_history",
    "penumbra.monitoring.stats.guard",
    "penumbra.monitoring.stats.shift",
    "penumbra.monitoring.stats.stream",
    "penumbra.monitoring.stats.tolerance_limit",
    "penumbra.monitoring.stats.wealth",
)
"""Modules with the classes of which the evidence of a run is made."""
_LIBRARIES = ("msgspec", "pydantic", "pydantic-core")
_OTHERS = frozenset(
    {
        ("collections", "Counter"),
        ("collections", "OrderedDict"),
        ("collections", "deque"),
        ("datetime", "datetime"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("builtins", "frozenset"),
        ("builtins", "set"),
        ("penumbra.deployments.control.kept_folds", "KeptState"),
        ("pydantic_core._pydantic_core", "TzInfo"),
    }
)
_PROTOCOL = 5
_MEANING = 1
"""To be counted up when a field of a fold changes its meaning and keeps its name."""
_SIGNATURE_BYTES = 32
_MOST_BYTES = 512 * 1024 * 1024
"""Largest object that is read."""


class Unusable(Exception):
    """Bytes that do not hold the object that was asked for."""


def dump(kept: object) -> bytes:
    """Write an object. It must not change meanwhile."""
    return pickle.dumps(kept, _PROTOCOL)


def pack(written: bytes, key: bytes) -> bytes:
    """Compress and sign what `dump` wrote."""
    packed = zlib.compress(written, 1)
    return hmac.digest(key, packed, "sha256") + packed


def load(signed: bytes, key: bytes, kind: type[T]) -> T:
    """Read an object that `dump` wrote and `pack` compressed.

    Args:
        signed: The bytes.
        key: The key that they were signed with.
        kind: The class that is wanted.

    Raises:
        Unusable: The bytes are damaged, signed by another key, or hold something else.
    """
    try:
        found = _reader_of(signed, key).load()
    except Unusable:
        raise
    except Exception as error:
        # Pickle raises whatever the classes in the bytes do.
        raise Unusable(f"{type(error).__name__}: {error}") from error
    if not isinstance(found, kind):
        raise Unusable(f"found {type(found).__name__}, wanted {kind.__name__}")
    return found


def version() -> str:
    """Name the code that makes and reads what is kept: a digest of its sources and versions."""
    versions = [sys.version, *(metadata.version(name) for name in _LIBRARIES)]
    digest = hashlib.sha256("\0".join([str(_PROTOCOL), *versions]).encode())
    for package in _PACKAGES:
        for file in sorted(resources.files(package).iterdir(), key=lambda each: each.name):
            if file.name.endswith(".py"):
                digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def shape() -> str:
    """Name the fields of all classes that evidence is made of; other releases may share them."""
    return shape_of(
        {
            module: (resources.files(package) / f"{name}.py").read_text()
            for module in EVIDENCE_MODULES
            for package, _, name in (module.rpartition("."),)
        }
    )


def classes_in(signed: bytes, key: bytes) -> set[tuple[str, str]]:
    """List the classes of which objects are kept in some bytes, as (module, name).

    Raises:
        Unusable: The bytes are signed by another key.
    """
    reader = _reader_of(signed, key)
    reader.load()
    return reader.found


def shape_of(sources: Mapping[str, str]) -> str:
    """Name the fields of all classes in some sources.

    Args:
        sources: Name of a module -> its source.
    """
    lines = [str(_PROTOCOL), str(_MEANING)]
    for module, source in sorted(sources.items()):
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef):
                bases = ",".join(map(ast.unparse, node.bases))
                lines.append(f"{module}.{node.name}({bases}): {' '.join(_fields(node))}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _fields(node: ast.ClassDef) -> list[str]:
    """List what a class declares, and what its methods set on `self`."""
    declared = [
        f"{ast.unparse(each.target)}:{ast.unparse(each.annotation)}"
        for each in node.body
        if isinstance(each, ast.AnnAssign)
    ]
    members = [
        each.targets[0].id
        for each in node.body
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
    ]
    own = {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and isinstance(each.value, ast.Name)
        and each.value.id == "self"
    }
    return [*declared, *members, *sorted(own)]


def _reader_of(signed: bytes, key: bytes) -> "_Reader":
    signature, packed = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, hmac.digest(key, packed, "sha256")):
        raise Unusable("found bytes that are not signed with this key")
    unpacker = zlib.decompressobj()
    written = unpacker.decompress(packed, _MOST_BYTES)
    if unpacker.unconsumed_tail:
        raise Unusable(f"found more than {_MOST_BYTES} bytes")
    return _Reader(io.BytesIO(written))


class _Reader(pickle.Unpickler):
    """Reads objects of known classes, and finds nothing but these."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.found: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> Any:
        """See pickle.Unpickler."""
        package = module.rpartition(".")[0]
        is_ours = module in _PACKAGES or package in _PACKAGES
        if not is_ours and (module, name) not in _OTHERS:
            raise Unusable(f"found {module}.{name}, wanted a class of a fold")
        found = None if "." in name else super().find_class(module, name)
        is_own = isinstance(found, type) and found.__qualname__ == name
        if not is_own or (is_ours and found.__module__ != module):
            raise Unusable(f"found {module}.{name}, wanted a class of that module")
        self.found.add((module, name))
        return found


VERSION = version()
"""Of the code that this process runs, whatever lies on the disk later."""
SHAPE = shape()
"""Likewise."""
