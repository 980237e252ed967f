"""Who may talk to the server: hosts, origins, methods, kinds of bodies, the token, headers."""

import itertools

import pytest
from fakes import TOKEN, Served
from starlette.testclient import TestClient

from novelgpt.studio.security import MOST_BYTES, language_of, read_token
from novelgpt.studio.server import names_of

OWN_HOSTS = ("127.0.0.1:8000", "localhost:8000", "[::1]:8000")
HOSTS = dict.fromkeys(OWN_HOSTS, True)
HOSTS |= dict.fromkeys(
    ("evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:80", "127.0.0.1.evil.example:8000"), False
)
ORIGINS = {None: True, "own": True, "https://evil.example": False, "null": False, "http://127.0.0.1:9999": False}
KINDS = {"application/json": 200, "application/json; charset=utf-8": 200, "text/plain": 415}
KINDS |= {"application/x-www-form-urlencoded": 415, "multipart/form-data; boundary=x": 415}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served")) as served:
        served.client.headers.pop("authorization")
        yield served


def with_token(**headers) -> dict:
    return {"Authorization": f"Bearer {TOKEN}", **headers}


def test_the_matrix_of_hosts_origins_and_kinds_lets_only_our_own_in(served):
    """8 hosts x 5 origins x (1 GET + 5 kinds of POST) = 240 requests, each refused for what is wrong first."""
    count = 0
    for (host, is_host), (origin, is_origin) in itertools.product(HOSTS.items(), ORIGINS.items()):
        headers = with_token(Host=host)
        if origin:
            headers["Origin"] = f"http://{host}" if origin == "own" else origin
        is_let_in = is_host and is_origin
        reply = served.client.get("/api/state", headers=headers)
        assert reply.status_code == (200 if is_let_in else 403), (host, origin)
        count += 1
        for kind, status in KINDS.items():
            headers["Content-Type"] = kind
            reply = served.client.post("/api/preferences", content=b"{}", headers=headers)
            assert reply.status_code == (status if is_let_in else 403), (host, origin, kind)
            count += 1
    assert count == 240
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    ("site", "status"),
    [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403), ("nonsense", 403)],
)
def test_what_a_browser_tells_of_the_asking_page_counts(served, site, status):
    assert served.client.get("/api/state", headers=with_token(**{"Sec-Fetch-Site": site})).status_code == status


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "OPTIONS", "CONNECT", "E", "BREW"])
def test_other_methods_are_refused(served, method):
    assert served.client.request(method, "/api/state", headers=with_token()).status_code == 405


def test_a_name_that_was_made_to_point_here_reads_nothing(served):
    """DNS rebinding: the browser believes evil.example is the origin, so it sends that Host and no foreign Origin."""
    headers = with_token(Host="evil.example:8000", **{"Sec-Fetch-Site": "same-origin"})
    for path in ("/", "/api/state", "/api/stories", "/static/index.html", "/v1/models", "/nowhere"):
        reply = served.client.get(path, headers=headers)
        assert reply.status_code == 403 and "127.0.0.1:8000" in reply.json()["error"]["message"]


