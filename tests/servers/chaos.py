"""What goes wrong between a client and an object store? A proxy that does it, request by request.

It stands in front of any server of this machine, looks at each request's method and path, and does what the
first matching fault says. It counts requests and bytes, so that a test can hold a command to what it fetches.
"""

import asyncio
import random
import re
import socket
import struct
import threading
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Literal

Action = Literal[
    "status",  # answer with Fault.status at once; the server never sees the request
    "reset",  # read the request, then reset the connection: the server never sees it
    "reset upload",  # reset in the middle of the request's body: the server never sees it
    "lost answer",  # the server does as asked, then the connection is reset instead of its answer
    "reset in body",  # half of the answer's body, then a reset
    "short body",  # half of the answer's body, then an orderly end
    "reset after body",  # the whole answer, then a reset where the client expects to ask again
    "slow body",  # the answer's body in 16 pieces, a pause of Fault.seconds before each
    "latency",  # wait Fault.seconds, then do as asked
]
ACTIONS = Action.__args__  # type: ignore[attr-defined]

CHUNK = 1 << 16
REASONS = {429: "Too Many Requests", 500: "Internal Server Error", 503: "Slow Down", 403: "Forbidden"}
CODES = {429: "TooManyRequests", 500: "InternalError", 503: "SlowDown", 403: "AccessDenied"}

EVER = range(1, 1 << 62)


@dataclass
class Fault:
    """An action for the requests whose `METHOD /path?query` matches; `when` counts those from 1."""

    match: str
    action: Action
    when: Container[int] = EVER
    status: int = 503
    retry_after: int | None = None
    seconds: float = 0.0
    matched: int = 0

    def strikes(self, line: str) -> bool:
        if not re.search(self.match, line):
            return False
        self.matched += 1
        return self.matched in self.when


@dataclass
class Exchange:
    """A request that came in, and what became of it."""

    line: str  # METHOD /path?query
    headers: dict[str, str]  # of the request, names in lower case
    action: Action | None
    status: int = 0  # 0 where no answer was sent
    received: int = 0  # bytes of the request's body
    sent: int = 0  # bytes of the answer's body


class Gone(Exception):
    """The connection to the client is over."""


