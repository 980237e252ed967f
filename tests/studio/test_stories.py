"""Stories on disk: what a person does and what a job writes, torn and damaged journals, full disks, two tabs."""

import errno
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import FakeEngine, text_of

from novelgpt.messages import UserError
from novelgpt.studio import journal as journals
from novelgpt.studio.jobs import Request
from novelgpt.studio.stories import NoStory, Stories
from novelgpt.studio.tree import Conflict

WORDS = "那天夜里没有月亮𠮷😀\n"


@pytest.fixture
def stories(tmp_path, no_flushing):
    """An empty folder of stories."""
    held = Stories(tmp_path / "stories")
    yield held
    held.close()


@pytest.fixture
def reopened(tmp_path):
    """A function that closes a folder of stories and opens it again."""
    opened = []

    def reopen(stories):
        stories.close()
        opened.append(Stories(tmp_path / "stories"))
        return opened[-1]

    yield reopen
    for stories in opened:
        stories.close()


def replace(start: int, end: int, text: str) -> dict:
    return {"replace": [start, end], "text": text}


def wait_for(is_true, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.005)


def lines_of(story) -> list[dict]:
    return [json.loads(line) for line in story.journal.path.read_text(encoding="utf-8").splitlines()]


def start_job(stories, story, **changes):
    """Let a fake engine continue a story; return its job, which grows when it is told to."""
    job = FakeEngine().submit(Request(story.tree.text(), 30, **changes))
    length = story.tree.nodes[story.tree.head].length
    nodes = story.begin(story.tree.head, (length, length), job.request.candidates, {"seed": job.seed})
    stories.watch(story, job, nodes)
    return job, nodes


def test_a_story_is_the_same_after_it_is_opened_again(stories, reopened):
    story = stories.make("井边", "那天夜里")
    story.edit(1, [replace(4, 4, "，没有月亮"), replace(0, 2, "昨"), {"name": " 夜 \n 里 "}])
    assert story.tree.text() == "昨夜里，没有月亮"
    before = story.view()
    again = reopened(stories).get(story.id)
    assert again.view() == before and before["name"] == "夜 里"
    assert (again.folder / "story.txt").read_text(encoding="utf-8") == "昨夜里，没有月亮"


def test_operations_of_one_request_are_all_done_or_none(stories):
    story = stories.make("a", "夜里")
    before = lines_of(story), story.view()
    for ops in ([replace(0, 0, "x"), replace(0, 9, "")], [replace(0, 0, "x"), {"head": 7}], [{"replace": [0]}], [1], 1):
        with pytest.raises(UserError):
            story.edit(1, ops)
    assert (lines_of(story), story.view()) == before
    with pytest.raises(UserError) as refused:
        story.edit(1, [replace(1, 3, "")])
    assert refused.value.message == "replace: found [1, 3], expected [start, end] within 2 characters"


def test_keys_typed_in_one_go_are_one_node_and_a_pause_begins_another(stories):
    story = stories.make("a", "夜")
    for version, key in enumerate("里没有", start=1):
        story.edit(version, [replace(version, version, key)])
    story.edit(4, [replace(3, 4, "")])  # backspace
    assert [node["text"] for node in story.view()["nodes"]] == ["夜", "里没"]
    story.typed_at -= 6  # seconds
    story.edit(5, [replace(3, 3, "风")])
    assert [node["text"] for node in story.view()["nodes"]] == ["夜", "里没", "风"]


def test_half_a_character_becomes_a_sign_that_a_file_can_hold(stories, reopened):
    story = stories.make("a", "夜")
    story.edit(1, [replace(1, 1, "\ud83d"), replace(2, 2, "\ude00\ud83d\ude00")])
    assert story.tree.text() == "夜\ufffd\ufffd😀"
    assert reopened(stories).get(story.id).tree.text() == "夜\ufffd\ufffd😀"


