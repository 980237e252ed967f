"""The writing page in a real browser, on the real server over a made-up engine: what a person does with it."""

import contextlib
import copy
import gzip
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest
from conftest import BROWSER, QUIET, ROOT, find_barriers
from helpers import save_model_and_book
from world import World

from novelgpt.messages import UserError
from novelgpt.writing.book import Book

pytestmark = pytest.mark.browser
STATIC = ROOT / "novelgpt" / "studio" / "static"
OPENING = "第一章 井\n那天夜里没有月亮。"
WAIT = 30  # seconds until something counts as not happening


@pytest.fixture
def world(tmp_path, monkeypatch, no_flushing):
    """The server; what it knows."""
    with World(tmp_path, monkeypatch).serving() as known:
        yield known


def text_of(page) -> str:
    """Return the text as it stands on the page."""
    return page.evaluate("Array.from(document.querySelectorAll('#text > p'), (p) => p.textContent).join('\\n')")


def until(condition, what: str, wait: float = WAIT):
    """Wait until `condition()` is true and return its value."""
    end = time.monotonic() + wait
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {wait} seconds: {what}")


def until_same(page, world):
    """Wait until page and server have the same text and nothing is being written; return it."""

    def is_same():
        idle = all(job.is_ended for job in world.jobs)
        return idle and page.is_disabled("#stop") and text_of(page) == world.text()

    until(is_same, "page and server the same")
    return text_of(page)


@pytest.fixture
def begin(world, open_page):  # in this order: the pages are closed before the server
    """Return a function that opens the page on a story."""

    def open_story(text=OPENING, language="zh-CN", **settings):
        if not world.kept.open:
            world.make_story(text)
        page = open_page(world.address, language=language, **settings)
        page.set_default_timeout(1000 * WAIT)
        page.wait_for_selector("body[data-ready]")
        return page

    return open_story


def put_caret(page, position: int) -> None:
    """Put the caret before a character, as a click would."""
    page.focus("#text")
    page.keyboard.press("Control+Home")
    for _ in range(position):
        page.keyboard.press("ArrowRight")


def compose(page, *steps: str, commit: str) -> None:
    """Write with an input method: what is shown on the way, then what is taken."""
    session = page.context.new_cdp_session(page)
    for step in steps:
        session.send("Input.imeSetComposition", {"text": step, "selectionStart": len(step), "selectionEnd": len(step)})
    session.send("Input.insertText", {"text": commit})


def candidates(page, count: int) -> None:
    """Ask for so many candidates from now on."""
    page.click("#tab-settings")
    page.locator("#setting-list input[type=range]").first.fill(str(count))


def test_an_hour_of_a_person(begin, world, tmp_path):
    page = begin()
    assert text_of(page) == OPENING
    # continue, three candidates at once, and take the third
    candidates(page, 3)
    page.keyboard.press("Control+Enter")
    until(lambda: len(text_of(page)) > len(OPENING) + 5, "the first characters")
    until_same(page, world)
    rows = page.locator("#candidate-list button")
    assert rows.count() == 3
    third = page.locator("#candidate-list button").nth(2).locator("span").inner_text()
    page.keyboard.press("Alt+3")
    until(lambda: text_of(page) == OPENING + third, "the third candidate")
    assert rows.nth(2).get_attribute("aria-pressed") == "true"
    assert page.inner_text("#version") == "3/3"
    # rewrite from the second sentence on
    candidates(page, 1)
    put_caret(page, 10)
    page.click("#rewrite")
    until(lambda: len(world.jobs) == 2, "another job")
    rewritten = until_same(page, world)
    assert rewritten.startswith(OPENING[:10]) and rewritten != OPENING + third and len(rewritten) == 210
    # type with an input method, and plainly
    page.focus("#text")
    page.keyboard.press("Control+End")
    compose(page, "y", "yue", commit="月")
    page.keyboard.type("亮出来了")
    typed = until_same(page, world)
    assert typed == rewritten + "月亮出来了"
    # undo ten times, as far as there is something to undo, and come back on another branch
    for _ in range(10):
        page.keyboard.press("Control+z")
    until(lambda: text_of(page) == OPENING, "everything undone")
    assert page.is_disabled("#undo")
    branches = page.locator("#branch-list button.model")
    assert branches.count() == 3  # what was rewritten goes on from the third
    branches.nth(1).click()
    second = until(lambda: text_of(page) != OPENING and text_of(page), "the second candidate")
    # it copies the book: marked, listed, and the place opens
    page.wait_for_selector("#text .copy")
    page.click("#tab-copies")
    until(lambda: page.locator("#copy-list button").count() == 6, "the list of copies")
    page.locator("#copy-list button").first.click()
    page.wait_for_selector("#book[open] mark")
    marked = page.inner_text("#book mark")
    assert len(marked) >= 20 and marked in second
    page.keyboard.press("Escape")
    # export
    page.click("#open-export")
    with page.expect_download() as download:
        page.click("#export a[data-format=gb18030]")
    download.value.save_as(tmp_path / "story.txt")
    assert (tmp_path / "story.txt").read_text(encoding="gb18030") == second
    page.keyboard.press("Escape")
    # close the browser in mid-stream, and open it again
    page.click("#continue")
    until(lambda: len(text_of(page)) > len(second) + 10, "some characters")
    page.close()
    again = begin()
    assert len(text_of(again)) >= len(second) + 10
    assert len(until_same(again, world)) == len(second) + 200


