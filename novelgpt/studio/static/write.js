// The writing page: what each button and key does, and what is said about it.
import { $, closeDrawers, fillSheets, listenTabs, make, openDrawer, Settings, showLooks, showTab, speak, word } from "./words.js";
import { ask, Jobs, login, pause, Refusal } from "./stream.js";
import { Editor } from "./editor.js";
import { size } from "./paragraphs.js";
import { Story } from "./tree.js";
import { Card, drawBranches, drawCandidates } from "./card.js";
import { Chapters, findOpenings, Mirror, readFile, showExport, showStories } from "./panels.js";

let [state, settings, mirror, card] = [null, null, null, null];

export const editor = new Editor($("text"), $("page"), {
  onEdit: (op) => {
    story.edit(op);
    $("undo").disabled = false;
    drawSoon();
    lookAgain(op.replace[0], op.replace[0] + size(op.text));
  },
  onUndo: (again) => run(again ? redo : undo),
});
const story = new Story(editor, { onChange: drawStory, onState: showSaved, onJobs: (all) => all.forEach((job) => jobs.follow(job)) });
const chapters = new Chapters(editor, closeDrawers);
const jobs = new Jobs({ story, editor, onNews: showNews, onEnd: showEnd, fail });

const say = (text) => ($("status").textContent = text);

function fail(refusal) {
  if (!(refusal instanceof Error)) return;
  if (refusal.status === undefined) console.error(refusal);
  const text = refusal.status === 401 ? word("login") : refusal.message;
  $("warning").replaceChildren(text, make("small", {}, refusal.hint ?? ""));
  clearTimeout(fail.timer);
  fail.timer = setTimeout(() => $("warning").replaceChildren(), 12000);
}

const run = (action) => Promise.resolve().then(action).catch(fail);

function showSaved(how, refusal) {
  $("saved").textContent = word({ saved: "saved", lost: "notSaved" }[how] ?? "saving");
  if (how === "lost") fail(refusal);
  if (how === "saved" && fail.lost) $("warning").replaceChildren();
  fail.lost = how === "lost";
  if (how === "moved") say(word("moved"));
}

// ---- the story on the page

function drawStory(place = null) {
  if (document.activeElement !== $("name")) $("name").value = story.name;
  const { all, at } = story.versions();
  $("version").textContent = all.length > 1 ? `${at + 1}/${all.length}` : "";
  $("previous").disabled = at <= 0;
  $("next").disabled = at < 0 || at >= all.length - 1;
  $("undo").disabled = story.nodes.get(story.head)?.parent == null && !story.waiting.length;
  $("redo").disabled = story.redo === null;
  drawBranches(story, $("branch-list"));
  drawText();
  if (place) lookAgain(place.start, place.end);
}

// The text has changed here: what is said about it is asked for again.
function lookAgain(start, end) {
  mirror?.changed(start, end);
  card?.close();
  card?.refreshSoon();
}

function drawText() {
  drawCandidates({ nodes: story.batch(), story, jobs, choose: takeCandidate });
  $("stop").disabled = !jobs.isRunning;
  $("retry").disabled = !story.written();
  $("text").classList.toggle("empty", editor.paragraphs.length === 1 && !editor.paragraphs[0].len);
  $("count").textContent = word("characters", { n: editor.size.toLocaleString() });
  chapters.draw();
}

function drawSoon() {
  drawSoon.timer ??= setTimeout(() => {
    drawSoon.timer = null;
    drawText();
  }, 100);
}

// ---- what is written

// Write on; position: the place from which the text is replaced, or where it goes in with insert.
async function start(options = {}) {
  if (editor.composing || start.isAsking) return;
  start.isAsking = true; // a second press meanwhile is none
  const asked = jobs.stopAll().then(() => jobs.start({ ...options, ...settings.request }));
  const { nodes, seed, changed } = await asked.finally(() => (start.isAsking = false));
  $("seed").placeholder = seed;
  if (changed) fail(new Refusal(0, { error: { message: word("modelChanged") } }));
  if (nodes.length > 1) showTab("candidates");
  say(word("writing"));
}

