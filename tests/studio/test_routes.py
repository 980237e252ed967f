"""The studio's routes over a fake engine: stories, jobs, streams, panels, pages."""

import base64
import json
import threading

import pytest
from conftest import STORY
from fakes import FakeEngine, Served, text_of


@pytest.fixture
def served(tmp_path, no_flushing):
    with Served(tmp_path) as served:
        yield served


def test_state_tells_what_is_there_and_what_may_be_set(served):
    state = served.get("/api/state")
    assert state["model"]["name"] == "fake" and state["model"]["ready"]
    assert state["limits"] == {"jobs": 32, "candidates": 8, "length": 10000, "body": 8388608}
    assert (state["has_book"], state["has_run"], state["preferences"]) == (True, False, {})
    settings = {setting["name"]: setting for setting in state["settings"]}
    assert settings["temperature"]["default"] == 1.0 and settings["temperature"]["kind"] == "float"
    assert settings["topk"]["kind"] == "int" and "越低越稳" in settings["temperature"]["help"]["zh"]
    assert set(state["presets"]) == {"seed", "steady", "balanced", "bold"} and state["default_preset"] == "balanced"
    assert all(name in settings for preset in state["presets"].values() for name in preset)
    assert served.post("/api/preferences", {"theme": "dark"}) == {"theme": "dark"}
    assert served.get("/api/state")["preferences"] == {"theme": "dark"}


def test_a_story_is_made_listed_changed_and_removed(served):
    story = served.post("/api/stories", {"name": "井边", "text": "第一章 井\n夜里"}, 201)
    assert story["chapters"] == [{"title": "第一章 井", "start": 0}] and story["origins"] == [[8, "root"]]
    reply = served.post(f"/api/stories/{story['id']}/ops", {"base": 1, "ops": [{"replace": [8, 8], "text": "，"}]})
    assert (reply["version"], reply["head"], reply["redo"]) == (2, 1, None)
    assert [node["id"] for node in reply["nodes"]] == [1] and reply["origins"] == [[8, "root"], [1, "typed"]]
    (listed,) = served.get("/api/stories")["stories"]
    assert (listed["name"], listed["characters"], listed["running"]) == ("井边", 9, False)
    assert served.client.delete(f"/api/stories/{story['id']}").status_code == 200
    assert served.get("/api/stories") == {"stories": []}
    assert served.get(f"/api/stories/{story['id']}", 404)["error"]["message"] == f"no story {story['id']}"


def test_undo_and_redo_move_the_head(served):
    story = served.post("/api/stories", {"text": "夜"}, 201)
    path = f"/api/stories/{story['id']}/ops"
    served.post(path, {"base": 1, "ops": [{"replace": [1, 1], "text": "里"}]})
    undone = served.post(path, {"base": 2, "ops": [{"head": 0}]})
    assert (undone["text"], undone["redo"]) == ("夜", 1)
    assert served.post(path, {"base": 3, "ops": [{"head": undone["redo"]}]})["text"] == "夜里"


def test_a_change_of_a_text_that_is_no_longer_shown_is_answered_by_the_story_as_it_is(served):
    story = served.post("/api/stories", {"text": "夜"}, 201)
    path = f"/api/stories/{story['id']}/ops"
    served.post(path, {"base": 1, "ops": [{"replace": [1, 1], "text": "里"}]})
    served.post(path, {"base": 2, "ops": [{"head": 0}]})
    reply = served.post(path, {"base": 2, "ops": [{"replace": [2, 2], "text": "。"}]}, 409)
    assert (reply["version"], reply["head"], reply["text"]) == (3, 0, "夜")
    assert reply["error"]["message"] == "the story was changed elsewhere meanwhile"


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "utf-16", "utf-8-sig"])
def test_a_file_in_any_encoding_becomes_a_story(served, encoding):
    text = "第一章 月落烏啼\r\n那天夜裡沒有月亮，他坐在井邊，數著水裡的星星。\r\n" * 20
    data = base64.b64encode(text.encode(encoding)).decode()
    story = served.post("/api/stories", {"data": data}, 201)
    assert story["text"] == text.replace("\r\n", "\n") and story["origins"] == [[len(story["text"]), "import"]]
    assert story["name"] == "第一章 月落烏啼" and story["encoding"]