# a key as the browser tells it while an input method has it
PRESS = """(keys) => {
    const key = keys.at(-1);
    const code = key.length > 1 ? key : /[0-9]/.test(key) ? `Digit${key}` : `Key${key.toUpperCase()}`;
    const held = { ctrlKey: keys.includes("Control"), altKey: keys.includes("Alt"), isComposing: true };
    document.querySelector("#text").dispatchEvent(new KeyboardEvent("keydown", { key, code, ...held, bubbles: true }));
}"""


def test_a_hundred_compositions_while_text_streams_in_break_nothing(begin, world):
    world.engine.rate = 20
    world.kept.preferences({"writing": '{"length": 2000}'})  # it writes as long as this takes
    page = begin("开头。\n中间。\n结尾。")
    page.keyboard.press("Control+Enter")
    until(lambda: len(text_of(page)) > 14, "a stream")
    put_caret(page, 2)
    jobs = len(world.jobs)
    session = page.context.new_cdp_session(page)
    for number in range(100):
        sign = "甲乙丙丁戊己庚辛壬癸"[number % 10]
        session.send("Input.imeSetComposition", {"text": "jia", "selectionStart": 3, "selectionEnd": 3})
        if number % 10 == 0:  # keys belong to the input method while it composes
            for key in ("Escape", "Control+Enter", "Alt+1", "Control+z"):
                page.evaluate(PRESS, key.split("+"))
        session.send("Input.insertText", {"text": sign})
    assert world.jobs[-1].state == "running"
    page.click("#stop")
    text = until_same(page, world)
    assert text.startswith("开头" + "甲乙丙丁戊己庚辛壬癸" * 10 + "。\n中间。\n结尾。")
    # nor does Enter begin to write when nothing is being written
    session.send("Input.imeSetComposition", {"text": "jia", "selectionStart": 3, "selectionEnd": 3})
    page.evaluate(PRESS, ["Control", "Enter"])
    session.send("Input.insertText", {"text": "子"})
    assert until_same(page, world) == text.replace("癸。", "癸子。")
    assert len(world.jobs) == jobs and "jia" not in text


def test_composing_at_the_end_of_what_is_being_written_keeps_every_character(begin, world):
    world.engine.rate = 100
    page = begin("开头。")
    page.keyboard.press("Control+Enter")
    until(lambda: len(text_of(page)) > 8, "a stream")
    page.focus("#text")
    page.keyboard.press("Control+End")
    for sign in "春夏秋冬":
        compose(page, "x", "xi", commit=sign)
    text = until_same(page, world)
    (job,) = world.jobs
    places = [text.index(sign) for sign in "春夏秋冬"]
    assert places == sorted(places)
    assert "".join(sign for sign in text if sign not in "春夏秋冬") == "开头。" + job.whole[0]


def test_typing_before_what_is_being_written_does_not_move_caret_or_lose_anything(begin, world):
    world.engine.rate = 100
    page = begin("开头。")
    page.keyboard.press("Control+Enter")
    until(lambda: len(text_of(page)) > 8, "a stream")
    put_caret(page, 2)
    page.keyboard.type("一二三四五六七八九十", delay=50)
    page.keyboard.press("Enter")
    page.keyboard.type("新的一段", delay=50)
    text = until_same(page, world)
    (job,) = world.jobs
    assert text == "开头一二三四五六七八九十\n新的一段。" + job.whole[0]


# 51 reloads: 6 in make browser, all of them in make sweeps
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(2, 17))])
def test_reloads_in_mid_stream_lose_and_double_nothing(begin, world, seed):
    page = begin()
    page.keyboard.press("Control+Enter")
    until(lambda: world.jobs, "a job")
    chance = random.Random(seed)
    for _ in range(3):
        page.wait_for_timeout(chance.uniform(0, 250))
        page.reload()
        page.wait_for_selector("body[data-ready]")
    text = until_same(page, world)
    (job,) = world.jobs
    assert text == OPENING + job.whole[0]


def test_undo_reaches_the_first_character_and_redo_the_last(begin, world):
    page = begin("")
    for place, sign in enumerate("天地玄黄宇宙洪荒日月"):
        put_caret(page, 0 if place % 2 else place)  # now before the others, now behind them
        page.keyboard.type(sign)
        until(lambda sign=sign: sign in world.text(), f"{sign} saved")
    whole, states = until_same(page, world), []
    while page.is_enabled("#undo"):
        states.append(text_of(page))
        page.keyboard.press("Control+z")
        until(lambda: text_of(page) != states[-1], "an undo")
    assert text_of(page) == "" and len(states) >= 8
    for state in states[::-1]:
        assert page.is_enabled("#redo")
        page.keyboard.press("Control+Shift+z")
        until(lambda state=state: text_of(page) == state, f"redo to {state!r}")
    assert text_of(page) == whole and page.is_disabled("#redo")