function showNews({ rate, position }, place) {
  $("rate").textContent = position ? word("queued", { n: position }) : rate ? word("rate", { n: Math.round(rate) }) : "";
  if (place !== undefined) mirror.written(place);
  drawSoon();
}

function showEnd({ state: how, error }, node) {
  if (how === "failed") fail(new Refusal(0, { error: { message: word("failed", { why: error ? word(error) : "" }) } }));
  say(word(how === "stopped" ? "stopped" : "wrote", { n: size(node?.text ?? "") }));
  if (node) mirror.changed(node.replace[0], node.replace[0] + size(node.text));
  drawText();
}

function retry() {
  const node = story.written();
  if (!node) return;
  const [position, end] = node.replace;
  return start({ node: node.parent, position, insert: position === end });
}

const proceed = () => jobs.isRunning || start();
const rewrite = () => start({ position: Math.min(...editor.place) });
const insertHere = () => start({ position: editor.place[1], insert: true });
const here = () => card.open(editor.place[1] - 1, true);

function takeCandidate(i) {
  const id = story.batch()[i]; // the one that is seen now
  return run(() => story.go(() => id));
}

const save = () => showExport(story).then(() => say(word(story.isUnsaved ? "notSaved" : "savedLong")));

const undo = async () => (await story.walk(true)) && say(word("undone"));
const redo = async () => (await story.walk(false)) && say(word("redone"));

const walkVersions = (step) => story.go(() => {
  const { all, at } = story.versions();
  const next = all[at + step];
  if (next !== undefined) say(word("version", { n: at + step + 1, all: all.length }));
  return next;
});

// ---- stories, in and out

async function openStory(id) {
  jobs.closeAll();
  await story.open(id);
  history.replaceState(null, "", `#story=${id}`);
  $("title-list").replaceChildren();
  if (state.preferences.story !== id) keep({ story: id });
  editor.following = true;
  editor.follow();
  $("stories").close();
  closeDrawers();
  showSaved("saved");
}

const makeStory = async (facts) => openStory((await ask("/api/stories", { name: word("unnamed"), ...facts })).id);

const choose = () => showStories({
  current: story.id,
  open: (id) => run(() => openStory(id)),
  gone: (id) => run(async () => {
    if (id === story.id) await openFirst();
    await choose();
  }),
});

async function openFirst() {
  const [first] = (await ask("/api/stories")).stories;
  await (first ? openStory(first.id) : makeStory({}));
}

// ---- buttons, keys, drawers

function toggle(id) {
  const isOn = document.body.toggleAttribute(`data-${id}`);
  $(id).setAttribute("aria-pressed", String(isOn));
  return isOn;
}

function escape() {
  if (!$("card").hidden) return card.close();
  if (!closeDrawers()) run(() => jobs.stopAll());
}

const BUTTONS = {
  continue: proceed, stop: () => jobs.stopAll(), retry, rewrite, insert: insertHere, here, undo, redo,
  previous: () => walkVersions(-1), next: () => walkVersions(1), "new-chapter": () => chapters.begin(),
  entitle: () => chapters.entitle(story, settings.request.settings),
  "open-stories": choose, "open-export": save, "open-help": () => $("help").showModal(),
  "open-menu": () => openDrawer("menu"), "open-panels": () => openDrawer("panels"), "new-story": () => makeStory({}),
  language: () => keep({ language: document.documentElement.lang === "en" ? "zh-CN" : "en" }),
  surprise: () => card.toggle(toggle("surprise")), reader: () => toggle("reader"),
  "find-opening": () => findOpenings($("opening-text").value, (text) => run(() => makeStory({ text }))),
};
const ALT = {
  KeyQ: proceed, KeyR: retry, KeyE: retry, KeyP: here,
  ArrowLeft: () => walkVersions(-1), ArrowRight: () => walkVersions(1),
  ArrowUp: () => chapters.walk(-1), ArrowDown: () => chapters.walk(1),
};

