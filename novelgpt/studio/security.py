"""Who may talk to the server: this machine's own pages, and programs that know the token. Everybody else is refused.

A page of any web site may send requests to this machine, and a name of its own may be made to point here (DNS
rebinding). So every request is looked at before it reaches a route::

    Host             one of our names, else 403          Origin, Sec-Fetch-Site   our own pages, else 403
    Content-Type     of a POST: JSON, else 415           Content-Length           there, and not too large: 411, 413
    token            as a cookie or `Authorization: Bearer`, else 401; but for the page itself, which has none yet
"""

import contextlib
import ipaddress
import json
import secrets
from collections.abc import Collection, Iterable
from pathlib import Path

from starlette.requests import cookie_parser

from novelgpt.files import write_text
from novelgpt.languages import choose_language, to_chinese
from novelgpt.messages import UserError, as_started

MOST_BYTES = 8 << 20  # of a request's body
METHODS = ("GET", "HEAD", "POST", "DELETE")
TOKEN_FILE = ".token"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
OPEN_PATHS = ("/", "/api/login", "/favicon.ico")  # and what is in /static/: nothing in them is anybody's
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Refusal(Exception):
    """A request that no route sees.

    Args:
        status: of the answer.
        problem: what is told.
    """

    def __init__(self, status: int, message: str, hint: str):
        super().__init__(status, message, hint)
        self.status, self.problem = status, UserError(message, hint)


def language_of(accepted: str) -> str:
    """Return the language, "zh" or "en", of a header Accept-Language.

    >>> language_of("zh-CN,zh;q=0.9,en;q=0.8"), language_of("de, en;q=0.5, zh;q=0.1"), language_of("")
    ('zh', 'en', 'en')
    """
    return choose_language(":".join(part.partition(";")[0].strip() for part in accepted.split(",")))


def describe_error(problem: UserError, accepted: str) -> dict:
    """Return an error as every route answers it, in the language of a header Accept-Language."""
    word = to_chinese if language_of(accepted) == "zh" else str
    return {"error": {"message": word(as_started(problem.message)), "hint": word(as_started(problem.hint))}}


def read_token(folder: str | Path) -> str:
    """Return the token of a folder of stories, 128 bits, made where there is none; open pages outlive the server.

    Raises:
        UserError: the folder cannot be written to.
    """
    path = Path(folder) / TOKEN_FILE
    token = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if len(token) != 32:
        token = secrets.token_hex(16)
        write_text(path, token)
        path.chmod(0o600)
    return token


