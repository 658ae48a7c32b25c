"""Plays the scripts of a fake upstream over a real socket, as an HTTP server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from penumbra.router.upstream.fake import Body, End, Fail, FakeUpstream, Hang, Head, Script
from penumbra.router.upstream.port import UpstreamRequest

Answer = Callable[[UpstreamRequest], Script]


class ScriptServer:
    """Plays a fake upstream's scripts over a real socket."""

    def __init__(self, answer: Answer | None) -> None:
        self._fake = FakeUpstream("demo", answer)
        self.requests: list[UpstreamRequest] = []
        self._tasks: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def stop(self) -> None:
        for task in self._tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, self._tasks))

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].split(b"\r\n")
        method, path, _ = line.split(b" ")
        headers = dict(item.lower().split(b": ", 1) for item in lines)
        body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
        request = UpstreamRequest(path.removeprefix(b"/prefix"), b"", body, method)
        self.requests.append(request)
        steps = list(self._fake._answer(request))
        for step in steps:
            if not await self._play(step, writer):
                return False
        return True

    async def _play(self, step: object, writer: asyncio.StreamWriter) -> bool:
        match step:
            case Head():
                writer.write(b"HTTP/1.1 %d X\r\n" % step.status)
                for name, value in step.headers:
                    writer.write(b"%b: %b\r\n" % (name, value))
                writer.write(b"transfer-encoding: chunked\r\n\r\n")
            case Body():
                writer.write(b"%x\r\n%b\r\n" % (len(step.data), step.data))
            case End():
                writer.write(b"0\r\n\r\n")
            case Fail():
                return False
            case Hang():
                await asyncio.Event().wait()
        await writer.drain()
        return True


@contextlib.asynccontextmanager
async def script_server(answer: Answer | None = None) -> AsyncIterator[str]:
    """The base URL of a server that answers so; its paths begin with /prefix."""
    scripts = ScriptServer(answer)
    server = await asyncio.start_server(scripts.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/prefix"
    finally:
        server.close()
        await scripts.stop()
        await server.wait_closed()
