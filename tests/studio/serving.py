"""A server of the dialects on a port of this machine."""

import contextlib
import threading
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from novelgpt.studio.dialects import routes


@contextlib.contextmanager
def serving(engine) -> Iterator[str]:
    """Serve the dialects of an engine, and yield the address."""
    config = uvicorn.Config(Starlette(routes=routes(engine)), host="127.0.0.1", port=0, log_level="error")
    server, started = uvicorn.Server(config), threading.Event()
    startup = server.startup

    async def start(*arguments, **more) -> None:
        await startup(*arguments, **more)
        started.set()

    server.startup = start
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert started.wait(20)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()