def test_presses_that_come_faster_than_the_answers_each_take_a_step(begin, world, monkeypatch):
    from novelgpt.studio.stories import Story

    page, edit = begin(""), Story.edit
    for place, sign in enumerate("天地玄黄宇"):
        put_caret(page, 0 if place % 2 else place)
        page.keyboard.type(sign)
        until(lambda sign=sign: sign in world.text(), f"{sign} saved")
    whole = until_same(page, world)
    monkeypatch.setattr(Story, "edit", lambda *parts, **more: (time.sleep(0.2), edit(*parts, **more))[1])
    for _ in range(5):
        page.keyboard.press("Control+z")
    until(lambda: text_of(page) == "", "everything undone")
    for _ in range(5):
        page.keyboard.press("Control+y")
    until(lambda: text_of(page) == whole, "everything done again")


def test_paste_and_deletion_over_paragraphs_reach_the_server_as_they_stand_on_the_page(begin, world):
    page = begin("第一段\n第二段\n𠮷第三段")
    put_caret(page, 1)
    page.evaluate(
        "(() => { const data = new DataTransfer(); data.setData('text/plain', '甲\\r\\n𠮷乙\\n');"
        "document.querySelector('#text').dispatchEvent(new InputEvent('beforeinput',"
        "{inputType: 'insertFromPaste', dataTransfer: data, bubbles: true, cancelable: true})) })()"
    )
    assert until_same(page, world) == "第甲\n𠮷乙\n一段\n第二段\n𠮷第三段"
    for _ in range(6):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Delete")
    assert until_same(page, world) == "第甲\n𠮷乙\n\n𠮷第三段"
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    assert until_same(page, world) == "第甲\n𠮷\n𠮷第三段"
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    assert until_same(page, world) == ""
    page.keyboard.type("重来")
    assert until_same(page, world) == "重来"


def test_two_tabs_on_one_story_end_with_the_same_text_and_all_of_it(begin, world):
    first = begin()
    second = first.context.new_page()
    second.goto(world.address)
    second.wait_for_selector("body[data-ready]")
    for number in range(12):
        page = (first, second)[number % 2]
        page.bring_to_front()
        until(lambda page=page: text_of(page) == world.text(), "the other tab's text")
        put_caret(page, number % 5)
        sign = "ABCDEFGHIJKL"[number]
        page.keyboard.type(sign)
        until(lambda sign=sign: sign in world.text(), "saved")
    assert until_same(first, world) == until_same(second, world)
    assert set("ABCDEFGHIJKL" + OPENING) == set(text_of(first))


def test_the_card_shows_ten_alternatives_and_one_is_taken_by_keys_alone(begin, world):
    page = begin()
    put_caret(page, 8)
    page.keyboard.press("Alt+p")
    page.wait_for_selector("#card:not([hidden])")
    assert page.locator("#card li button").count() == 10
    assert page.inner_text("#card .char") == OPENING[7]
    assert page.locator("#card .out").count() == 2  # the stub's after holds eight
    page.keyboard.press("Escape")
    assert page.is_hidden("#card")
    page.keyboard.press("Alt+p")
    page.wait_for_selector("#card:not([hidden])")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    until(lambda: world.jobs, "a job")
    text = until_same(page, world)
    (job,) = world.jobs
    assert text == OPENING[:7] + job.whole[0] and job.whole[0].startswith("甲")


def test_hovering_in_the_surprise_view_opens_the_card_of_typed_text_too(begin, world):
    page = begin()
    page.click("#surprise")
    page.wait_for_selector("#text span[class*=n]")
    box = page.locator("#text p").nth(1).bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + box["height"] / 2)
    page.wait_for_selector("#card:not([hidden])")
    assert page.inner_text("#card .char") in OPENING
    page.click("#surprise")
    assert page.locator("#text span[class*=n]").count() == 0


def test_stop_stops_and_what_was_written_stays(begin, world):
    world.engine.rate = 20
    page = begin()
    page.keyboard.press("Control+Enter")
    until(lambda: len(text_of(page)) > 20, "a stream")
    page.keyboard.press("Escape")
    text = until_same(page, world)
    assert 20 < len(text) < 200 + len(OPENING)


def test_another_version_stands_beside_the_first_and_both_are_walked(begin, world):
    page = begin()
    page.keyboard.press("Alt+q")
    until(lambda: world.jobs, "a job")
    first = until_same(page, world)
    page.keyboard.press("Alt+r")
    until(lambda: len(world.jobs) == 2, "another job")
    second = until_same(page, world)
    assert first != second and page.inner_text("#version") == "2/2"
    page.keyboard.press("Alt+ArrowLeft")
    until(lambda: text_of(page) == first, "the first version")
    page.click("#next")
    until(lambda: text_of(page) == second, "the second version")


