"""Differences between two sets of API keys, in words: which callers are let in. Pure."""

from collections.abc import Iterator, Sequence

from penumbra.router.flags.tenant_keys import KeySettings, TenantLimits

Change = tuple[str, str, bool]
"""`add`, `remove` or `change`; a sentence; whether a caller may be refused by it."""


def key_changes(
    before: Sequence[KeySettings] | None, after: Sequence[KeySettings]
) -> Iterator[Change]:
    """Find the differences between the keys in force and other ones.

    Args:
        before: The keys in force; None: each gateway has those of its own file.
        after: The other ones.
    """
    if before is None:
        names = ", ".join(f"{key.key_id} of {key.tenant}" for key in after) or "none"
        yield (
            "change",
            f"keys: so far each gateway has those of its file; from now on, everywhere: {names}",
            True,
        )
        return
    if before == tuple(after):
        return
    found = [*_changes(before, after)]
    yield from found or [("change", "keys: they come in another order", False)]


def _changes(before: Sequence[KeySettings], after: Sequence[KeySettings]) -> Iterator[Change]:
    old, new = ({key.sha256: key for key in keys} for keys in (before, after))
    for digest, key in old.items():
        if digest not in new:
            yield "remove", f"key {key.key_id} of {key.tenant}: its requests are refused", True
    for digest, key in new.items():
        if digest not in old:
            yield "add", f"key {key.key_id} of {key.tenant}", False
        else:
            yield from _key_change(old[digest], key)
    if not before:
        yield "change", "keys are needed from now on: requests without one are refused", True
    if not after:
        yield "change", "no keys are left: every caller is let in, and may choose its variant", True
    yield from _limit_changes(before, after)


def _key_change(old: KeySettings, new: KeySettings) -> Iterator[Change]:
    if old.tenant != new.tenant:
        yield "change", f"key {new.key_id}: tenant {old.tenant} -> {new.tenant}", True
    if old.may_pin != new.may_pin:
        verb = "may" if new.may_pin else "may no more"
        text = f"key {new.key_id} of {new.tenant}: it {verb} choose its variant"
        yield "change", text, not new.may_pin


def _limit_changes(before: Sequence[KeySettings], after: Sequence[KeySettings]) -> Iterator[Change]:
    old, new = _limits(before), _limits(after)
    for tenant, limits in new.items():
        if tenant not in old:
            continue
        for name in TenantLimits.model_fields:
            was, is_now = getattr(old[tenant], name), getattr(limits, name)
            if was != is_now:
                is_lower = is_now is not None and (was is None or is_now < was)
                text = f"limit {name} of {tenant}: {_number(was)} -> {_number(is_now)}"
                yield "change", text, is_lower


def _limits(keys: Sequence[KeySettings]) -> dict[str, TenantLimits]:
    """Tenant -> its limits: those of its first key count."""
    found: dict[str, TenantLimits] = {}
    for key in keys:
        found.setdefault(key.tenant, key.limits)
    return found


def _number(limit: int | None) -> str:
    return "none" if limit is None else str(limit)
