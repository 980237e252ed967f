"""The training page in a real browser: what moves, what stays, what is never run, and who can use it."""

import json
import random

import pytest
from conftest import find_barriers
from runs import BEGAN, STEPS, loss_at, make_records, start_record, write_run

from novelgpt.pages import write_training_page
from novelgpt.pages.render import make_visible

pytestmark = pytest.mark.browser
WIDTHS = {"telephone": {"width": 360, "height": 640, "touch": True}, "desk": {}}


@pytest.fixture
def show(open_page, tmp_path):
    """Return a function from records to their page, open in a browser; the same folder is written anew each time."""

    def show(records, name="run", **settings):
        folder = write_run(tmp_path / name, records)
        write_training_page(folder)
        return open_page(folder / "training.html", **settings)

    return show


def pull(page, place: int) -> None:
    """Move the slider of the time-lapse."""
    page.locator("#frame").evaluate("(it, place) => { it.value = place; it.dispatchEvent(new Event('input')); }", place)


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nobody_is_kept_out_and_nothing_is_wider_than_the_screen(show, colours, language, width):
    page = show(make_records(6, done=4), colours=colours, language=language, **WIDTHS[width])
    page.locator("details summary").click()
    assert find_barriers(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.locator("html").get_attribute("lang") == ("zh-CN" if language == "zh-CN" else "en")
    for part in ("#play", "#frame", "#unit", "#along", "#files", "#theme", "#language"):
        page.locator(part).scroll_into_view_if_needed()
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= page.viewport_size["width"], part


def test_the_page_that_a_run_leaves_shows_texts_yardstick_and_verdict(open_page, tiny_options):
    from novelgpt.training.session import train

    options = tiny_options(epochs=3, sample_length=20)
    assert train(options) == 0
    page = open_page(options.output_path / "training.html")
    texts = page.locator(".card[data-kind] .text").all_text_contents()
    assert texts and all(texts)  # a run of a second has time for one
    assert page.locator("#plot line.goal").count() == 2 and page.locator("#plot path.held").count() == 1
    assert page.locator(".verdict h2").inner_text().strip() and page.locator(".verdict .command").count()
    assert int(page.locator("#frame").get_attribute("max")) >= 2


def test_paper_is_readable_too(show):
    page = show(make_records(6, done=4))
    page.select_option("#theme", "paper")
    assert find_barriers(page) == []


def test_the_slider_shows_what_was_written_then_and_the_passage_fades(show):
    page = show(make_records())
    texts, deep = [], []
    for place in (0, 7, 14):
        pull(page, place)
        texts.append(page.locator('.card[data-kind="own"] .text').text_content())
        deep.append(page.locator("#passage .n6, #passage .n7, #passage .n8, #passage .n9").count())
        assert page.locator("#where").text_content().startswith(f"epoch {place + 1}, held-out loss ")
    written = [record["text"] for record in make_records() if record.get("kind") == "own"]
    assert texts == [written[0], written[7], written[14]]
    assert deep[0] > deep[1] > deep[2]


def test_keys_move_the_time_lapse_and_play_runs_to_its_end(show):
    page = show(make_records(5), language="zh-CN")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#where").text_content().startswith("第 3 轮")
    page.keyboard.press("ArrowRight")
    assert page.locator("#where").text_content().startswith("第 4 轮")
    page.clock.install(time=0)
    page.clock.pause_at(3600)  # from now on time goes as far as it is told to
    page.locator("#play").click()  # from where it stands
    assert page.locator("#play").get_attribute("aria-pressed") == "true"
    page.clock.run_for(3000)
    assert page.locator("#frame").input_value() == "4"
    assert page.locator("#play").get_attribute("aria-pressed") == "false"


def test_the_chart_tells_its_figures_to_keys_mouse_and_finger(show):
    page = show(make_records(), touch=True)
    plot, reading = page.locator("#plot"), page.locator("#reading")
    plot.focus()
    page.keyboard.press("End")
    # the last point is the evaluation after step 3,000: 4.2251 nats
    assert "step 3,000 · epoch 15.00 · 0.42 h · training " in reading.text_content()
    assert reading.text_content().endswith("held out 4.225")
    assert plot.get_attribute("aria-valuetext") == reading.text_content()
    page.keyboard.press("Home")
    assert reading.text_content().startswith("step 20 · epoch 0.10")
    for act in (page.mouse.move, page.touchscreen.tap):
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        act(box["x"] + box["width"] / 1.03 / 2, box["y"] + 50)
        assert reading.text_content().startswith("step 1,500")
    page.select_option("#unit", "perplexity")
    plot.press("End")
    assert reading.text_content().endswith("held out 68.4")  # e to the 4.2251
    page.select_option("#unit", "bits")
    plot.press("End")
    assert reading.text_content().endswith("held out 6.096")  # 4.2251 / ln 2, one token a character
    for along, last in (("log", "1,000"), ("epoch", "15"), ("hours", "0.4"), ("step", "3,000")):
        page.select_option("#along", along)
        assert page.locator("#plot .rail").last.text_content() == last


def test_other_runs_are_laid_beside_by_step_epoch_and_hour_and_stay_after_a_reload(show):
    page = show(make_records())
    other = "\n".join(map(json.dumps, make_records(turn=1000)))
    torn = other[: len(other) // 2] + '\n{"step": 3, "lo\n"nan"\n'
    files = [("good<img src=x onerror=window.hit=1>.jsonl", other), ("torn.jsonl", torn), ("no.jsonl", "none of ours")]
    page.locator("#files").set_input_files(
        [{"name": name, "mimeType": "text/plain", "buffer": text.encode()} for name, text in files]
    )
    page.locator("#others li").nth(1).wait_for()
    page.locator("#said", has_text="no log of a run").wait_for(state="attached")
    names = page.locator("#others li").all_text_contents()
    # lowest where both of its parts balance: read off the log itself
    best = min(record["valid_loss"] for record in make_records(turn=1000) if "valid_loss" in record)
    assert len(names) == 2 and names[0].startswith(f" {files[0][0]} best {best:.3f}")
    for along in ("epoch", "hours", "log", "step"):
        page.select_option("#along", along)
        assert page.locator("#plot path.held").count() == 3
    page.reload()
    assert page.locator("#others li").count() == 2
    page.locator("#others button").first.click()
    assert page.locator("#plot path.held").count() == 2
    assert page.evaluate("window.hit") is None


def test_the_page_renews_itself_while_the_run_lives_and_keeps_slider_and_scroll(show, tmp_path):
    page = show(make_records(8, done=3))
    page.clock.install(time=BEGAN + 400)
    page.reload()
    pull(page, 1)
    page.evaluate("scrollTo(0, 700)")
    write_training_page(write_run(tmp_path / "run", make_records(8, done=4)))
    with page.expect_navigation():
        page.clock.run_for(31_000)
    assert page.locator("#frame").get_attribute("max") == "3"  # the new evaluation is there
    assert page.locator("#frame").input_value() == "1" and page.evaluate("scrollY") == 700
    # a run that is resumed may be shorter
    write_training_page(write_run(tmp_path / "run", make_records(8, done=1)))
    with page.expect_navigation():
        page.clock.run_for(31_000)
    assert (page.locator("#frame").get_attribute("max"), page.locator("#frame").input_value()) == ("0", "0")
    # and one that is over stays as it is
    write_training_page(write_run(tmp_path / "run", make_records(8)))
    with page.expect_navigation():
        page.clock.run_for(31_000)
    page.evaluate("window.same = true")
    page.clock.run_for(200_000)
    assert page.evaluate("window.same") is True


def test_a_run_of_which_nothing_was_heard_for_hours_is_not_said_to_be_learning(show):
    page = show(make_records(8, done=3))
    assert page.locator(".live").text_content() == "no word for hours: the same command goes on"
    assert page.locator("#left").count() == 0
    page.clock.install(time=BEGAN + 400)
    page.reload()
    assert page.locator(".live .en").text_content() == "learning" and page.locator("#left").is_visible()


@pytest.mark.parametrize(
    ("name", "records"),
    [
        ("empty", []),
        ("only begun", [start_record()]),
        ("nan", [start_record(), *({"step": step, "epoch": 1, "loss": "nan", "time": BEGAN} for step in range(1, 9))]),
        ("without a clock", [{"step": step, "epoch": 1, "loss": loss_at(step)} for step in range(1, 500)]),
        ("one point", [{"step": 1, "epoch": 1, "valid_loss": 5.0}]),
        ("short passage", [start_record(passage={"tokens": ["井"]}), {"event": "passage", "nats": [1, 2], "step": 5}]),
        (
            "odd kinds",
            [{"event": "sample", "kind": kind, "text": kind, "step": 1} for kind in ("constructor", "__proto__")],
        ),
    ],
)
def test_a_log_of_any_state_opens_without_an_error(show, name, records):
    page = show(records)
    for choice in ("log", "epoch", "hours"):
        if page.locator(f'#along option[value="{choice}"]:not([disabled])').count():
            page.select_option("#along", choice)
    page.locator("#language").click()
    assert page.locator("h1").is_visible()


def test_a_torn_log_opens_with_what_is_whole(open_page, tmp_path):
    folder = write_run(tmp_path / "run", make_records(8, done=3))
    whole = (folder / "log.jsonl").read_bytes()
    (folder / "log.jsonl").write_bytes(whole[:-50])
    write_training_page(folder)
    page = open_page(folder / "training.html")
    assert page.locator("#frame").get_attribute("max") == "2"
    assert "1 lines of the log could not be read." in page.locator("main").inner_text()


def hostile_texts() -> list[str]:
    """Return 1,000 texts that end elements, begin scripts, break lines and turn the writing round."""
    parts = [
        "</script>",
        "<script>window.hit=1</script>",
        "<img src=x onerror=window.hit=1>",
        "<!--",
        "-->",
        "]]>",
        '"',
        "'",
    ]
    parts += [
        "&lt;",
        "{{7*7}}",
        "${hit}",
        "\\u003c",
        "\x00",
        "\x07",
        "\x1b[31m",
        "\u202e",
        "\u2066",
        "\u2028",
        "\r",
        "\n",
    ]
    parts += ["javascript:hit=1", "井", "𠀀", "\ufeff", "__proto__", "</textarea></title></style>", "\ud7ff", "é"]
    noise = random.Random(5)
    return ["".join(noise.choices(parts, k=noise.randrange(1, 6))) for _ in range(1000)]


def test_a_thousand_hostile_texts_stay_texts_to_the_last_character(show):
    texts = iter(hostile_texts())
    for number in range(4):
        begin = start_record(book=next(texts), yardsticks={next(texts): 5.0}, style={next(texts): 1.0})
        used = [next(texts) for _ in range(40)]
        begin["passage"] = {"tokens": [text[:20] for text in used]}
        begin["prefixes"] = [{"kind": "held_out", "text": "井", "truth": next(texts)}]
        records, wanted = [begin, {"step": 1, "epoch": 1, "valid_loss": 6.0, "event": None}], []
        for step in range(1, 35):
            for kind in ("opening", "own", "held_out"):
                sample = {
                    "event": "sample",
                    "kind": kind,
                    "prefix": next(texts),
                    "text": "【" + next(texts),
                    "step": step,
                }
                records.append({**sample, "style": {begin["book"][:30]: 1.0}})
            wanted.append([make_visible(record[part]) for record in records[-3:] for part in ("prefix", "text")])
            records.append({"event": "passage", "step": step, "nats": [1.0] * 40})
        page = show([*records, {"event": "stop", "reason": next(texts), "step": 34}], name=f"run {number}")
        # what JSON holds is shown as it is; HTML itself makes one line break of each \r
        assert page.locator("#passage span").all_text_contents() == [make_visible(text[:20]) for text in used]
        for place, expected in enumerate(wanted):
            pull(page, place)
            cards = "it => [it.querySelector('.given').textContent, it.querySelector('.text').textContent]"
            shown = page.locator(".card[data-kind]").evaluate_all(f"them => them.flatMap({cards})")
            assert shown == expected
        page.locator("#language").click()
        assert page.evaluate("window.hit") is None
    assert len(list(texts)) < 60  # nearly all of them were there


def test_20_000_lines_open_within_a_second(show):
    lines = [
        {"step": step, "epoch": 1 + step // STEPS, "loss": loss_at(step), "time": BEGAN + step}
        for step in range(1, 20_001)
    ]
    page = show([start_record(epochs=100), *lines])
    times = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    assert times["domComplete"] < 1000  # ms; what the script does is within


def test_the_whole_page_is_reached_by_keyboard_alone(show):
    page = show(make_records(4))
    seen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
            )
        )
    for part in ("theme", "language", "play", "frame", "unit", "along", "smooth", "plot", "files", "SUMMARY"):
        assert part in seen, part