def test_a_job_goes_on_in_the_story_without_anybody_who_looks(stories, reopened):
    story = stories.make("a", "夜里")
    job, nodes = start_job(stories, story, candidates=3, seed=5)
    assert story.tree.head == nodes[0] and story.view()["jobs"] == [{"job": job.id, "nodes": nodes}]
    for _ in range(30):
        job.advance()
    view = story.view()
    assert view["text"] == "夜里" + text_of(5, 0, 30) and view["jobs"] == []
    assert [story.tree.text(node) for node in nodes] == ["夜里" + text_of(5, index, 30) for index in range(3)]
    shown = {node["id"]: node for node in view["nodes"]}[nodes[2]]
    assert (shown["why"], len(shown["nats"]), shown["index"], shown["seed"]) == ("length", 30, 2, 5)
    assert reopened(stories).get(story.id).view() == view


def test_a_job_that_died_with_the_process_is_interrupted_and_its_text_is_there(stories, tmp_path):
    story = stories.make("a", "夜里")
    job, _ = start_job(stories, story, seed=1)
    job.advance(7)
    story.take_growth()
    (tmp_path / "copy" / story.id).mkdir(parents=True)
    (tmp_path / "copy" / story.id / "journal.jsonl").write_bytes(story.journal.path.read_bytes())
    other = Stories(tmp_path / "copy")
    again = other.get(story.id)
    assert again.tree.text() == "夜里" + text_of(1, 0, 7) and again.view()["nodes"][-1]["why"] == "interrupted"
    again.edit(again.tree.version, [replace(9, 9, "。")])
    other.close()


def test_what_is_typed_while_a_job_writes_is_kept_with_what_it_writes(stories):
    story = stories.make("a", "夜里了")
    job = FakeEngine().submit(Request("夜里", 30, seed=2))
    nodes = story.begin(0, (2, 2), 1, {})
    stories.watch(story, job, nodes)
    job.advance(5)
    story.take_growth()
    job.advance(5)  # not yet in the story, nor on the page
    story.edit(2, [replace(8, 8, "。")], {nodes[0]: 5})  # 夜里 + 5 + 了 are eight
    job.advance(20)
    assert story.view()["text"] == "夜里" + text_of(2, 0, 30) + "了。"


def test_two_tabs_with_1000_random_operations_have_one_text_and_lose_nothing(stories, reopened):
    """Every character that is put in has a number of its own: afterwards each is there, or somebody took it away."""
    draw, numbers = random.Random(7), iter(range(0x4E00, 0x9FFF))
    story = stories.make("a", "".join(chr(next(numbers)) for _ in range(20)))
    tabs = [{"version": 1, "text": story.tree.text()} for _ in range(2)]
    put, taken = set(story.tree.text()), set()
    for _ in range(1000):
        tab = draw.choice(tabs)
        ops, text = [], tab["text"]
        for _ in range(draw.randint(1, 3)):
            start = draw.randint(0, len(text))
            end = min(len(text), start + draw.choice((0, 0, 1, 3)))
            new = "".join(chr(next(numbers)) for _ in range(draw.randint(0, 2)))
            taken |= set(text[start:end])
            put |= set(new)
            ops.append(replace(start, end, new))
            text = text[:start] + new + text[end:]
        story.edit(tab["version"], ops)
        if draw.random() < 0.3:  # the answer of the others' changes reaches this tab now and then only
            other = tabs[draw.random() < 0.5]
            other |= {"version": story.tree.version, "text": story.tree.text()}
        tab |= {"version": story.tree.version, "text": story.tree.text()}
    shown = story.view()
    assert sorted(shown["text"]) == sorted(put - taken)
    assert reopened(stories).get(story.id).view() == shown
    assert (story.folder / "story.txt").read_text(encoding="utf-8") == shown["text"]


def test_a_change_of_a_text_that_others_have_left_is_a_conflict_and_changes_nothing(stories):
    story = stories.make("a", "夜")
    story.edit(1, [replace(1, 1, "里")])
    story.edit(2, [{"head": 0}])
    before = lines_of(story)
    with pytest.raises(Conflict):
        story.edit(2, [replace(2, 2, "。")])
    assert lines_of(story) == before


