"""A deterministic engine that holds text back as vLLM does. Pure.

It stops at stop strings, sends no text that may be the beginning of one, puts several tokens into
one event, and goes on only from a text that ends with one of its tokens: an engine that is asked to
go on from the middle of a word would tokenise it another way.
"""

from tests.support.engine_wire import DONE, Body, Engine, event, prompt_tokens, usage

_DEFAULT_MAX_TOKENS = 16
"""Of a text completion."""


class HoldingEngine(Engine):
    """One build.

    Args:
        name: Part of its answers' ids.
        tokens: What it answers, a token each.
        interval: Tokens of one event; the first comes alone.
    """

    def __init__(self, name: str, tokens: tuple[str, ...], interval: int = 1) -> None:
        super().__init__(name, tokens)
        self._interval = interval

    def events(self, path: str, body: Body) -> list[bytes]:
        is_chat = path == "/v1/chat/completions"
        kind = "chat.completion.chunk" if is_chat else "text_completion"
        head = self._head(path, body, kind)
        events = self._role_events(head, body) if is_chat else []
        pieces, reason, stop, made = self._pieces(body)
        for number, piece in enumerate(pieces):
            end = reason if number == len(pieces) - 1 else None
            content = {"delta": {"content": piece}} if is_chat else {"text": piece}
            choice = {"index": 0, **content, "logprobs": None, "finish_reason": end}
            if end:
                choice["stop_reason"] = stop
            events.append(event({**head, "choices": [choice]}))
        if (body.get("stream_options") or {}).get("include_usage"):
            counted = usage(prompt_tokens(body), made)
            events.append(event({**head, "choices": [], "usage": counted}))
        return [*events, DONE]

    def _pieces(self, body: Body) -> tuple[list[str], str, str | None, int]:
        """The text of each event, the finish reason, the stop string, and the tokens made."""
        if "prompt" in body and body.get("max_tokens") is None:
            body = {**body, "max_tokens": _DEFAULT_MAX_TOKENS}
        rest, reason = self._rest(body)
        stops = body.get("stop") or []
        stops = [stops] if isinstance(stops, str) else stops
        is_included = body.get("include_stop_str_in_output", False)
        held_back = 0 if is_included or not stops else max(map(len, stops)) - 1
        pieces: list[str] = []
        text, sent, since = "", 0, 0
        for number, token in enumerate(rest, 1):
            text, since = text + token, since + 1
            found = [text.find(stop) + len(stop) for stop in stops if stop in text]
            if found:
                end = min(found)
                stop = next(s for s in stops if text.find(s) + len(s) == end and s in text)
                text = text[: end if is_included else end - len(stop)]
                return [*pieces, text[sent:]], "stop", stop, number
            is_last = reason == "length" and number == len(rest)
            if is_last:
                return [*pieces, text[sent:]], reason, None, number
            if not pieces or since == self._interval:
                length = max(sent, len(text) - held_back)
                pieces.append(text[sent:length])
                sent, since = length, 0
        return [*pieces, text[sent:]], reason, None, len(rest) + 1