def test_insert_here_keeps_what_follows_and_shows_the_best_fitting_candidate(begin, world):
    page = begin("前文。后文。")
    candidates(page, 2)
    put_caret(page, 3)
    page.click("#insert")
    until(lambda: world.jobs, "a job")
    text = until_same(page, world)
    assert text.startswith("前文。") and text.endswith("后文。") and len(text) == 206
    until(lambda: "接后文" in page.inner_text("#candidate-list"), "how well the old text follows")


def test_what_the_disk_refuses_stays_on_the_page_and_is_saved_later(browser, world):
    world.make_story(OPENING)
    page = browser.new_page(locale="zh-CN")
    page.goto(world.address)
    page.wait_for_selector("body[data-ready]")
    world.refused = 2
    put_caret(page, 0)
    page.keyboard.insert_text("留下")
    until(lambda: "journal.jsonl" in page.inner_text("#warning"), "what the disk says")
    assert page.inner_text("#saved").endswith("还没存上")
    assert until_same(page, world) == "留下" + OPENING
    until(lambda: page.inner_text("#saved").endswith("已存") and page.inner_text("#warning") == "", "saved")
    page.close()


def test_what_the_disk_refuses_can_be_exported_as_it_stands_on_the_page(browser, world, tmp_path):
    world.make_story(OPENING)
    page = browser.new_page(locale="zh-CN")
    page.goto(world.address)
    page.wait_for_selector("body[data-ready]")
    world.refused = 10**9
    put_caret(page, 0)
    page.keyboard.type("留下")
    page.keyboard.press("Control+Enter")
    until(lambda: "还没存上" in page.inner_text("#warning"), "why nothing is written")
    assert not world.jobs
    page.click("#open-export")
    page.wait_for_selector("#export[open]")
    with page.expect_download() as download:
        page.click("#export a[data-format=txt]")
    download.value.save_as(tmp_path / "story.txt")
    assert (tmp_path / "story.txt").read_text(encoding="utf-8") == "留下" + OPENING
    world.refused = 0
    page.keyboard.press("Escape")
    assert until_same(page, world) == "留下" + OPENING
    page.close()


def test_another_story_can_be_opened_while_the_disk_is_full_and_what_was_typed_is_saved_later(browser, world):
    first, other = world.make_story(OPENING), world.make_story("另一个", "另一个")
    page = browser.new_page(locale="zh-CN")
    page.goto(f"{world.address}&story={first.id}")
    page.wait_for_selector("body[data-ready]")
    world.refused = 10**9
    put_caret(page, 0)
    page.keyboard.type("留下")
    until(lambda: "journal.jsonl" in page.inner_text("#warning"), "what the disk says")
    page.click("#open-stories")
    page.locator("#story-list li", has_text="另一个").locator("button").first.click()
    until(lambda: text_of(page) == "另一个", "the other story")
    assert first.tree.text() == OPENING
    world.refused = 0
    until(lambda: first.tree.text() == "留下" + OPENING, "what was typed, on the disk")
    assert text_of(page) == "另一个" == other.tree.text()
    page.close()


def test_a_story_that_was_removed_elsewhere_says_so_and_another_can_be_opened(browser, world):
    story = world.make_story(OPENING)
    page = browser.new_page(locale="zh-CN")
    page.goto(world.address)
    page.wait_for_selector("body[data-ready]")
    world.kept.remove(story.id)
    put_caret(page, 0)
    page.keyboard.insert_text("留下")
    until(lambda: f"没有故事 {story.id}" in page.inner_text("#warning"), "what the server says")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2000)
    assert not [url for url in asked if url.endswith("/ops")]  # it is not asked again and again
    assert text_of(page) == "留下" + OPENING and page.inner_text("#saved").endswith("还没存上")
    other = world.make_story("另一个", "另一个")
    page.click("#open-stories")
    page.locator("#story-list li", has_text="另一个").locator("button").first.click()
    until(lambda: text_of(page) == "另一个", "the other story")
    put_caret(page, 0)
    page.keyboard.type("新")
    until(lambda: other.tree.text() == "新另一个", "what is typed in it")
    page.close()


@pytest.mark.parametrize("arrives", [True, False])
def test_a_page_that_is_left_while_it_saves_loses_nothing(begin, world, monkeypatch, arrives):
    from novelgpt.studio.stories import Story

    page, edit = begin(), Story.edit
    calls, is_left = [], threading.Event()

    def late(story, base, ops, *rest):
        calls.append(ops)
        if len(calls) == 1:
            is_left.wait(60)  # the answer comes when the page is no more
            if not arrives:
                raise UserError("lost on the way", "ask again")
        return edit(story, base, ops, *rest)

    monkeypatch.setattr(Story, "edit", late)
    put_caret(page, 0)
    page.keyboard.type("甲")
    until(lambda: calls, "the first request")
    page.keyboard.type("乙")
    page.goto("about:blank")
    until(lambda: world.text() == "甲乙" + OPENING, "both")
    is_left.set()
    time.sleep(0.5)
    assert world.text() == "甲乙" + OPENING