PATHS = [
    ("GET", "/api/state"), ("GET", "/api/stories"), ("POST", "/api/stories"), ("GET", "/api/stories/00000000"),
    ("DELETE", "/api/stories/00000000"), ("POST", "/api/stories/00000000/ops"), ("GET", "/api/book/0"),
    ("GET", "/api/stories/00000000/export"), ("POST", "/api/jobs"), ("GET", "/api/jobs/1"),
    ("POST", "/api/jobs/1/stop"),
    ("POST", "/api/score"), ("POST", "/api/copies"), ("POST", "/api/style"), ("POST", "/api/doctor"),
    ("POST", "/api/preferences"), ("GET", "/api/openings"), ("GET", "/training"), ("GET", "/corpus"),
    ("GET", "/v1/models"), ("GET", "/nowhere"), ("GET", "/static"), ("GET", "/api/login/../state"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_the_token_no_route_answers(served, method, path):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Cookie": "novelgpt_8000=wrong"}):
        reply = served.client.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert reply.status_code == 401, headers
        assert reply.json()["error"]["hint"] == "open the address that studio.py has printed; it ends with #token=…"
    assert served.client.get("/api/state", headers={"Cookie": f"novelgpt_9000={TOKEN}"}).status_code == 401


def test_the_page_gets_a_cookie_for_the_token_and_no_script_can_read_it(tmp_path):
    with Served(tmp_path) as served, TestClient(served.app, base_url="http://127.0.0.1:8000") as browser:
        assert browser.post("/api/login", json={"token": "wrong"}).status_code == 401
        assert browser.post("/api/login", json={"token": None}).status_code == 401
        assert browser.get("/api/state").status_code == 401
        reply = browser.post("/api/login", json={"token": TOKEN})
        assert reply.status_code == 200
        words = reply.headers["set-cookie"].split("; ")
        assert words[0] == f"novelgpt_8000={TOKEN}" and {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(words)
        assert browser.get("/api/state").status_code == 200


def test_every_answer_has_the_headers_that_keep_a_page_to_itself(served):
    for path, headers in (
        ("/", {}),
        ("/api/state", with_token()),
        ("/api/state", {}),
        ("/api/state", {"Host": "evil"}),
    ):
        reply = served.client.get(path, headers=headers)
        assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS, (path, headers)


def test_a_body_that_is_too_large_or_of_unknown_length_is_refused_before_it_is_read(served):
    def endless():
        yield b"{"
        raise AssertionError("nobody should read this")

    headers = with_token(**{"Content-Type": "application/json"})
    reply = served.client.post("/api/stories", content=b"x", headers={**headers, "Content-Length": "104857600"})
    assert reply.status_code == 413
    assert reply.json()["error"]["message"] == "a body of 104,857,600 bytes, expected at most 8,388,608"
    assert served.client.post("/api/stories", content=endless(), headers=headers).status_code == 411
    for size in ("-1", "1e3", "٣"):
        reply = served.client.post(
            "/api/stories", content=b"x", headers=[*headers.items(), ("Content-Length", size.encode())]
        )
        assert reply.status_code == 411
    assert MOST_BYTES == 8 << 20


@pytest.mark.parametrize("body", [b"[", b"[]", b"1", b'"x"', b"\xff", b"null", b"[" * 100_000, b'{"a":' * 50_000])
def test_what_is_no_json_object_is_refused_in_words(served, body):
    headers = with_token(**{"Content-Type": "application/json"})
    for path in ("/api/stories", "/api/jobs", "/api/preferences", "/api/score"):
        reply = served.client.post(path, content=body, headers=headers)
        assert reply.status_code == 400
        assert reply.json()["error"]["message"] == "the body of the request is no JSON object"


def test_a_named_origin_may_use_the_api_and_no_other(tmp_path):
    with Served(tmp_path, origins=("https://writer.example", "null")) as served:
        headers = with_token(Origin="https://writer.example", **{"Sec-Fetch-Site": "cross-site"})
        reply = served.client.get("/api/state", headers=headers)
        assert reply.status_code == 200 and reply.headers["access-control-allow-origin"] == "https://writer.example"
        assert reply.headers["vary"] == "Origin"
        assert served.client.get("/api/state", headers={**headers, "Origin": "null"}).status_code == 200
        asked = {"Origin": "https://writer.example", "Access-Control-Request-Method": "POST"}
        preflight = served.client.options("/v1/completions", headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-headers"] == "authorization, content-type"
        for origin in ("https://evil.example", "http://writer.example", "https://writer.example.evil", "*"):
            assert served.client.get("/api/state", headers={**headers, "Origin": origin}).status_code == 403
            assert served.client.options("/v1/completions", headers={**asked, "Origin": origin}).status_code == 403


@pytest.mark.parametrize(
    "path", ["/static/../routes.py", "/static/%2e%2e/routes.py", "/static/..%2froutes.py", "/static/%00",
             "/static/.token",
             "/api/stories/..", "/api/stories/%2e%2e%2f%2e%2e", "/api/book/..%2f..%2fetc", "/api/jobs/..%2f"]
)  # fmt: skip
def test_no_path_comes_from_a_request(served, path):
    reply = served.client.get(path, headers=with_token())
    assert reply.status_code in (400, 404, 405), path


def test_a_websocket_is_refused(served):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), served.client.websocket_connect("/api/state", headers=with_token()):
        pass


def test_the_page_of_another_program_gets_the_cookie_by_its_address(tmp_path):
    page = tmp_path / "lite.html"
    page.write_text("<script>fetch('/api/v1/model')</script>", encoding="utf-8")
    pages = {"/training": lambda: None, "/corpus": lambda: None, "/frontend": lambda: page}
    with Served(tmp_path, pages=pages) as served:
        browser = TestClient(served.app, base_url="http://127.0.0.1:8000", follow_redirects=False)
        assert browser.get("/frontend").status_code == 401
        assert browser.get("/frontend?token=wrong").status_code == 401
        reply = browser.get(f"/frontend?token={TOKEN}")
        assert reply.status_code == 303 and reply.headers["location"] == "/frontend?local=1&port=8000"
        shown = browser.get("/frontend?local=1&port=8000")
        assert shown.text == page.read_text() and "connect-src 'self'" in shown.headers["content-security-policy"]


def test_the_token_of_a_folder_is_kept_and_only_its_owner_reads_it(tmp_path):
    token = read_token(tmp_path)
    assert len(token) == 32 and int(token, 16) >= 0 and read_token(tmp_path) == token
    assert (tmp_path / ".token").stat().st_mode & 0o077 == 0


def test_names_of_a_server_on_all_addresses_are_those_of_the_machine(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "desk")
    monkeypatch.setattr("socket.gethostbyname_ex", lambda name: (name, [], ["192.168.1.7"]))
    assert names_of("0.0.0.0", 8000) == [*OWN_HOSTS, "desk:8000", "192.168.1.7:8000"]
    assert names_of("192.168.1.7", 80)[-4:] == ["127.0.0.1", "localhost", "[::1]", "192.168.1.7"]


def test_on_all_addresses_any_address_in_figures_is_ours_and_no_foreign_name(tmp_path, no_flushing):
    hosts = ["127.0.0.1:8000"]
    asked = {"10.1.2.3:8000": 200, "[fe80::7]:8000": 200, "10.1.2.3:80": 403, "evil.example:8000": 403,
             "10.1.2.3.evil.example:8000": 403, "10.1.2.3": 403}  # fmt: skip
    for everywhere, expected in ((8000, asked), (None, dict.fromkeys(asked, 403))):
        with Served(tmp_path, hosts=hosts, everywhere=everywhere) as served:
            for host, status in expected.items():
                assert served.client.get("/api/state", headers={"Host": host}).status_code == status, host


def test_the_language_is_the_first_one_of_ours():
    assert [language_of(text) for text in ("zh-TW", "fr, zh", "en-US,zh", "", "*")] == ["zh", "zh", "en", "en", "en"]