// What a key does, by its place on the keyboard; letters with Ctrl by what is printed on them.
function actionOf(event) {
  const { code, key, altKey, ctrlKey, metaKey, shiftKey, target } = event;
  const isField = target.matches("input, select");
  if (code === "Escape" && !document.querySelector("dialog[open]")) return escape;
  if (document.querySelector("dialog[open]")) return null;
  if (altKey && !ctrlKey && !metaKey) {
    const digit = code.match(/^(?:Digit|Numpad)([1-8])$/);
    return digit ? () => takeCandidate(digit[1] - 1) : ALT[code];
  }
  if ((ctrlKey || metaKey) && !altKey) {
    const letter = /^[a-z]$/i.test(key) ? key.toLowerCase() : code.replace("Key", "").toLowerCase();
    if (code === "Enter" || code === "NumpadEnter") return proceed;
    if (letter === "s") return save;
    if (!isField && letter === "z") return shiftKey ? redo : undo;
    if (!isField && letter === "y") return redo;
  }
  if (key === "?" && !isField && !target.isContentEditable) return BUTTONS["open-help"];
  return null;
}

function onKey(event) {
  if (event.isComposing || event.keyCode === 229 || editor.composing) return;
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  run(action);
}

function listen() {
  listenTabs();
  for (const [id, action] of Object.entries(BUTTONS)) $(id).addEventListener("click", () => run(action));
  document.addEventListener("keydown", onKey);
  $("page").addEventListener("pointerdown", closeDrawers);
  document.querySelector("footer").addEventListener("mousedown", (event) => event.preventDefault()); // the caret stays
  $("name").addEventListener("change", () => run(() => story.rename($("name").value.trim() || word("unnamed"))));
  $("import-file").addEventListener("change", ({ target }) => run(async () => {
    if (target.files.length) await makeStory(await readFile(target.files[0]));
    target.value = "";
  }));
  for (const id of ["theme", "font", "size"]) $(id).addEventListener("change", () => keep({ [id]: $(id).value }));
  for (const id of ["indent", "origins"]) $(id).addEventListener("change", () => keep({ [id]: $(id).checked }));
}

// Remember a choice on the server, and show it.
function keep(choice) {
  Object.assign(state.preferences, choice);
  showLooks(state.preferences);
  if (choice.language) {
    speak(choice.language);
    settings.draw();
    mirror.draw();
    drawStory();
    [$("saved"), $("rate")].forEach((line) => line.replaceChildren());
  }
  run(() => ask("/api/preferences", choice));
}

async function showModel({ model, error }) {
  const percent = `${Math.round(100 * (model.progress ?? 0))} %`;
  $("state").textContent = model.ready ? model.name : model.error ? word("noModel") : word("loading", { p: percent });
  $("state").classList.toggle("calm", model.ready);
  [$("entitle").hidden, state.has_book] = [!model.titles, Boolean(model.book)]; // both are known when it is loaded
  if (model.error ?? error) fail(new Refusal(0, { error: model.error ?? error }));
  if (model.ready || model.error) return mirror.changed(0, editor.size);
  await pause(500);
  await showModel(await ask("/api/state"));
}

async function begin() {
  fillSheets();
  speak(navigator.language);
  listen();
  await login();
  state = await ask("/api/state");
  showLooks(state.preferences);
  speak(state.preferences.language ?? navigator.language);
  settings = new Settings({ state, keep });
  mirror = new Mirror({ editor, story, state, fail });
  const take = (position, forced) => run(() => start({ position, forced }));
  card = new Card($("card"), { editor, story, take, filters: () => settings.request.settings, fail });
  const id = new URLSearchParams(location.hash.slice(1)).get("story") ?? state.preferences.story;
  await (id ? openStory(id).catch(openFirst) : openFirst());
  mirror.draw();
  document.body.dataset.ready = "";
  await showModel(state);
}

run(begin);