HOSTILE = [
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", '"><svg onload=alert(1)>', "{{7*7}}${alert(1)}",
    "&lt;b&gt;", "javascript:alert(1)", "\u202e\u2066反\u200b\ufeff", "𠮷\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "</p></div></body>", "\u2028\u2029\x0b\x7f", "' onmouseover='alert(1)",
]  # fmt: skip


def test_hostile_text_is_text_everywhere(begin, world):
    text = "\n".join(f"第{number}章 {line}" for number, line in enumerate(HOSTILE, 1))
    for line in HOSTILE:
        world.make_story(text, line)
    page = begin(text)
    dialogs = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message) or dialog.dismiss())
    assert text_of(page) == text
    put_caret(page, 3)
    for line in HOSTILE:
        page.keyboard.insert_text(line)
    page.click("#open-stories")
    page.wait_for_selector("#stories[open]")
    names = page.locator("#story-list li > button:first-child").all_inner_texts()
    assert len(names) == len(HOSTILE)
    assert page.evaluate("document.querySelectorAll('img, svg, #text script').length") == 0
    assert dialogs == []


def test_hostile_text_of_model_book_and_files_is_text_everywhere(begin, world, monkeypatch):
    draw = random.Random(3)
    lines = ["".join(draw.choices([*HOSTILE, "夜", "\n", "\\", "\x00"], k=draw.randint(1, 5))) for _ in range(1000)]
    written = "".join(lines)[:5000]
    world.engine.rate = 3000
    monkeypatch.setattr("world.MadeUpJob.make_text", lambda job, index, length: written)
    world.panels.found = Book([written])
    page, dialogs = begin(), []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message) or dialog.dismiss())
    candidates(page, 2)
    page.keyboard.press("Control+Enter")
    whole = OPENING + written
    until(lambda: text_of(page) == whole == world.text(), "all of it", 60)
    until(lambda: page.locator("#candidate-list span").nth(1).text_content() == written, "the other candidate")
    page.click("#tab-copies")
    page.locator("#copy-list button").first.click()
    page.wait_for_selector("#book[open] mark")
    assert page.locator("#book .novel").text_content() == written
    page.keyboard.press("Escape")
    page.click("#open-stories")
    name = "<img src=x onerror=alert(1)>.txt"
    page.set_input_files("#import-file", {"name": name, "mimeType": "text/plain", "buffer": whole.encode()})
    until(lambda: page.input_value("#name") == name.removesuffix(".txt"), "the story of the file")
    assert text_of(page) == whole
    assert page.evaluate("document.querySelectorAll('img, svg, #text script, .novel script').length") == 0
    assert dialogs == []


def test_a_page_of_a_name_that_was_made_to_point_here_reads_nothing(browser, world):
    story = world.make_story(OPENING)
    own, token = world.address.split("/#token=")
    port = own.rpartition(":")[2]
    arguments = [*QUIET, "--host-resolver-rules=MAP evil.example 127.0.0.1"]
    with browser.browser_type.launch(executable_path=shutil.which(BROWSER), args=arguments) as rebound:
        page = rebound.new_page()
        for path in ("/", "/static/write.js", f"/api/stories/{story.id}"):
            answer = page.goto(f"http://evil.example:{port}{path}")
            assert answer.status == 403 and OPENING not in page.content()
        ask = """async ([path, token]) => {
            const reply = await fetch(path, { headers: { Authorization: `Bearer ${token}` } });
            return [reply.status, await reply.text()];
        }"""
        status, text = page.evaluate(ask, [f"/api/stories/{story.id}", token])
        assert status == 403 and "天" not in text
        status, _ = page.evaluate(ask, ["/v1/models", token])
        assert status == 403


def test_a_page_opened_while_the_model_loads_learns_of_book_and_titles_when_it_is_there(begin, world, monkeypatch):
    known, loading = world.engine.state, world.engine.state()
    loading["model"] |= {"ready": False, "progress": 0.5, "book": None, "titles": False}
    monkeypatch.setattr(world.engine, "state", lambda: copy.deepcopy(loading))
    page = begin(OPENING * 20)
    page.click("#tab-style")
    until(lambda: page.inner_text("#state") == "模型载入中 50 %", "how far it is loaded")
    assert page.is_hidden("#entitle") and "没有找到原书" in page.inner_text("#style-box")
    monkeypatch.setattr(world.engine, "state", known)
    until(lambda: page.locator("#style-box li").count(), "figures beside the book's")
    assert page.inner_text("#state") == "fake" and page.is_visible("#entitle")


