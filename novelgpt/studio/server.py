"""The server: a port of this machine, the guard in front, the routes behind it, the page, and the engine's thread.

::

    ports bound → address printed → browser opened → answers; meanwhile the engine imports torch and loads the model
"""

import asyncio
import contextlib
import errno
import hashlib
import mimetypes
import socket
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from novelgpt.messages import EXIT_DONE, EXIT_ENVIRONMENT, UserError, say, warn
from novelgpt.studio.bodies import read_body
from novelgpt.studio.dialects import routes
from novelgpt.studio.panels import word
from novelgpt.studio.routes import Api
from novelgpt.studio.security import LOOPBACK, Guard, describe_error
from novelgpt.writing.terminal import StopSignals

STATIC = Path(__file__).with_name("static")
FIRST = 0.3  # seconds for the page, before the model is loaded
THREADS = 64  # that answer; some wait a minute for the index of the book, and typing must not wait behind them
TRIED = 20  # ports, where the one that is wanted is in use
WILDCARDS = ("0.0.0.0", "::", "")
LOOSE = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)  # of pages that carry their own scripts, and a policy of their own by hash
FOREIGN = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)  # of a page of other people that the user has put here
ABSENT = """<!doctype html>
<html lang="zh-CN"><meta charset="utf-8"><title>novelgpt</title><p lang="en">{en}</p><p>{zh}</p></html>
"""


class Pages:
    """What a browser shows: our page, and those that other commands or other people have written.

    Args:
        others: path -> its file, None where there is none: /training, /corpus, /frontend.
    """

    def __init__(self, others: Mapping[str, Callable[[], Path | None]]):
        self.others = others
        self.files = {path.name: path.read_bytes() for path in STATIC.glob("*.*")}
        self.guard: Guard | None = None  # in front of them; knows the token

    def routes(self) -> list[Route]:
        """Return all routes."""
        own = [Route(path, self.page) for path in ("/", "/static/{name}", "/favicon.ico")]
        login = Route("/api/login", self.login, methods=["POST"])
        return [*own, login, *(Route(path, self.other_page) for path in self.others)]

    async def login(self, request: Request) -> Response:
        """Give the page the cookie for the token of the printed address."""
        try:
            token = (await read_body(request)).get("token")
        except UserError as problem:
            return self.refuse(request, problem)
        if not self.guard.is_token(token):
            message = "this is not the token of this server"
            hint = "open the address that studio.py has printed"
            return JSONResponse(
                describe_error(UserError(message, hint), request.headers.get("accept-language", "")), 401
            )
        return JSONResponse({}, headers={"Set-Cookie": self.guard.cookie_header()})

    async def page(self, request: Request) -> Response:
        """Return a file of the page."""
        name = request.path_params.get("name", "index.html" if request.url.path == "/" else "favicon.ico")
        if name not in self.files:
            return JSONResponse(describe_error(UserError(f"no page {name:.40}", "open /"), ""), 404)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return cached(request, self.files[name], "text/javascript" if name.endswith(".js") else kind)

    async def other_page(self, request: Request) -> Response:
        """Return a page that another command has written."""
        path = request.url.path
        if path == "/frontend" and self.guard.is_token(request.query_params.get("token")):
            port = request.url.port or 80
            headers = {"Set-Cookie": self.guard.cookie_header()}
            return RedirectResponse(f"/frontend?local=1&port={port}", 303, headers)
        if path == "/frontend" and not self.guard.knows_token(dict(request.headers)):
            problem = UserError("the token of this server is missing", "open the address that studio.py has printed")
            return JSONResponse(describe_error(problem, request.headers.get("accept-language", "")), 401)
        data = read_page(self.others[path]())
        if data is None:
            told = word("no training page yet; it is written into the run folder by: python train.py --raw")
            if path == "/corpus":
                told = word("no corpus page yet; this writes it: python clr_ctrl.py NOVEL --report data/report.html")
            return Response(ABSENT.format(**told), 404, media_type="text/html")
        policy = FOREIGN if path == "/frontend" else LOOSE
        return cached(request, data, "text/html", {"Content-Security-Policy": policy})


def read_page(path: Path | None) -> bytes | None:
    """Return a page that another command has written; None where there is none."""
    try:
        return path.read_bytes() if path else None
    except OSError:
        return None