@pytest.mark.parametrize("data", ["月", "a", "====", 7, None])
def test_a_file_that_is_no_base64_is_refused(served, data):
    reply = served.post("/api/stories", {"data": data}, 400)
    assert reply["error"]["message"] == "data: not base64"


@pytest.mark.parametrize(
    ("form", "encoding"),
    [("txt", "utf-8"), ("bom", "utf-8-sig"), ("gb18030", "gb18030"), ("html", None), ("json", None)],
)
def test_a_story_is_exported(served, form, encoding):
    text = "夜里\n<script>alert(1)</script>𠮷"
    story = served.post("/api/stories", {"name": '井"边/..', "text": text}, 201)
    reply = served.client.get(f"/api/stories/{story['id']}/export?format={form}")
    assert "filename*=UTF-8''%E4%BA%95%22%E8%BE%B9%2F..." in reply.headers["content-disposition"]
    if encoding:
        assert reply.content.decode(encoding) == text
    elif form == "html":
        assert "<script>" not in reply.text and "<p>&lt;script&gt;alert(1)&lt;/script&gt;𠮷</p>" in reply.text
    else:
        assert reply.json()["nodes"][0]["text"] == text
    assert served.client.get(f"/api/stories/{story['id']}/export?format=exe").status_code == 400


def test_a_job_writes_candidates_that_are_read_from_any_character_on(served):
    story, job = served.begin(candidates=3, seed=5)
    assert job["seed"] == 5 and len(job["nodes"]) == 3
    served.engine.find(job["job"]).advance(12)
    part = served.get(f"/api/jobs/{job['job']}?from=10,12,0")
    assert [candidate["text"] for candidate in part["candidates"]] == [text_of(5, 0, 30)[10:12], "", text_of(5, 2, 12)]
    assert [candidate["characters"] for candidate in part["candidates"]] == [12, 12, 12]
    assert [len(candidate["nats"]) for candidate in part["candidates"]] == [2, 0, 12]
    shown = served.get(f"/api/stories/{story['id']}")
    assert shown["head"] == job["nodes"][0] and shown["text"] == "夜里" + text_of(5, 0, 12)
    assert shown["jobs"] == [{"job": job["job"], "nodes": job["nodes"]}]


def test_rewriting_from_a_place_takes_the_rest_away_and_inserting_keeps_it(served):
    story, job = served.begin("夜里没有月亮", position=2, seed=1, forced="有")
    engine_job = served.engine.find(job["job"])
    assert engine_job.request.prompt == "夜里"
    engine_job.advance(31)
    assert served.get(f"/api/stories/{story['id']}")["text"] == "夜里有" + text_of(1, 0, 30)
    story, job = served.begin("夜里没有月亮", position=2, seed=1, insert=True)
    served.engine.find(job["job"]).advance(30)
    assert served.get(f"/api/stories/{story['id']}")["text"] == "夜里" + text_of(1, 0, 30) + "没有月亮"


def test_a_preset_becomes_its_values_and_what_is_given_itself_wins(served):
    _, job = served.begin(settings={"preset": "steady", "temperature": 0.5})
    settings = served.engine.find(job["job"]).request.settings
    assert settings["temperature"] == 0.5 and settings["topp"] == 0.9 and "preset" not in settings


def test_stop_stops_and_the_story_keeps_what_was_written(served):
    story, job = served.begin(seed=2)
    served.engine.find(job["job"]).advance(7)
    assert served.post(f"/api/jobs/{job['job']}/stop")["state"] == "stopped"
    served.engine.find(job["job"]).advance(7)
    shown = served.get(f"/api/stories/{story['id']}")
    assert shown["text"] == "夜里" + text_of(2, 0, 7) and shown["jobs"] == [] and shown["nodes"][1]["why"] == "stopped"


def events_of(reply) -> list[tuple[str, str, dict]]:
    """Return event, id and data of each event of a stream."""
    found = []
    for block in reply.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