def test_every_action_is_reached_by_the_keyboard_alone(begin, world):
    page = begin()
    candidates(page, 2)
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    until(lambda: world.jobs, "a job")
    text = until_same(page, world)
    page.click("#tab-candidates")
    page.focus("body")
    reached = set()
    for _ in range(150):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.word || ''"))
    wanted = {"open-stories", "name", "undo", "open-export", "surprise", "reader", "training", "corpus", "language"}
    wanted |= {"open-help", "new-chapter", "entitle", "text", "tab-candidates", "continue", "retry", "rewrite"}
    assert wanted | {"insert", "here", "next"} <= reached, wanted - reached
    # tabs by arrows, a slider, a candidate, the card, a dialog: all without the mouse
    page.focus("#tab-candidates")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.id") == "tab-settings"
    page.locator("#setting-list input[type=range]").first.focus()
    page.keyboard.press("ArrowRight")
    until(lambda: '"candidates":3' in world.kept.preferences().get("writing", ""), "three candidates")
    page.focus("#text")
    page.keyboard.press("Alt+2")
    until(lambda: text_of(page) != text, "the other candidate")
    page.keyboard.press("Alt+KeyP")
    page.wait_for_selector("#card:not([hidden])")
    page.keyboard.press("Escape")
    page.wait_for_selector("#card[hidden]", state="attached")
    page.focus("#open-help")
    page.keyboard.press("Enter")
    page.wait_for_selector("#help[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#help:not([open])", state="attached")
    page.focus("#text")
    page.keyboard.press("Control+z")
    until(lambda: text_of(page) == OPENING, "undone")
    page.keyboard.press("Control+y")
    until(lambda: text_of(page) != OPENING, "done again")