def cached(request: Request, data: bytes, kind: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a file that a browser may keep, if it asks each time whether it is still the same."""
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", **(headers or {})}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=kind)


def build_app(api: Api, pages: Pages, *, port: int, token: str, **facts) -> Guard:
    """Return the whole application.

    Args:
        api, pages: its routes, beside those of the dialects.
        port: that it is reached at; the cookie has its name.
        token: that a request must know.
        facts: hosts, origins and where it is on all addresses, see Guard.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        # the port is bound: the page comes first, for nothing else moves while torch is imported
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, "studio"))
        loop.call_later(FIRST, api.engine.start)
        yield
        api.engine.close()
        api.stories.close()

    app = Starlette(routes=[*pages.routes(), *api.routes(), *routes(api.engine)], lifespan=lifespan)
    # a page of other people looks at the token itself, for it may come with its address
    own = [path for path in pages.others if path == "/frontend"]
    pages.guard = Guard(app, token=token, cookie=f"novelgpt_{port}", pages=own, **facts)
    return pages.guard


def bind(host: str, port: int) -> tuple[list[socket.socket], int]:
    """Take a port of this machine, or one of the next ones where it is in use; both addresses of the loopback.

    Returns:
        The sockets, not yet listening, and the port.

    Raises:
        UserError: none is free, or the machine has no such address.
    """
    first = "127.0.0.1" if host == "localhost" else host
    for number in range(port, min(port + TRIED, 65536)):
        try:
            sockets = [open_socket(first, number)]
        except OSError as problem:
            if not is_in_use(problem):
                message = f"--host {host}, --port {port}: {problem.strerror or problem}"
                raise UserError(message, "--host 127.0.0.1 --port 8000", EXIT_ENVIRONMENT) from problem
            continue
        number = sockets[0].getsockname()[1]  # where 0 was asked for, the system has chosen
        if first == "127.0.0.1":
            with contextlib.suppress(OSError):  # a machine without IPv6
                sockets.append(open_socket("::1", number))
        if number != port and port:
            say(f"port {port} is in use, so it is {number}")
        return sockets, number
    message = f"--port {port}: it and the next {TRIED - 1} are in use"
    raise UserError(message, f"--port {min(port + 1000, 60000)}", EXIT_ENVIRONMENT)


def is_in_use(problem: OSError) -> bool:
    """Tell whether another process has an address; Windows calls that forbidden, too."""
    return problem.errno in (errno.EADDRINUSE, getattr(errno, "WSAEACCES", None))


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that has an address of this machine, for itself alone."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets others have it too
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just given back
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((host, port))
        opened.listen(128)  # only now another process that has it is noticed
    except OSError:
        opened.close()
        raise
    return opened


def names_of(host: str, port: int) -> list[str]:
    """Return the values of the header Host that mean a server.

    >>> names_of("127.0.0.1", 8000)
    ['127.0.0.1:8000', 'localhost:8000', '[::1]:8000']
    """
    names = list(LOOPBACK)
    if host in WILDCARDS:
        with contextlib.suppress(OSError):
            names += [socket.gethostname(), *socket.gethostbyname_ex(socket.gethostname())[2]]
    elif host not in (*LOOPBACK, "::1"):
        names.append(f"[{host}]" if ":" in host else host)
    return [f"{name}:{port}" for name in names] + (names if port == 80 else [])


def address_of(host: str, port: int) -> str:
    """Return the address of a server for the browser of this machine, or, of one on all addresses, for others too.

    >>> address_of("localhost", 8000), address_of("::1", 8000), address_of("192.168.1.7", 80)
    ('http://127.0.0.1:8000', 'http://[::1]:8000', 'http://192.168.1.7:80')
    """
    names = names_of(host, port)
    if host in ("127.0.0.1", "localhost", "::1"):
        return f"http://{names[2 if host == '::1' else 0]}"
    return f"http://{[name for name in names if name.endswith(f':{port}')][-1]}"


def serve(app: Guard, sockets: list[socket.socket], *, url: str, opens_browser: bool) -> int:
    """Answer until a signal comes; return the exit status.

    Args:
        app: the whole application.
        sockets: from bind.
        url: with the token, printed and opened.
        opens_browser: whether it is.
    """
    config = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=1
    )
    say(f"the studio is at {url}")
    if opens_browser:
        # it waits for the first answer; some browsers keep the call until they are closed
        threading.Thread(target=open_browser, args=(url,), daemon=True).start()
    with StopSignals() as stop:
        server = uvicorn.Server(config)
        go_on = server.on_tick

        async def on_tick(counter: int) -> bool:
            # uvicorn itself sees Ctrl-C and SIGTERM, and not that the terminal was closed
            return await go_on(counter) or stop.is_set()

        server.on_tick = on_tick
        server.run(sockets=sockets)
    return stop.status if stop.is_set() else EXIT_DONE


def open_browser(url: str) -> None:
    """Show a page in the browser, where there is one."""
    try:
        is_open = webbrowser.open(url)
    except webbrowser.Error:
        is_open = False
    if not is_open:
        warn("no browser was found; open the address above")
