"""The engine against generate.py's samples, transformers and brute force: chances, seeds, turns, endings, stops."""

import itertools
import math
import shutil
import time
from dataclasses import replace

import pytest
import torch

from novelgpt.compute.cache import MaskedCache
from novelgpt.corpus.documents import source_sha256
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.files import write_json, write_manifest
from novelgpt.messages import UserError
from novelgpt.network import build_model, load_model, save_model
from novelgpt.studio import Busy, Engine, Job, Request
from novelgpt.studio.turns import Desk, score_text, write_job
from novelgpt.writing.copying import CopyGuard, CopyMeter
from novelgpt.writing.decoder import BLOCK, Weights
from novelgpt.writing.generation import Session, make_controls
from novelgpt.writing.recording import RecordedBatch, read_chances
from novelgpt.writing.sampling import Controls
from novelgpt.writing.text import Sample, StopRule, answer_rule

TEXT = "萧炎大喝一声，那人抬起头来。“走！”她说道：风起了……山中无人？月落乌啼霜满天江枫渔火对愁眠\n"
CONTEXT = 3 * BLOCK
LONG = (TEXT * 9)[: 2 * BLOCK + 40]  # characters, two whole blocks and a part
SETTINGS = {"topk": 20, "temperature": 0.9}
NEUTRAL = {"topp": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder whose network knows nothing but has opinions; its book is at hand."""
    place = tmp_path_factory.mktemp("engine")
    tokenizer = NovelTokenizer.from_texts([TEXT], reserved=3)
    config = {"n_layer": 2, "n_embd": 64, "n_head": 2, "n_positions": CONTEXT, "initializer_range": 0.2}
    dropout = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), 0.0)
    model = build_model({**config, **dropout}, tokenizer, seed=3)
    save_model(model, tokenizer, place / "model")
    write_json(place / "book.json", [TEXT * 3])
    source = {"path": str(place / "book.json"), "sha256": source_sha256(place / "book.json")}
    write_manifest(place / "model", corpus=source)
    return place / "model"


@pytest.fixture(scope="module")
def engine(folder):
    engine = Engine(folder, device="cpu", precision="fp32", corpus=str(folder.parent / "book.json"))
    engine.start()
    wait_for(lambda: engine.state()["model"]["ready"] or engine.problem)
    assert engine.problem is None
    engine.desk.book.cache_path = None  # no file beside the repository's own
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def desk(folder):
    model, tokenizer = load_model(folder)
    return Desk(Weights(model), tokenizer)


def wait_for(is_true, seconds: float = 60) -> None:
    """Ask again and again; a test that never ends says nothing."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.001)


def finish(job, seconds: float = 120):
    """Wait for the end of a job and return its texts."""
    wait_for(lambda: job.wait([10**9] * job.request.candidates, 1) and job.is_ended, seconds)
    assert job.state == "done", job.error
    return [job.text(index) for index in range(job.request.candidates)]


def run_turns(steps):
    """Carry out all turns; return what they yielded last."""
    last = None
    for last in steps:  # noqa: B007
        pass
    return last


def controls_of(desk, **settings):
    return make_controls(desk.tokenizer, desk.weights.device, **Request("", 1, settings=settings).values())


def change_controls(monkeypatch, **changes) -> None:
    """Let the studio choose tokens otherwise than make_controls says."""
    place = "novelgpt.studio.turns.make_controls"
    monkeypatch.setattr(place, lambda *parts, **more: replace(make_controls(*parts, **more), **changes))


def expected_texts(desk, prompt, rule, count, seed, **settings) -> list[str]:
    """Return what generate.py writes."""
    session = Session(desk.weights, desk.tokenizer, controls_of(desk, **settings), seed)
    ids = desk.tokenizer.encode_prefix(prompt)
    return [session.show_new(sample) for sample in session.write_batch(ids, rule, range(count))]


@pytest.mark.parametrize("prompt", ["", "萧炎大喝", LONG, LONG * 3], ids=["empty", "short", "long", "beyond"])
def test_texts_are_those_of_generate_with_the_same_seed(engine, desk, prompt):
    job = engine.submit(Request(prompt, 60, candidates=3, settings=SETTINGS, seed=7))
    assert finish(job) == expected_texts(desk, prompt, StopRule(60), 3, 7, **SETTINGS)
    assert [job.reason(index) for index in range(3)] == ["length"] * 3


def test_a_text_runs_on_beyond_the_context_as_that_of_generate(engine, desk):
    job = engine.submit(Request("萧炎", 3 * CONTEXT, settings={"topk": 0}, seed=1, keep_head=5))
    assert finish(job) == expected_texts(desk, "萧炎", StopRule(3 * CONTEXT), 1, 1, topk=0, keep_head=5)


@pytest.mark.parametrize("ending", ["sentence", "paragraph"])
def test_endings_are_those_of_generate(engine, desk, ending):
    # top-k 0 over 321 tokens: an end comes soon
    jobs = [engine.submit(Request("萧炎", 20, ending=ending, settings={"topk": 0}, seed=seed)) for seed in range(6)]
    texts = [finish(job)[0] for job in jobs]
    rule = StopRule(20, ending)
    assert texts == [expected_texts(desk, "萧炎", rule, 1, seed, topk=0)[0] for seed in range(6)]
    assert {job.reason(0) for job in jobs} == {ending}


def test_without_an_end_within_the_bound_a_candidate_ends_there_and_keeps_what_was_shown(engine, desk, monkeypatch):
    # only one character may be written, which ends nothing
    (kept,) = desk.tokenizer.encode("萧").tolist()
    change_controls(monkeypatch, banned=torch.tensor([i for i in range(desk.tokenizer.vocab_size) if i != kept]))
    job = engine.submit(Request("萧炎", 5, ending="sentence", seed=0))
    finish(job)
    assert job.reason(0) == "length" and len([token for piece in job.pieces() for token in piece.tokens]) == 205


def test_jobs_beside_each_other_change_no_text(engine, desk):
    requests = [Request(prompt, 40, candidates=2, settings=SETTINGS, seed=5) for prompt in ("萧炎", LONG, "月落")]
    alone = [finish(engine.submit(request)) for request in requests]
    jobs = [engine.submit(request) for request in requests]
    assert [finish(job) for job in jobs] == alone


def test_a_forced_beginning_stands_before_what_is_written_after_it(engine, desk):
    job = engine.submit(Request(LONG, 30, forced="那人", settings=SETTINGS, seed=2, top=3))
    (text,) = finish(job)
    assert text == "那人" + expected_texts(desk, LONG + "那人", StopRule(30), 1, 2, **SETTINGS)[0]
    tokens = [token for piece in job.pieces() for token in piece.tokens]
    assert [token.text for token in tokens[:2]] == ["那", "人"] and tokens[0].after == ()
    scored = engine.score(LONG + "那人", len(LONG), len(LONG) + 2, top=3)
    assert [token.id for token in scored] == [token.id for token in tokens[:2]]
    for one, other in zip(scored, tokens, strict=False):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_a_stop_text_ends_a_candidate_before_it_and_is_never_shown(engine):
    (whole,) = finish(engine.submit(Request("萧炎", 80, settings=SETTINGS, seed=3)))
    stop = whole[20:23]
    cut = whole.index(stop)
    job = engine.submit(Request("萧炎", 80, settings=SETTINGS, seed=3, stops=("绝不", stop)))
    assert finish(job) == [whole[:cut]] and job.reason(0) == "stop"
    assert len(job.nats(0)) == cut and "".join(piece.text for piece in job.pieces()) == whole[:cut]


def test_a_beginning_of_a_stop_text_that_comes_to_nothing_is_shown(engine):
    (whole,) = finish(engine.submit(Request("萧炎", 80, settings=SETTINGS, seed=3)))
    job = engine.submit(Request("萧炎", 80, settings=SETTINGS, seed=3, stops=(whole[-3:] + "绝不",)))
    assert finish(job) == [whole]


def test_no_piece_has_a_torn_character_though_the_model_writes_torn_bytes(engine, desk, monkeypatch):
    change_controls(monkeypatch, spelling=None)
    job = engine.submit(Request("萧炎", 400, candidates=4, settings={"topk": 0, "temperature": 3.0}, seed=1, top=20))
    finish(job)
    tokens = [token for piece in job.pieces() for token in piece.tokens]
    byte_ids = set(desk.tokenizer.byte_ids[0x80:].tolist())
    assert sum(token.id in byte_ids for token in tokens) > 100  # they are there
    texts = [piece.text for piece in job.pieces()]
    texts += [choice[0] for token in tokens for choice in (*token.top, *token.after)]
    assert not any("\ufffd" in text or text == "" for text in texts if text is not None and text != "") and tokens
    assert not any("\ufffd" in text for text in texts)
    assert all(choice[0] for token in tokens for choice in token.top)
    for index in range(4):
        pieces = [piece for piece in job.pieces() if piece.index == index]
        assert "".join(token.text for piece in pieces for token in piece.tokens) == job.text(index)
        # a torn character's nats count with the next one
        spent = -sum(token.logprob for piece in pieces for token in piece.tokens)
        assert len(job.nats(index)) == len(job.text(index)) and sum(job.nats(index)) <= spent + 1e-3


def reference(folder, ids: list[int]) -> torch.Tensor:
    """Return transformers' probabilities (N, V) after each token."""
    model, _ = load_model(folder)
    with torch.no_grad():
        return model.eval()(torch.tensor([ids])).logits[0].softmax(1)


def test_probabilities_and_ten_alternatives_are_those_of_transformers(engine, folder, desk):
    tokenizer = desk.tokenizer
    job = engine.submit(Request("萧炎大喝", 100, settings={**NEUTRAL, "topk": 5, "temperature": 0.7}, seed=4, top=10))
    finish(job)
    tokens = [token for piece in job.pieces() for token in piece.tokens]
    before = tokenizer.encode_prefix("萧炎大喝").tolist()
    chances = reference(folder, before + [token.id for token in tokens])
    for place, token in enumerate(tokens, len(before) - 1):
        expected = chances[place].topk(10)
        assert abs(math.exp(token.logprob) - chances[place, token.id]) <= 1e-3
        assert [choice[1] for choice in token.top] == expected.indices.tolist()
        assert all(abs(math.exp(c[2]) - e) <= 1e-3 for c, e in zip(token.top, expected.values.tolist(), strict=True))
        assert token.rank == 1 + int((chances[place] > chances[place, token.id]).sum())
        # what could be drawn: five tokens that are text, at that temperature
        assert len(token.after) == 5 and sum(math.exp(choice[2]) for choice in token.after) == pytest.approx(1)
        assert token.id in [choice[1] for choice in token.after]
        ratio = token.after[0][2] - token.after[1][2]
        model = (chances[place, token.after[0][1]] / chances[place, token.after[1][1]]).log()
        assert ratio == pytest.approx(float(model) / 0.7, abs=1e-2)


def test_the_step_for_gpus_notes_the_facts_that_the_step_for_cpus_notes(desk, monkeypatch):
    found = []
    for on_device in (False, True):
        if on_device:
            monkeypatch.setattr("novelgpt.writing.decoder.cache_for", lambda device: MaskedCache)
        samples = [Sample(index, desk.tokenizer.encode_prefix("萧炎").tolist()) for index in range(2)]
        settings = desk.weights, desk.endings, controls_of(desk, **NEUTRAL, topk=5), StopRule(40), samples
        batch = RecordedBatch(*settings, 3, top=7)
        if on_device:
            batch.replay = batch.decode_token_on_device
        facts = []
        for _ in range(3):
            first = batch.count
            batch.decode_many(13)  # the ring of 16 runs over
            facts.append(batch.facts(first))
        found.append([fact for rows in facts for row in rows for fact in row])
    assert len(found[0]) == 78
    for one, other in zip(*found, strict=True):
        assert (one.rank, [name for name, _ in one.top]) == (other.rank, [name for name, _ in other.top])
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [name for name, _ in one.after] == [name for name, _ in other.after] and len(one.after) == 5


def test_scored_text_is_told_what_could_be_drawn_there_by_transformers_probabilities(engine, folder, desk):
    settings = {**NEUTRAL, "topk": 5, "temperature": 0.7}
    tokens = engine.score(TEXT, 3, len(TEXT), top=10, settings=settings)
    assert all(not token.after for token in engine.score(TEXT, 3, len(TEXT), top=10))
    chances = reference(folder, desk.tokenizer.encode_prefix(TEXT).tolist())
    byte = desk.tokenizer.byte_ids.tolist()
    banned = torch.tensor([*controls_of(desk).banned.tolist(), *byte[0x80:0xC2], *byte[0xF1:]])  # begin no character
    for place, token in enumerate(tokens, 3):
        logits = chances[place].log().index_fill(0, banned, -math.inf)
        best, alternatives = logits.topk(5), {choice[1] for choice in token.top}
        left = zip(best.indices.tolist(), (best.values / 0.7).softmax(0).tolist(), strict=True)
        expected = [(token_id, chance) for token_id, chance in left if token_id in alternatives]
        assert [choice[1] for choice in token.after] == [token_id for token_id, _ in expected]
        assert all(abs(math.exp(c[2]) - e) <= 1e-3 for c, (_, e) in zip(token.after, expected, strict=True))
    assert "".join(token.text for token in tokens) == TEXT[3:] and sum(len(token.after) for token in tokens) > 100
    with pytest.raises(UserError, match="topk: found '-1'"):
        engine.score(TEXT, 0, 3, settings={"topk": -1})


def test_penalties_count_what_stands_before_each_place():
    text, wanted = torch.tensor([1, 2, 3, 1, 2, 0]), torch.tensor([[2, 3], [3, 4]])
    found = read_chances(torch.zeros(2, 5), text, wanted, Controls(no_repeat_ngram_size=3))
    # behind 1 2 the run 1 2 3 would stand twice
    one_of_5, one_of_4 = pytest.approx(-math.log(5)), pytest.approx(-math.log(4))
    assert found == [[(2, one_of_5), (3, one_of_5)], [(4, one_of_4)]]


def test_typed_text_is_scored_as_transformers_does_torn_characters_too(engine, folder, desk):
    text = "她说道：🌙風起了"  # neither is in the vocabulary
    tokens = engine.score(text, 2, len(text), top=10)
    ids = desk.tokenizer.encode_prefix(text).tolist()
    chances, first = reference(folder, ids), 3
    assert [token.id for token in tokens] == ids[first:]
    assert "".join(token.text for token in tokens) == text[2:]
    for place, token in enumerate(tokens, first - 1):
        assert abs(math.exp(token.logprob) - chances[place, token.id]) <= 1e-3
        assert [choice[1] for choice in token.top] == chances[place].topk(10).indices.tolist()


def test_a_stretch_longer_than_the_context_is_scored_to_its_last_character(desk):
    text = TEXT * (4 * CONTEXT // len(TEXT))
    tokens = run_turns(score_text(desk, text, 0, len(text), 2))
    assert "".join(token.text for token in tokens) == text
    assert run_turns(score_text(desk, text, 5, 5, 2)) == []


def test_a_stretch_that_is_not_there_is_refused(engine):
    for start, end in ((-1, 2), (3, 2), (0, 9)):
        with pytest.raises(UserError, match="found a text of 2 characters"):
            engine.score("萧炎", start, end)


def test_what_was_read_is_not_read_again_and_the_text_is_the_same(desk, engine):
    request = Request(LONG, 30, settings=SETTINGS, seed=9)
    texts, blocks = [], []
    own = Desk(desk.weights, desk.tokenizer)
    # the same text again, one that goes on, one that leaves it in the second block, an alternative
    for prompt, forced in (
        (LONG, ""),
        (LONG, ""),
        (LONG + "月落", ""),
        (LONG[: BLOCK + 20] + "山中", ""),
        (LONG, "走"),
    ):
        job = Job(Request(prompt, 30, settings=SETTINGS, seed=9, forced=forced))
        run_turns(write_job(job, own))
        assert finish(job) == [forced + expected_texts(desk, prompt + forced, StopRule(30), 1, 9, **SETTINGS)[0]]
        blocks.append(own.readings[0].start)
        texts.append(job.text(0))
    assert texts[0] == texts[1]
    assert blocks == [0, len(LONG) + 1, 2 * BLOCK, BLOCK, 2 * BLOCK]
    assert request.prompt == LONG


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_a_prefix_taken_from_an_earlier_text_gives_the_same_bits(folder, kind):
    model, tokenizer = load_model(folder)
    own = Desk(Weights(model, kind=kind), tokenizer)
    ids = tokenizer.encode_prefix(LONG).tolist()
    fresh = own.read(ids, tail=3)
    run_turns(fresh.read_blocks())
    other = own.read(ids[: BLOCK + 9])
    run_turns(other.read_blocks())
    own.keep(other)
    later = own.read(ids, tail=3)
    run_turns(later.read_blocks())
    assert later.start == BLOCK and torch.equal(later.logits, fresh.logits)


def test_twenty_jobs_move_in_turn_and_all_finish(engine):
    with engine.work:  # nothing is begun before all are there
        jobs = [engine.submit(Request(f"萧炎{'大' * place}", 48, settings=SETTINGS, seed=place)) for place in range(20)]
    wait_for(lambda: all(job.num_characters for job in jobs))
    assert all(len(finish(job)[0]) for job in jobs)
    # nobody waited until another was done: each began before any ended
    assert max(job.began for job in jobs) < min(job.finished for job in jobs)


def test_a_stopped_job_leaves_the_engine_idle_at_once(engine):
    seconds = []
    for _ in range(5):
        job = engine.submit(Request(LONG * 3, 10_000, candidates=8, seed=0))
        wait_for(lambda job=job: job.num_characters > 0)
        began = time.perf_counter()
        job.stop()
        text = job.text(0)
        wait_for(lambda: engine.state()["running"] == 0)
        seconds.append(time.perf_counter() - began)
        assert job.state == "stopped" and job.text(0) == text and job.reason(0) == "stopped"
    assert min(seconds) <= 0.1, seconds


def test_beyond_the_queue_a_request_is_refused_and_places_are_told(folder):
    engine = Engine(folder)  # never started: all of them wait
    jobs = [engine.submit(Request("萧炎", 5)) for _ in range(32)]
    assert [job.position for job in jobs] == list(range(1, 33)) and engine.state()["queue"] == 32
    with pytest.raises(Busy, match="32 jobs are waiting, no more can"):
        engine.submit(Request("萧炎", 5))
    jobs[3].stop()
    assert engine.submit(Request("萧炎", 5)).position == 32 and jobs[31].position == 31
    assert engine.find(jobs[7].id) is jobs[7] and engine.find("nonsense") is None
    engine.close()
    assert {job.state for job in jobs} == {"stopped"}


def test_what_has_ended_takes_little_memory(engine, monkeypatch):
    jobs = [engine.submit(Request("萧炎", 10, seed=1, top=top)) for top in (0, 0, 5, 0, 0)]
    finish(jobs[-1])
    monkeypatch.setattr("novelgpt.studio.engine.KEPT_CHARACTERS", 2.5 * jobs[0].num_characters)
    last = engine.submit(Request("萧炎", 5, seed=1))
    finish(last)
    # two texts are within two and a half, and one with alternatives is never kept
    assert [engine.find(job.id) is job for job in jobs] == [False, False, False, True, True]
    assert engine.find(last.id) is last


def test_unknown_settings_and_values_out_of_range_are_refused_at_once(engine):
    with pytest.raises(UserError, match="unknown setting temprature"):
        engine.submit(Request("萧炎", 5, settings={"temprature": 1}))
    with pytest.raises(UserError, match="topp: found '2', expected a number from 0 to 1"):
        engine.submit(Request("萧炎", 5, settings={"topp": 2}))
    with pytest.raises(UserError, match="temperature: found '1000"):
        engine.submit(Request("萧炎", 5, settings={"temperature": 10**400}))
    with pytest.raises(UserError, match="--keep_head: found 300, expected at most 96"):
        engine.submit(Request("萧炎", 5, keep_head=300))


def test_titles_are_those_of_generate_with_a_mark(tmp_path):
    tokenizer = NovelTokenizer.from_texts([TEXT], reserved=3).add_tokens(["[TIL]"])
    config = {"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": CONTEXT, "initializer_range": 0.3}
    save_model(build_model(config, tokenizer, seed=3), tokenizer, tmp_path / "model")
    model, tokenizer = load_model(tmp_path / "model")
    own = Desk(Weights(model), tokenizer, model_path=str(tmp_path / "model"))
    job = Job(Request(TEXT, 40, candidates=5, seed=3, mark="[TIL]"))
    run_turns(write_job(job, own))
    session = Session(own.weights, tokenizer, controls_of(own), 3)
    ids, rule = [*tokenizer.encode_prefix(TEXT).tolist(), tokenizer.marks["[TIL]"]], answer_rule(40)
    expected = [session.show_new(sample) for sample in session.write_batch(ids, rule, range(5))]
    assert [job.text(index) for index in range(5)] == expected
    assert all(expected) and own.has_titles
    with pytest.raises(UserError, match="mark: found '\\[WS\\]', expected a token of the model"):
        own.check(Request(TEXT, 40, mark="[WS]"))


def test_a_text_that_no_vocabulary_spells_fails_its_job_alone(engine):
    bad, good = engine.submit(Request("萧\ud800", 5)), engine.submit(Request("萧", 5))
    finish(good)
    assert bad.state == "failed" and bad.error == "character 1 of the text is the lone surrogate U+D800"


def test_a_listener_that_breaks_is_called_no_more_and_its_job_goes_on(capsys):
    job, heard = Job(Request("萧炎", 5)), []

    def broken():
        heard.append("broken")
        raise RuntimeError("the loop is closed")

    job.listeners += [broken, lambda: heard.append("whole")]
    job.begin()
    job.end(0, "length")
    assert heard == ["broken", "whole", "whole"] and job.state == "done"
    assert "RuntimeError: the loop is closed" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["missing", "torn", "other"])
def test_a_damaged_folder_is_told_in_the_state_and_to_who_waits(folder, tmp_path, damage):
    place = tmp_path / "model"
    if damage != "missing":
        shutil.copytree(folder, place)
        path = place / ("model.safetensors" if damage == "torn" else "config.json")
        path.write_bytes(path.read_bytes()[:90])
    engine = Engine(place)
    job = engine.submit(Request("萧炎", 5))
    engine.start()
    wait_for(lambda: engine.problem)
    wait_for(lambda: job.is_ended)
    model = engine.state()["model"]
    assert not model["ready"] and str(place) in model["error"]["message"] and model["error"]["hint"]
    assert job.state == "failed" and job.error == model["error"]["message"]
    with pytest.raises(UserError) as refused:
        engine.submit(Request("萧炎", 5))
    assert refused.value.message == job.error
    engine.close()


def test_a_folder_that_changes_under_way_is_told_and_changes_no_text(folder, tmp_path, desk):
    shutil.copytree(folder, tmp_path / "model")
    progress = []
    engine = Engine(tmp_path / "model", device="cpu", precision="fp32", on_progress=progress.append)
    engine.start()
    wait_for(lambda: engine.desk)
    assert progress == sorted(progress) and not engine.state()["model"]["changed"]
    # in place, as cp does it: what is mapped into memory would be gone
    with open(tmp_path / "model" / "model.safetensors", "r+b") as file:
        file.truncate(100)
    assert engine.state()["model"]["changed"]
    job = engine.submit(Request(LONG, 40, settings=SETTINGS, seed=7))
    assert finish(job) == expected_texts(desk, LONG, StopRule(40), 1, 7, **SETTINGS)
    engine.close()


def test_the_state_tells_the_model_the_book_and_the_rate(engine, folder):
    finish(engine.submit(Request("萧炎", 30)))
    state = engine.state()
    model = state["model"]
    assert (model["name"], model["context"], model["precision"]) == (str(folder), CONTEXT, "fp32")
    assert model["parameters"] == load_model(folder)[0].num_parameters()
    assert (model["ready"], model["progress"], model["error"], model["book"]) == (True, 1.0, None, "book")
    assert state["rate"] > 0


def test_tokens_are_ids_of_the_vocabulary_and_back(engine, desk):
    ids = engine.tokenize("萧炎🌙[CLS]")
    assert ids == desk.tokenizer.encode("萧炎🌙[CLS]").tolist() and engine.detokenize(ids) == "萧炎🌙[CLS]"
    with pytest.raises(UserError, match="token id 99999"):
        engine.detokenize([99999])


def longest_run(text: str, book: str, start: int) -> int:
    """Return the longest run of the book that ends behind a place of the text, by trying all of them."""
    pairs = itertools.combinations(range(len(text) + 1), 2)
    return max((end - begin for begin, end in pairs if end > start and text[begin:end] in book), default=0)


@pytest.mark.parametrize("limit", [1, 3, 6])
def test_the_guard_bans_what_brute_force_bans(desk, limit):
    book = TEXT * 2
    meter = CopyMeter([book[:60], book[60:]])
    documents = [book[:60], book[60:]]
    for place in range(3, 60, 4):
        before = book[:place]
        guard = CopyGuard(desk.tokenizer, meter, limit, before, 1)
        found = set(guard.banned(0))
        expected = set()
        for token_id, name in enumerate(desk.names):
            if name.startswith(("[", "<0x")):
                continue
            text, runs = before + name, range(len(before) + len(name) - limit)
            if any(text[s : s + limit + 1] in d for s in runs if s + limit >= len(before) for d in documents):
                expected.add(token_id)
        assert found == expected


def test_with_a_guard_no_run_of_the_book_grows_beyond_it(engine, folder):
    # one that copies as well as it can: the best token always, from the book itself
    text = TEXT * 3
    job = engine.submit(Request(TEXT[:9], 120, settings={"topk": 2}, seed=1, guard=2, candidates=2))
    for written in finish(job):
        whole = TEXT[:9] + written
        assert longest_run(whole[6:], text, 3) <= 2


def test_a_guard_without_the_book_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "manifest.json").unlink()
    engine = Engine(tmp_path / "model")
    engine.start()
    wait_for(lambda: engine.desk)
    with pytest.raises(UserError, match="guard: the book that the model was trained on is not at hand"):
        engine.submit(Request("萧炎", 5, guard=20))
    engine.close()


def test_many_jobs_leave_nothing_behind(engine):
    for _ in range(10):
        jobs = [engine.submit(Request("萧炎", 4, seed=seed)) for seed in range(20)]
        for job in jobs:
            finish(job)
    wait_for(lambda: engine.state()["running"] == 0)
    finish(engine.submit(Request("萧炎", 4)))
    assert len(engine.jobs) <= 66 and engine.state()["queue"] == 0
