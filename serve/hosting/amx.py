"""vLLM plugin that asks Linux for AMX, the matrix unit of some Intel processors.

On a processor with AMX vLLM's CPU attention uses its tiles, and Linux kills a process that touches
them before it has asked for permission. PyTorch asks when it first multiplies bfloat16 matrices
that way itself; an engine whose layers are all INT4 may come to its attention before that, and dies
of an illegal instruction at its first request. Permission is a process's own and is lost when a
program is started, so it must be asked for in every process of an engine.
"""


def allow_amx() -> None:
    """Ask the kernel for AMX where the processor has it; safe to call again."""
    import torch

    if torch.cpu._is_amx_tile_supported():  # noqa: SLF001 - there is no public name
        torch.cpu._init_amx()  # noqa: SLF001