@pytest.mark.parametrize("torn", [1, 5, 20])
def test_a_torn_last_line_is_cut_off_and_written_over(stories, reopened, torn):
    story = stories.make("a", "夜")
    story.edit(1, [replace(1, 1, "里")])
    story.edit(2, [replace(0, 0, "子")])
    stories.close()
    path = story.journal.path
    path.write_bytes(path.read_bytes()[:-torn])
    again = reopened(stories).get(story.id)
    assert again.tree.text() == "夜里"
    again.edit(again.tree.version, [replace(2, 2, "没有月亮，也没有风")])
    again.journal.flush()
    assert again.tree.text() == "夜里没有月亮，也没有风"
    records, _, damaged = journals.read_lines(path.read_bytes())
    assert damaged == 0 and records == lines_of(again)


def test_a_journal_cut_at_any_byte_opens(stories, tmp_path):
    story = stories.make("夜", "那天")
    for version in range(1, 12):
        story.edit(version, [replace(version % 2, version % 3 // 2 + version % 2, WORDS[: 1 + version % 4])])
    stories.close()
    data = story.journal.path.read_bytes()
    cut = Stories(tmp_path / "cut")
    for size in range(0, len(data), 7):
        folder = cut.folder / f"{size:08x}"
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(data[:size])
        assert cut.get(folder.name).tree.text() in {story.tree.text(node) for node in story.tree.nodes} | {""}
    cut.close()


def test_damage_in_the_middle_costs_only_what_hangs_on_it_and_the_former_file_stays(stories, reopened):
    story = stories.make("a", "夜")
    story.edit(1, [replace(1, 1, "里")])
    story.edit(2, [{"head": 0}, replace(1, 1, "色")])
    stories.close()
    lines = story.journal.path.read_bytes().split(b"\n")
    lines[2] = b"\x00" * len(lines[2])  # the node 里
    story.journal.path.write_bytes(b"\n".join(lines))
    again = reopened(stories).get(story.id)
    assert again.tree.text() == "夜色" and list(again.tree.nodes) == [0, 2]
    assert (again.folder / "journal.1.jsonl").read_bytes() == b"\n".join(lines)
    assert all(record["record"] in ("story", "node", "head") for record in lines_of(again))


def test_a_large_journal_is_compacted_when_it_is_opened_and_versions_go_on(stories, reopened, monkeypatch):
    story = stories.make("a", "夜")
    for version in range(1, 400):
        story.edit(version, [{"head": 0}])
    story.edit(400, [replace(1, 1, "里")])
    size, shown = story.journal.size, story.view()
    monkeypatch.setattr("novelgpt.studio.stories.LARGE", 4000)  # bytes
    compacted = reopened(stories)
    assert compacted.get(story.id).journal.size < size / 10
    again = reopened(compacted).get(story.id)
    assert again.view()["text"] == "夜里"
    assert again.tree.version > shown["version"]
    again.edit(shown["version"], [replace(2, 2, "。")])  # a page that was open all the time
    assert again.tree.text() == "夜里。"
    with pytest.raises(Conflict):
        again.edit(shown["version"] - 1, [replace(1, 1, "。")])


def refuse_writing(monkeypatch, number: int):
    """Let the system refuse every write behind the first ten bytes."""
    real = os.write

    def write(handle, data):
        if len(data) > 10:
            return real(handle, data[:10])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("novelgpt.studio.journal.os.write", write)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")]
)
def test_a_disk_that_takes_nothing_is_told_and_costs_neither_story_nor_growth(stories, monkeypatch, number, words):
    story = stories.make("a", "夜")
    job, _ = start_job(stories, story, seed=3)
    with story.lock:  # in one piece
        job.advance(3)
        story.take_growth()
    before = story.journal.path.read_bytes()
    with monkeypatch.context() as patch:
        refuse_writing(patch, number)
        with pytest.raises(UserError) as refused:
            story.edit(2, [replace(0, 0, "今")])
        assert refused.value.message == f"{story.journal.path}: cannot be written: {words}"
        with story.lock:
            job.advance(4)
            assert story.view()["text"] == "夜" + text_of(3, 0, 7)  # the job's text is shown all the same
        assert story.journal.path.read_bytes() == before and stories.problem.message == refused.value.message
    story.edit(2, [replace(0, 0, "今")])
    assert stories.problem is None
    assert [record["record"] for record in lines_of(story)] == ["story", "node", "node", "grow", "grow", "node"]


def test_what_a_full_disk_has_refused_is_written_when_there_is_room_though_nobody_does_anything(stories, monkeypatch):
    monkeypatch.setattr("novelgpt.studio.stories.PAUSE", 0.05)
    story = stories.make("a", "夜")
    job, _ = start_job(stories, story, seed=3)
    with monkeypatch.context() as patch:
        refuse_writing(patch, errno.ENOSPC)
        job.advance(30)
        wait_for(lambda: story.journal.waiting)
    wait_for(lambda: not story.journal.waiting and story.changed_at is None)
    assert [record["record"] for record in lines_of(story)][-2:] == ["grow", "end"]
    assert (story.folder / "story.txt").read_text(encoding="utf-8") == "夜" + text_of(3, 0, 30)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told(stories):
    os.chmod(stories.folder, 0o500)
    with pytest.raises(UserError, match="cannot be written: Permission denied"):
        stories.make("a", "夜")
    os.chmod(stories.folder, 0o700)


def test_flushing_is_the_work_of_a_thread_of_its_own(tmp_path, monkeypatch):
    import threading

    flushed, names = threading.Event(), []
    monkeypatch.setattr(
        "novelgpt.studio.journal.os.fsync",
        lambda handle: (names.append(threading.current_thread().name), flushed.set()),
    )
    stories = Stories(tmp_path)
    stories.make("a", "夜")
    assert flushed.wait(20) and names[0] == "stories-disk"
    stories.close()


def test_the_list_has_the_story_first_that_changed_last_and_none_that_was_removed(stories, reopened):
    one, two, three = (stories.make(name, text) for name, text in (("一", "夜"), ("二", "夜里"), ("三", "")))
    for number, story in enumerate((two, one, three)):
        os.utime(story.journal.path, (1000 + number, 1000 + number))
    assert [facts["name"] for facts in stories.list_all()] == ["三", "一", "二"]
    stories.remove(three.id)
    again = reopened(stories)
    assert {facts["name"]: facts["characters"] for facts in again.list_all()} == {"一": 1, "二": 2}
    assert (again.folder / "removed" / three.id / "journal.jsonl").is_file()
    for number in (three.id, "../etc", "removed", "ffffffff", ""):
        with pytest.raises(NoStory):
            again.get(number)


def test_a_removed_story_takes_its_last_growth_along_and_nothing_comes_behind(stories):
    story = stories.make("a", "夜")
    job, nodes = start_job(stories, story, seed=3)
    job.advance(4)
    stories.remove(story.id)
    with pytest.raises(NoStory):
        story.edit(story.tree.version, [replace(0, 0, "今")])
    with pytest.raises(NoStory):
        story.begin(0, (1, 1), 1, {})
    job.advance(20)
    story.take_growth()
    story.write_text()
    assert not story.folder.exists() and job.state == "stopped"
    journal = stories.folder / "removed" / story.id / "journal.jsonl"
    records = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    assert records[-1] == {"record": "end", "id": nodes[0], "why": "stopped"}
    assert "".join(record["text"] for record in records if record["record"] == "grow") == text_of(3, 0, 4)
    with pytest.raises(NoStory):
        stories.remove(story.id)


def test_one_process_holds_the_folder(stories):
    with pytest.raises(UserError, match=r"in use by pid \d+, started") as refused:
        Stories(stories.folder)
    assert refused.value.hint == "wait for it, or give --stories_dir another folder"


def test_what_two_tabs_choose_at_once_is_all_kept(stories):
    def choose(tab: int) -> None:
        for number in range(40):
            stories.preferences({f"{tab} {number}": number})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(choose, range(4)))
    assert stories.preferences() == {f"{tab} {number}": number for tab in range(4) for number in range(40)}


def test_preferences_stay(stories, reopened):
    stories.preferences({"language": "zh"})
    assert reopened(stories).preferences({"theme": "dark"}) == {"language": "zh", "theme": "dark"}


def test_a_request_that_is_sent_again_because_its_answer_was_lost_is_carried_out_once(stories, reopened):
    story = stories.make("a", "夜")
    for _ in range(2):
        story.edit(1, [replace(1, 1, "里"), replace(0, 0, "子")], key="5f")
    again = reopened(stories).get(story.id)
    again.edit(1, [replace(1, 1, "里"), replace(0, 0, "子")], key="5f")
    assert again.tree.text() == "子夜里"