@dataclass
class Proxy:
    """A proxy on a port of its own in front of one server; usable as a context manager.

    faults: may be changed at any time; each request looks at them anew.
    strip: names of request headers that the server never sees: without the conditions and the range it is a
        hostile store that overwrites what it was asked to create, and sends all when asked for a part.
    """

    upstream: int
    faults: list[Fault] = field(default_factory=list)
    strip: frozenset[str] = frozenset()
    exchanges: list[Exchange] = field(default_factory=list)
    dice: random.Random | None = None  # with `odds`: faults by chance, after those of the list
    odds: dict[Action, float] = field(default_factory=dict)
    spared: str = "^$"  # requests that no chance strikes
    most: int = 1 << 62  # faults by chance, after which all goes well
    struck: int = 0
    port: int = 0

    def __enter__(self) -> "Proxy":
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task] = set()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._connection, "127.0.0.1", 0, limit=1 << 20)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def fail(self, match: str, action: Action, **more: object) -> Fault:
        """Add a fault; its `matched` counts the requests that it looked at."""
        self.faults.append(fault := Fault(match, action, **more))
        return fault

    def requests(self, match: str = "") -> list[Exchange]:
        return [each for each in self.exchanges if re.search(match, each.line)]

    def sent(self, match: str = "") -> int:
        """Bytes of the bodies that were sent in answer to matching requests."""
        return sum(each.sent for each in self.requests(match))

    async def _close(self) -> None:
        self._server.close()
        # A connection that was accepted a moment ago has to begin, or nothing would close it.
        await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports that were closed lose their connections

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                await self._exchange(reader, writer)
        except (Gone, asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()
            self._tasks.discard(task)

    def _choose(self, line: str) -> Fault | None:
        struck = [fault for fault in self.faults if fault.strikes(line)]
        if struck or self.dice is None or self.struck >= self.most or re.search(self.spared, line):
            return struck[0] if struck else None
        for action, odds in self.odds.items():
            if self.dice.random() < odds:
                self.struck += 1
                return Fault("", action, status=self.dice.choice((503, 500, 429)), seconds=0.002)
        return None

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer; raises Gone where the connection is not to be used again."""
        head = await reader.readuntil(b"\r\n\r\n")
        line = " ".join(head.split(b"\r\n", 1)[0].decode().split(" ")[:2])
        headers = _headers(head)
        fault = self._choose(line)
        exchange = Exchange(line, headers, fault.action if fault else None)
        self.exchanges.append(exchange)
        if headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault and fault.action == "reset upload":
            await reader.readexactly(int(headers.get("content-length", 0)) // 2)
            _reset(writer)
        body = await _body(reader, headers)
        exchange.received = len(body)
        if fault and fault.action in ("latency", "slow body"):
            await asyncio.sleep(fault.seconds)
        if fault and fault.action == "reset":
            _reset(writer)
        if fault and fault.action == "status":
            await _refuse(writer, exchange, fault)
            return
        forwarded = _without(head, {"connection", "expect", *self.strip})
        await self._forward(forwarded + b"Connection: close\r\n\r\n" + body, writer, exchange, fault)
        if fault and fault.action == "reset after body":
            await reader.read(1)  # of the next request: a reset before it could overtake the answer
            _reset(writer)

    async def _forward(
        self, request: bytes, writer: asyncio.StreamWriter, exchange: Exchange, fault: Fault | None
    ) -> None:
        """Ask the server, on a connection for this request alone, and hand on its answer."""
        there, request_writer = await asyncio.open_connection("127.0.0.1", self.upstream, limit=1 << 20)
        try:
            request_writer.write(request)
            await request_writer.drain()
            head = await there.readuntil(b"\r\n\r\n")
            while head.startswith(b"HTTP/1.1 100"):
                head = await there.readuntil(b"\r\n\r\n")
            if fault and fault.action == "lost answer":
                await there.read()  # to the end: the server is done with it
                _reset(writer)
            await _answer(there, head, writer, exchange, fault)
        finally:
            request_writer.close()


def _headers(head: bytes) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in head.decode("latin-1").split("\r\n")[1:] if ":" in line)
    return {name.lower(): value.strip() for name, value in pairs}


def _without(head: bytes, names: Container[str]) -> bytes:
    """A head without those headers and without the blank line at its end."""
    first, *rest = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept = [line for line in rest if line.split(b":")[0].decode("latin-1").lower() not in names]
    return b"".join(line + b"\r\n" for line in (first, *kept))


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """The body of a request as it stands on the wire, chunks and all."""
    if "chunked" not in headers.get("transfer-encoding", "").lower():
        return await reader.readexactly(int(headers.get("content-length", 0)))
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        body += size + await reader.readexactly(int(size.split(b";")[0], 16) + 2)
        if int(size.split(b";")[0], 16) == 0:
            return body


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection by RST: without the option, abort() sends an orderly FIN."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
    raise Gone


async def _refuse(writer: asyncio.StreamWriter, exchange: Exchange, fault: Fault) -> None:
    code = CODES.get(fault.status, "Error")
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
    more = f"Retry-After: {fault.retry_after}\r\n" if fault.retry_after is not None else ""
    head = (
        f"HTTP/1.1 {fault.status} {REASONS.get(fault.status, 'No')}\r\n{more}"
        f"Content-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    without_body = exchange.line.startswith("HEAD")
    exchange.status, exchange.sent = fault.status, 0 if without_body else len(body)
    writer.write(head.encode() + (b"" if without_body else body))
    await writer.drain()


async def _answer(
    there: asyncio.StreamReader,
    head: bytes,
    writer: asyncio.StreamWriter,
    exchange: Exchange,
    fault: Fault | None,
) -> None:
    exchange.status = int(head.split(b" ", 2)[1])
    headers = _headers(head)
    writer.write(_without(head, {"connection", "keep-alive"}) + b"\r\n")
    if exchange.line.startswith("HEAD") or exchange.status in (204, 304):
        await writer.drain()
    else:
        await _answer_body(there, headers, writer, exchange, fault)


async def _answer_body(
    there: asyncio.StreamReader,
    headers: dict[str, str],
    writer: asyncio.StreamWriter,
    exchange: Exchange,
    fault: Fault | None,
) -> None:
    """Copy a body: to its length, or to the server's end of connection where it says none."""
    length = int(headers["content-length"]) if "content-length" in headers else None
    action = fault.action if fault else None
    cut = action in ("reset in body", "short body")
    limit = (length or 0) // 2 if cut else length
    step = max((length or 0) // 16, 1) if action == "slow body" else CHUNK
    while limit is None or exchange.sent < limit:
        piece = await there.read(step if limit is None else min(step, limit - exchange.sent))
        if not piece:
            break
        if fault and action == "slow body":
            await asyncio.sleep(fault.seconds)
        writer.write(piece)
        await writer.drain()
        exchange.sent += len(piece)
    if action == "reset in body":
        await asyncio.sleep(0.01)  # a reset overtakes what still waits to be sent
        _reset(writer)
    is_chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    if cut or (length is None and not is_chunked) or (length is not None and exchange.sent < length):
        raise Gone
