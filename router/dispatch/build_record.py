"""Record of what a gateway process has learned of one build: its signs of life, its pace. Pure.

It outlives routing tables, as long as the variant stays at its address.
"""

from penumbra.router.dispatch.capabilities import Capabilities

_WINDOW_SECONDS = 300.0
_KNOWN_ANSWERS = 20
"""Answers after which the time of an answer is known well enough to set a limit by it."""
_SHARE_OF_NEWEST = 0.1
_PATIENCE = 3.0
"""A limit is so many times the longest answer of the last minutes."""


class BuildRecord:
    """Signs of life, pace and capabilities of one build."""

    __slots__ = (
        "_answered_paths",
        "_began_at",
        "_counts",
        "_longest",
        "answered_at",
        "capabilities",
        "tokens_a_piece",
    )  # fmt: skip

    def __init__(self) -> None:
        self.capabilities = Capabilities()
        self.answered_at = float("-inf")
        """Time of the last sign of life: data of an answer; monotonic seconds."""
        self._answered_paths: set[bytes] = set()
        self.tokens_a_piece: float | None = None
        """Mean tokens of one event of its streams; None: no stream told its tokens yet."""
        self._began_at = float("-inf")
        self._longest = [0.0, 0.0]
        self._counts = [0, 0]

    def add_whole(self, path: bytes, seconds: float, now: float) -> None:
        """Note a whole answer, and the time that it took."""
        self.answered_at = now
        if path not in self._answered_paths:
            self._note_path(path)
        if now - self._began_at >= _WINDOW_SECONDS:
            self._turn(now)
        if seconds > self._longest[0]:
            self._longest[0] = seconds
        self._counts[0] += 1

    def add_stream_end(self, path: bytes, now: float) -> None:
        """Note a stream that came to its end."""
        self.answered_at = now
        if path not in self._answered_paths:
            self._note_path(path)

    def has_answered(self, path: bytes) -> bool:
        """Whether it has answered on this route: then it does not lack the route.

        Args:
            path: Target of a request, query included.
        """
        return path.partition(b"?")[0] in self._answered_paths

    def _note_path(self, path: bytes) -> None:
        # There are as many as hot routes, and queries are left out.
        self._answered_paths.add(path.partition(b"?")[0])

    def add_stream(self, tokens: int, pieces: int) -> None:
        """Note the tokens of a stream that told them."""
        ratio, known = tokens / pieces, self.tokens_a_piece
        self.tokens_a_piece = ratio if known is None else known + (ratio - known) * _SHARE_OF_NEWEST

    def whole_limit(self, least: float, most: float, now: float) -> float:
        """The time after which a whole answer is given up, seconds.

        Three times the longest whole answer of the last five to ten minutes, but at least `least`
        and at most `most`; `most` while too few answers are known.
        """
        if now - self._began_at >= _WINDOW_SECONDS:
            self._turn(now)
        now_and_before = self._counts
        if now_and_before[0] + now_and_before[1] < _KNOWN_ANSWERS:
            return most
        return min(most, max(least, _PATIENCE * max(self._longest)))

    def _turn(self, now: float) -> None:
        is_recent = now - self._began_at < 2 * _WINDOW_SECONDS
        self._longest = [0.0, self._longest[0] if is_recent else 0.0]
        self._counts = [0, self._counts[0] if is_recent else 0]
        self._began_at = now