@pytest.mark.parametrize("last_seen", [None, "5,5"])
def test_a_stream_has_every_character_once_from_the_last_one_seen_on(served, last_seen):
    _, job = served.begin(candidates=2, seed=3)
    engine_job = served.engine.find(job["job"])
    engine_job.advance(8)
    threading.Thread(target=lambda: [engine_job.advance() for _ in range(22)]).start()
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_seen} if last_seen else {})
    reply = served.client.get(f"/api/jobs/{job['job']}?from=0,3", headers=headers)
    events, starts = events_of(reply), (5, 5) if last_seen else (0, 3)
    for index, start in enumerate(starts):
        texts = [data["candidates"][index]["text"] for _, _, data in events]
        assert "".join(texts) == text_of(3, index, 30)[start:]
    assert [kind for kind, _, _ in events][-1] == "end" and events[-1][1] == "30,30"
    assert reply.headers["x-accel-buffering"] == "no" and "�" not in reply.text
    assert engine_job.listeners == [served.stories.growth.ask]


def test_a_reader_who_goes_away_stops_nothing(served):
    story, job = served.begin(seed=4)
    engine_job = served.engine.find(job["job"])
    with served.client.stream("GET", f"/api/jobs/{job['job']}?from=99999", headers={"Accept": "application/json"}):
        pass
    engine_job.advance(30)
    assert engine_job.state == "done" and served.get(f"/api/stories/{story['id']}")["text"].endswith(text_of(4, 0, 30))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"length": -1}, "length: found -1, expected a whole number from 1 to 10,000"),
        ({"length": 10**9}, "length: found 1000000000, expected a whole number from 1 to 10,000"),
        ({"candidates": 9}, "candidates: found 9, expected a whole number from 1 to 8"),
        ({"node": 5}, "node: found 5, expected a node of the story"),
        ({"position": 3}, "position: found 3, expected a whole number from 0 to 2"),
        ({"forced": 1}, "forced: found 1, expected text"),
        ({"settings": {"preset": "wild"}}, "preset: found 'wild', expected seed, steady, balanced, bold"),
        ({"settings": {"preset": []}}, "preset: found [], expected seed, steady, balanced, bold"),
        ({"settings": 7}, "preset: found None, expected seed, steady, balanced, bold"),
        ({"ending": "never"}, "ending: found 'never', expected length, sentence, paragraph, chapter"),
        ({"seed": -1}, "seed: found -1, expected a whole number from 0 to 18,446,744,073,709,551,615"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_in_words_and_changes_nothing(served, body, message):
    story = served.post("/api/stories", {"text": "夜里"}, 201)
    reply = served.post("/api/jobs", {"story": story["id"], "node": 0, **body}, 400)
    assert reply["error"]["message"] == message and reply["error"]["hint"]
    assert served.get(f"/api/stories/{story['id']}")["version"] == 1


@pytest.mark.parametrize("arrives", ["before", "behind", "never"])
def test_what_a_page_takes_along_when_it_is_left_is_carried_out_once(served, arrives):
    story = served.post("/api/stories", {"text": "夜"}, 201)
    path = f"/api/stories/{story['id']}/ops"
    first = {"base": 1, "ops": [{"replace": [1, 1], "text": "里"}], "key": "a"}
    last = {"base": 1, "before": first, "ops": [{"replace": [2, 2], "text": "。"}, {"replace": [0, 0], "text": "今"}]}
    if arrives == "before":
        served.post(path, first)
    assert served.post(path, last)["text"] == "今夜里。"
    if arrives == "behind":
        assert served.post(path, first)["text"] == "今夜里。"


@pytest.mark.parametrize("seen", [[], 3, {"a": 1}, {"1": "x"}, {"1": -1}, {"9" * 20: 1}, {"1": 1.5}])
def test_what_a_page_has_seen_must_be_counts(served, seen):
    story = served.post("/api/stories", {"text": "夜"}, 201)
    body = {"base": 1, "ops": [{"replace": [0, 0], "text": "x"}], "seen": seen}
    reply = served.client.post(f"/api/stories/{story['id']}/ops", json=body)
    assert reply.status_code == (200 if seen == [] else 400)


def test_halves_of_characters_and_numbers_that_json_has_not_end_in_words(served):
    half = b'{"name": "\\ud83d", "text": "\\uD83D\\uDE00 \\udfff", "key": "\\ud800"}'
    headers = {"Content-Type": "application/json"}
    reply = served.client.post("/api/stories", content=half, headers=headers)
    assert reply.status_code == 201 and reply.json()["text"] == "😀 \ufffd" and reply.json()["name"] == "\ufffd"
    for body in (b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": [1]}', b'{"a": ' + b"9" * 5000 + b"}"):
        assert served.client.post("/api/preferences", content=body, headers=headers).status_code == 400
    settings = b'{"story": "%s", "node": 0, "settings": {"\\ud83d": 1}}' % reply.json()["id"].encode()
    assert served.client.post("/api/jobs", content=settings, headers=headers).status_code in (202, 400)


def test_the_thirty_third_job_is_refused_and_hundreds_of_requests_leave_32(served):
    story, _ = served.begin()
    body = {"story": story["id"], "node": 0, "length": 5}
    replies = [served.client.post("/api/jobs", json=body).status_code for _ in range(300)]
    assert replies.count(202) == 31 and replies.count(429) == 269
    assert served.post("/api/jobs", body, 429)["error"]["message"] == "32 jobs are waiting, no more can"


def test_errors_are_in_the_language_of_the_reader(served):
    reply = served.get("/api/stories/ffffffff", 404, headers={"Accept-Language": "zh-CN,zh;q=0.9"})
    assert reply["error"] == {"message": "没有故事 ffffffff", "hint": "故事列表里有全部故事"}


def test_typed_text_is_scored_token_by_token(served):
    story = served.post("/api/stories", {"text": "那天夜里"}, 201)
    tokens = served.post("/api/score", {"story": story["id"], "node": 0, "start": 1, "end": 3})["tokens"]
    assert [(token["start"], token["text"]) for token in tokens] == [(1, "天"), (2, "夜")]
    assert tokens[0]["probability"] == pytest.approx(0.60653, abs=1e-5)  # exp(-0.5)
    assert (tokens[0]["rank"], tokens[0]["nats"], len(tokens[0]["top"])) == (1, 0.5, 10)


def test_titles_are_asked_for_without_the_heading_and_each_is_told_once(tmp_path, no_flushing):
    with Served(tmp_path, engine=FakeEngine(rate=1000)) as served:
        story = served.post("/api/stories", {"text": "第一章 井\n夜里\n第二章 剑\n风"}, 201)
        body = {"story": story["id"], "node": 0, "start": 0, "end": 8, "settings": {"preset": "steady"}}
        titles = served.post("/api/titles", body)["titles"]
        (job,) = served.engine.jobs.values()
        assert (job.request.prompt, job.request.mark, job.request.settings["topp"]) == ("夜里", "[TIL]", 0.9)
        assert titles == [text_of(job.seed, index, 40).strip() for index in range(5)]
        assert served.get(f"/api/stories/{story['id']}")["version"] == 1  # nothing is written into the story
        assert served.post("/api/titles", {**body, "end": 99}, 400)["error"]["message"].startswith("end: found 99")


def test_panels_tell_what_the_book_says(served):
    text = "他说：闻人雀的剑只有半截。\n“半截也够用。”她说完了。"
    story = served.post("/api/stories", {"text": text}, 201)
    here = {"story": story["id"], "node": 0}
    (run,) = served.post("/api/copies", {**here, "start": 0, "end": len(text), "least": 20})["runs"]
    assert text[run["start"] : run["end"]] == "闻人雀的剑只有半截。\n“半截也够用。”她说"
    assert (run["chapter"], run["title"], run["place"]) == (1, "第二章 剑", 6)
    assert STORY[1][6:].startswith("闻人雀")
    doctored = served.post("/api/doctor", here)["runs"]
    assert {text[run["start"] : run["end"]] for run in doctored} >= {"完"} and doctored[0]["nearest"] is None
    style = served.post("/api/style", here)
    assert style["figures"] == [] and style["advice"]["en"] == f"200 characters or more have a style, here {len(text)}"
    opening = served.get("/api/openings?text=半截")["openings"][0]
    assert STORY[opening["chapter"]][opening["place"] :].startswith(opening["text"])
    assert served.get("/api/book/2") == {"title": "第三章 潮", "text": STORY[2], "chapters": 3}
    assert "chapter -1" in served.get("/api/book/-1", 400)["error"]["message"]


def test_a_long_text_has_seven_figures_beside_the_books(served):
    story = served.post("/api/stories", {"text": "他走了。" * 100}, 201)
    style = served.post("/api/style", {"story": story["id"], "node": 0})
    assert len(style["figures"]) == 7 and all(set(row["name"]) == {"en", "zh"} for row in style["figures"])
    assert style["figures"][0]["text"] == 3.0 and style["figures"][0]["low"] <= style["figures"][0]["high"]
    assert style["advice"]["en"] and style["advice"]["zh"] != style["advice"]["en"]


def test_without_the_book_every_panel_says_so(tmp_path, no_flushing):
    with Served(tmp_path, book=False) as served:
        story = served.post("/api/stories", {"text": "夜" * 300}, 201)
        for path in ("/api/copies", "/api/style", "/api/doctor"):
            reply = served.post(path, {"story": story["id"], "node": 0}, 400)
            assert reply["error"]["message"] == f"the book of {tmp_path / 'model'} is not at hand"


def test_a_disk_that_takes_nothing_is_told_and_the_story_can_be_exported(served, monkeypatch):
    story, job = served.begin(seed=6)
    served.engine.find(job["job"]).advance(5)

    def refuse(handle, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("novelgpt.studio.journal.os.write", refuse)
        served.engine.find(job["job"]).advance(5)
        version = served.get(f"/api/stories/{story['id']}")["version"]
        ops = {"base": version, "ops": [{"replace": [0, 0], "text": "今"}]}
        reply = served.post(f"/api/stories/{story['id']}/ops", ops, 507)
        assert reply["error"]["message"].endswith("cannot be written: No space left on device")
        assert served.get("/api/state")["error"]["hint"].startswith("free some space")
        exported = served.client.get(f"/api/stories/{story['id']}/export?format=txt")
        assert exported.text == "夜里" + text_of(6, 0, 10)
    assert served.post(f"/api/stories/{story['id']}/ops", ops)["text"] == "今夜里" + text_of(6, 0, 10)
    assert "error" not in served.get("/api/state")


def test_the_page_is_answered_while_the_model_loads(tmp_path, no_flushing):
    with Served(tmp_path, engine=FakeEngine(loading=60)) as served:
        assert served.get("/api/state")["model"]["ready"] is False
        story = served.post("/api/stories", {"text": "夜"}, 201)
        assert served.get(f"/api/stories/{story['id']}")["text"] == "夜"


def test_pages_of_other_commands_are_shown_or_their_command_is_told(tmp_path, no_flushing):
    page = tmp_path / "training.html"
    with Served(
        tmp_path, pages={"/training": lambda: page if page.exists() else None, "/corpus": lambda: None}
    ) as served:
        missing = served.client.get("/training")
        assert missing.status_code == 404 and "python train.py" in missing.text
        page.write_text("<!doctype html><script>1</script>", encoding="utf-8")
        shown = served.client.get("/training")
        assert shown.content == page.read_bytes() and "'unsafe-inline'" in shown.headers["content-security-policy"]
        again = served.client.get("/training", headers={"If-None-Match": shown.headers["etag"]})
        assert again.status_code == 304 and shown.headers["cache-control"] == "no-cache"


def test_thousand_hostile_strings_come_back_as_they_are(served):
    import random

    draw = random.Random(8)
    signs = [
        "<script>",
        "</p>",
        "\u202e",
        "\x00",
        "&amp;",
        "']",
        "\\",
        "\u2028",
        "😀",
        "𠮷",
        "[CLS]",
        "%s",
        "{}",
        "\ufeff",
        "\n",
    ]
    story = served.post("/api/stories", {"text": ""}, 201)
    path, text, version = f"/api/stories/{story['id']}/ops", "", 1
    for _ in range(100):
        new = ["".join(draw.choices(signs, k=draw.randint(1, 6))) for _ in range(10)]
        ops = []
        for part in new:
            ops.append({"replace": [len(text), len(text)], "text": part})
            text += part
        reply = served.post(path, {"base": version, "ops": [*ops, {"name": new[0]}]})
        version = reply["version"]
        assert reply["text"] == text
    assert served.get(f"/api/stories/{story['id']}")["text"] == text
    assert served.client.get(f"/api/stories/{story['id']}/export?format=txt").content.decode() == text