class Guard:
    """An ASGI application in front of another one.

    Args:
        app: the one behind it.
        token: that a request must know.
        hosts: values of the header Host that mean this server.
        cookie: its name; servers on two ports share their cookies.
        origins: of other pages that may use the API, for example "https://writer.example".
        pages: paths, beside our own page, that look at the token themselves.
        everywhere: the port of a server on all addresses of the machine: any address in figures is ours then, for only
            a name can be made to point here.
    """

    def __init__(
        self,
        app,
        *,
        token: str,
        hosts: Iterable[str],
        cookie: str,
        origins: Collection[str] = (),
        pages: Collection[str] = (),
        everywhere: int | None = None,
    ):
        self.app, self.token, self.cookie = app, token, cookie
        self.hosts = {host.lower() for host in hosts} | {origin.partition("://")[2].lower() for origin in origins}
        self.everywhere = everywhere
        self.origins, self.open_paths = frozenset(origins), (*OPEN_PATHS, *pages)

    async def __call__(self, scope, receive, send) -> None:
        """Answer a request or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get("origin", "")
        extra = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin in self.origins else {}

        async def send_more(message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                more = {"Content-Security-Policy": POLICY, **HEADERS, **extra}
                new = [(name.encode(), value.encode("latin-1")) for name, value in more.items()]
                message["headers"] = [*message["headers"], *(row for row in new if row[0].lower() not in there)]
            await send(message)

        try:
            if scope["type"] != "http":
                raise Refusal(403, "only plain HTTP is spoken here", "send a GET or POST request")
            self.check(scope["method"], scope["path"], headers)
        except Refusal as refusal:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await answer(
                    send_more, refusal.status, describe_error(refusal.problem, headers.get("accept-language", ""))
                )
            return
        if scope["method"] == "OPTIONS":
            extra |= {"Access-Control-Allow-Methods": ", ".join(METHODS), "Access-Control-Max-Age": "600"}
            extra |= {"Access-Control-Allow-Headers": "authorization, content-type"}
            await answer(send_more, 204, None)
            return
        await self.app(scope, receive, send_more)

    def check(self, method: str, path: str, headers: dict[str, str]) -> None:
        """Raise Refusal where a request may not go on."""
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if host not in self.hosts and not (self.everywhere and is_address(host, self.everywhere)):
            message = f"Host: found {host!r:.60}, expected {', '.join(sorted(self.hosts)[:4])}"
            raise Refusal(403, message, "open the address that studio.py has printed")
        # another site's page; a browser tells on whose behalf it asks, a program says nothing
        is_named = origin in self.origins
        is_own = origin is None or origin in (f"http://{host}", f"https://{host}")
        if not is_named and (not is_own or headers.get("sec-fetch-site", "none") not in ("none", "same-origin")):
            message = f"a page of another site asks: {origin or headers['sec-fetch-site']!r:.60}"
            raise Refusal(403, message, "--allow_origin lets a page of another origin in")
        if method == "OPTIONS" and is_named:
            return
        if method not in METHODS:
            raise Refusal(
                405, f"method {method:.20}, expected GET, POST or DELETE", "docs/journal.md has every request"
            )
        check_body(method, headers)
        if path not in self.open_paths and not path.startswith("/static/") and not self.knows_token(headers):
            message = "the token of this server is missing"
            raise Refusal(401, message, "open the address that studio.py has printed; it ends with #token=…")

    def knows_token(self, headers: dict[str, str]) -> bool:
        """Tell whether a request has the token, as a cookie or in the header Authorization."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        found = [given.strip()] if kind.lower() == "bearer" else []
        cookies = cookie_parser(headers.get("cookie", ""))  # other programs of this machine put theirs beside it
        found += [cookies[self.cookie]] if self.cookie in cookies else []
        return any(self.is_token(text) for text in found)

    def is_token(self, text: object) -> bool:
        """Tell whether a text is the token, in a time that tells nothing about it."""
        return isinstance(text, str) and secrets.compare_digest(text.encode("utf-8", "replace"), self.token.encode())

    def cookie_header(self) -> str:
        """Return the header that gives the token to our page."""
        return f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000"


def is_address(host: str, port: int) -> bool:
    """Tell whether a header Host is an address in figures with a port.

    >>> is_address("192.168.1.7:8000", 8000), is_address("[fe80::1]:8000", 8000), is_address("192.168.1.7", 80)
    (True, True, True)
    >>> is_address("192.168.1.7.evil.example:8000", 8000), is_address("192.168.1.7:8001", 8000)
    (False, False)
    """
    name = host.removesuffix(f":{port}")
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name[1:-1] if name.startswith("[") else name)
        return name != host or port == 80
    return False


def check_body(method: str, headers: dict[str, str]) -> None:
    """Raise Refusal for a body that is too large or no JSON; a POST without one needs no type."""
    if method != "POST":
        return
    size = headers.get("content-length", "")
    if not size.isdecimal():
        raise Refusal(411, "Content-Length: missing", "send the length of the body")
    if int(size) > MOST_BYTES:
        raise Refusal(413, f"a body of {int(size):,} bytes, expected at most {MOST_BYTES:,}", "send less at a time")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and (kind or int(size)):
        raise Refusal(415, f"Content-Type: found {kind!r:.60}, expected application/json", "send JSON")


async def answer(send, status: int, body: dict | None) -> None:
    """Send a short answer."""
    data = b"" if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