@pytest.mark.parametrize("width, height", [(1280, 800), (360, 640)])
@pytest.mark.parametrize("language", ["zh-CN", "en-US"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_nothing_on_the_page_keeps_people_out(begin, world, width, height, language, colours):
    page = begin(
        OPENING + "囧" + "那天夜里没有月亮。一斗裹着一件破棉袄坐在井沿上，",
        language,
        colours=colours,
        width=width,
        height=height,
    )
    page.wait_for_selector("#text .doubt")
    if width < 700:
        page.click("#open-panels")
    candidates(page, 2)
    page.keyboard.press("Alt+q")
    until(lambda: world.jobs, "a job")
    until_same(page, world)
    faults = []
    for tab in ("candidates", "copies", "style", "settings"):
        page.evaluate(f"document.querySelector('#tab-{tab}').click()")
        faults += find_barriers(page)
    page.evaluate("document.querySelector('#surprise').click()")
    page.wait_for_selector("#text span[class*=n]")
    if width < 700:
        page.keyboard.press("Escape")
    page.focus("#text")
    page.keyboard.press("Control+End")
    page.keyboard.press("Alt+p")
    page.wait_for_selector("#card:not([hidden])")
    faults += find_barriers(page)
    for dialog in ("open-stories", "open-help", "open-export"):
        page.evaluate(f"document.querySelector('#{dialog}').click()")
        page.wait_for_selector("dialog[open]")
        faults += find_barriers(page)
        page.keyboard.press("Escape")
    assert faults == [], "\n".join(faults)


@pytest.mark.parametrize("language", ["zh-CN", "en-US"])
def test_a_small_phone_scrolls_nowhere_sideways_and_reaches_every_action(begin, language):
    page = begin(OPENING, language, width=360, height=640, touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for button in ("continue", "stop", "retry", "previous", "next", "open-menu", "open-panels"):
        box = page.locator(f"#{button}").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["y"] + box["height"] <= 640, button
        assert box["height"] >= 44 and box["width"] >= 40, button
    page.click("#open-panels")
    for action in ("undo", "redo", "rewrite", "insert", "here", "surprise"):
        assert page.locator(f"#panel-actions [data-word={action}]").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#panels").is_visible()
    page.click("#open-menu")
    for action in ("stories", "export", "language", "help", "training", "corpus"):
        page.locator(f"#menu-stories [data-word={action}]").scroll_into_view_if_needed()
        assert page.locator(f"#menu-stories [data-word={action}]").is_visible()
    page.locator("#menu-stories [data-word=stories]").click()
    page.wait_for_selector("#stories[open]")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_choice_of_language_looks_and_sliders_comes_back_from_the_server(begin, world):
    page = begin()
    page.click("#language")
    assert page.inner_text("#continue") == "Continue"
    page.click("#tab-settings")
    page.select_option("#theme", "paper")
    page.locator("#preset-list button").nth(3).click()

    def is_kept():
        kept = world.kept.preferences()
        return {"language", "theme"} <= kept.keys() and "bold" in kept.get("writing", "")

    until(is_kept, "kept")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.inner_text("#continue") == "Continue"
    assert page.evaluate("document.documentElement.dataset.theme") == "paper"
    page.keyboard.press("Control+Enter")
    until(lambda: world.jobs, "a job")
    assert world.jobs[-1].request.settings["topp"] == 1.0 and world.jobs[-1].request.settings["temperature"] == 1.0


def test_twenty_tabs_all_write_to_their_end(begin, world):
    page = begin()
    pages = [page] + [page.context.new_page() for _ in range(19)]
    for other in pages:
        story = world.make_story(OPENING)
        other.goto("about:blank")
        other.goto(f"{world.address}&story={story.id}")
        other.wait_for_selector("body[data-ready]")
    started = time.monotonic()
    for other in pages:
        other.evaluate("document.querySelector('#continue').click()")
    for other in pages:
        until(lambda other=other: len(text_of(other)) == len(OPENING) + 200, "the whole text")
    assert time.monotonic() - started < 12  # seconds; 1 at the writer's speed, the rest is this machine's


def test_a_file_in_any_encoding_becomes_a_story(begin, world):
    page = begin()
    page.set_input_files(
        "#import-file", {"name": "夜.txt", "mimeType": "text/plain", "buffer": "一夜风雨".encode("gb18030")}
    )
    until(lambda: text_of(page) == "一夜风雨", "the imported text")
    assert page.input_value("#name") == "夜"


def test_a_new_chapter_is_numbered_and_stands_in_the_outline(begin, world):
    page = begin()
    page.click("#new-chapter")
    page.keyboard.type("雨")
    assert until_same(page, world) == OPENING + "\n第二章 雨"
    until(lambda: page.locator("#chapter-list button").all_inner_texts() == ["第一章 井", "第二章 雨"], "the outline")
    page.keyboard.press("Alt+ArrowUp")
    page.keyboard.type("序 ")
    assert until_same(page, world) == "序 " + OPENING + "\n第二章 雨"


def test_a_title_that_the_model_finds_becomes_the_chapters_heading(begin, world):
    page = begin("前文。\n第一章 井\n那天夜里没有月亮。\n第二章 雨\n下雨了。")
    put_caret(page, 15)
    page.click("#entitle")
    until(lambda: page.locator("#title-list button").all_inner_texts() == ["夜里的井", "井水", "第七口井"], "titles")
    assert world.jobs[-1].request.prompt == "那天夜里没有月亮。"
    page.locator("#title-list button").nth(2).click()
    assert until_same(page, world) == "前文。\n第一章 第七口井\n那天夜里没有月亮。\n第二章 雨\n下雨了。"
    assert page.locator("#title-list button").count() == 0


def test_an_opening_found_in_the_book_begins_a_story(begin, world):
    page = begin()
    page.click("#open-stories")
    page.fill("#opening-text", "夜里")
    page.click("#find-opening")
    page.locator("#opening-list button").first.click()
    until(lambda: text_of(page).startswith("那天夜里没有月亮。一斗"), "the opening")


@contextlib.contextmanager
def real_studio(place):
    """Run studio.py with a small model; yields the address with the token."""
    words = ["--model_path", str(place / "model"), "--no_browser", "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    pipes = {"stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    with subprocess.Popen(
        [sys.executable, str(ROOT / "studio.py"), *words], cwd=place, env=environment, **pipes
    ) as run:
        try:
            yield next(found[0] for line in run.stderr if (found := re.search(r"http://\S+token=\w+", line)))
        finally:
            run.terminate()


def test_the_page_writes_with_a_real_model(open_page, tmp_path):
    with real_studio(save_model_and_book(tmp_path)) as address:
        page = open_page(address, language="zh-CN")
        page.wait_for_selector("body[data-ready]")
        put_caret(page, 0)
        page.keyboard.type("夜里")
        page.keyboard.press("Control+Enter")
        until(lambda: len(text_of(page)) > 20, "characters of a model", 60)
        page.keyboard.press("Escape")
        until(lambda: re.search("停|写了", page.text_content("#status")), "the stop")
        text = text_of(page)
        put_caret(page, 4)
        page.keyboard.press("Alt+p")
        page.wait_for_selector("#card:not([hidden])")
        assert page.locator("#card li button").count() == 10
        page.keyboard.press("Enter")
        until(lambda: text_of(page) != text, "another job")
        page.close()
        assert text.startswith("夜里")


@pytest.mark.slow
def test_appending_to_200000_coloured_characters_takes_two_frames_at_most(begin, world):
    line = "夜里的井水一寸一寸地往下落，谁也没有说话，风从村口吹下来。" * 3
    page = begin("\n".join([line] * (200_000 // len(line))))
    until(lambda: page.locator("#style-box li").count(), "the first look at the book", 90)
    page.evaluate("document.querySelector('#surprise').click()")
    rounds = page.evaluate(
        """async () => {
        const { editor } = await import("/static/write.js");
        const colours = (p, i) => Array.from({ length: p.len }, (_, j) => (i * 7 + j * 3) % 8);
        editor.paragraphs.forEach((p, i) => { p.nats = colours(p, i); editor.paint(p); });
        editor.scroller.scrollTop = editor.scroller.scrollHeight;
        const frame = () => new Promise((done) => requestAnimationFrame(done));
        for (let i = 0; i < 10; i++) await frame();
        const rounds = [];
        for (let round = 0; round < 5; round++) {
            const took = [];
            for (let i = 0; i < 60; i++) {
                const start = performance.now();
                editor.splice(editor.size, editor.size, "字", "model", [i % 8]);
                await frame(); // it is put in
                await frame(); // and shown
                took.push((performance.now() - start) / 2);
            }
            rounds.push(took.sort((a, b) => a - b)[57]);
        }
        return rounds;
        }"""
    )
    print("95 % of the frames of five rounds:", [f"{took:.1f} ms" for took in rounds])
    assert min(rounds) <= 34  # milliseconds; the calmest round, for this machine may have other work
    # keys are echoed, and no task is long
    page.evaluate(
        """() => {
        window.echoes = [];
        window.tasks = [];
        new PerformanceObserver((list) => tasks.push(...list.getEntries().map(({ duration }) => duration)))
            .observe({ entryTypes: ["longtask"] });
        document.addEventListener("keydown", () => {
            const start = performance.now();
            requestAnimationFrame(() => setTimeout(() => echoes.push(performance.now() - start))); // it is shown
        }, true);
        }"""
    )
    page.focus("#text")
    page.keyboard.press("Control+End")
    for _ in range(100):
        page.keyboard.press("a")
        page.wait_for_timeout(50)
    echoes, tasks = page.evaluate("[echoes, tasks]")
    print(f"95 % of the keys: {sorted(echoes)[94]:.1f} ms; longest task {max(tasks, default=0):.0f} ms")
    assert sorted(echoes)[94] <= 34 and max(tasks, default=0) <= 100


@pytest.mark.slow
def test_twenty_tabs_are_loaded_in_3_seconds_and_show_their_first_characters_in_5(browser, tmp_path):
    with real_studio(save_model_and_book(tmp_path)) as address:
        page = browser.new_context(locale="zh-CN").new_page()  # nothing listens to its requests
        page.goto(address)
        until(lambda: "model" in page.inner_text("#state"), "the model", 60)
        make = """async (text) => (await (await fetch("/api/stories", { method: "POST", body: JSON.stringify({ text }),
            headers: { "Content-Type": "application/json" } })).json()).id"""
        stories = [page.evaluate(make, OPENING) for _ in range(20)]
        pages = [page.context.new_page() for _ in stories]
        began = time.monotonic()
        for other, story in zip(pages, stories, strict=True):
            other.goto(f"{address}&story={story}", wait_until="commit")
        for other in pages:
            other.wait_for_selector("body[data-ready]")
        loaded, began = time.monotonic() - began, time.monotonic()
        for other in pages:
            other.evaluate("document.querySelector('#continue').click()")
        for other in pages:
            until(lambda other=other: len(text_of(other)) > len(OPENING), "the first character", 60)
        first = time.monotonic() - began
        for other in pages:
            until(lambda other=other: "写了" in other.text_content("#status"), "the whole text", 60)
        page.context.close()
        print(f"20 tabs: loaded in {loaded:.1f} s, first characters of all after {first:.1f} s")
        assert loaded <= 3 and first <= 5


def test_the_page_is_light():
    files = [path for path in STATIC.iterdir() if path.is_file()]
    scripts = [path for path in files if path.suffix == ".js"]
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in scripts}
    assert max(lines.values()) <= 300 and sum(lines.values()) <= 2000, lines
    assert sum(path.stat().st_size for path in files) <= 120_000
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) <= 40_000
    assert len(files) <= 12


def test_a_page_that_is_opened_again_has_asked_twelve_times(begin, world):
    page, own = begin(), world.address.partition("#")[0]
    until(lambda: world.kept.preferences().get("story"), "the story remembered")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("about:blank")
    page.goto(own)
    page.wait_for_selector("body[data-ready]")
    assert all(url.startswith(own) for url in asked) and len(asked) <= 12, asked


def test_every_word_is_there_in_both_languages():
    table = (STATIC / "words.js").read_text(encoding="utf-8").partition("const WORDS = {")[2].partition("\n};")[0]
    rows = re.findall(r'(\w+): \["([^"]*)",\s*"([^"]*)"\]', table)
    assert len(rows) == len(re.findall(r"\w+: \[", table)) > 100
    assert all(chinese and english for _, chinese, english in rows)
    names = re.compile(r"\{\w+\}").findall
    assert [key for key, chinese, english in rows if set(names(chinese)) != set(names(english))] == []
    page = "".join(path.read_text(encoding="utf-8") for path in STATIC.iterdir() if path.suffix in (".html", ".js"))
    asked = set(re.findall(r'data-(?:word|label|hint)="(\w+)"|word\("(\w+)"', page))
    keys = {key for key, *_ in rows}
    assert {name for pair in asked for name in pair if name} <= keys


def test_no_script_makes_elements_from_text():
    markup = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function")
    assert [path.name for path in STATIC.glob("*.js") if markup.search(path.read_text(encoding="utf-8"))] == []
