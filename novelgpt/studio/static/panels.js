// What stands beside the text: chapters, what the book says of it, the book itself, the settings of the next text.
import { $, make, word } from "./words.js";
import { ask } from "./stream.js";
import { cut, size } from "./paragraphs.js";

const LEAST = 20; // characters of a run that counts as copied
const REACH = 10000; // characters that one look at the book covers
const EDGE = 400; // characters around a change in which a run may have begun or ended
const PAUSE = 900; // milliseconds without a change
const LIVE = 400; // milliseconds between two looks while the model writes

const faint = (key, values) => make("p", { class: "faint" }, word(key, values));
const fill = (id, items, none) => $(id).replaceChildren(...(items.length ? items : [make("li", { class: "faint" }, word(none))]));
const HEADING = /^\s*(第[〇零一二三四五六七八九十百千两\d０-９]{1,9}[章回节卷集部篇](?![^\s:：、.]{30})|序章|楔子|尾声|番外|chapter\s+\d)/i;
const NUMBER = /^\s*((第\S+?[章回节卷集部篇]\s*)+|序章|楔子|尾声|番外|chapter\s+\d+)/i;
const DIGITS = "零一二三四五六七八九";

// The number of a chapter in Chinese, 1 to 9999.
function numeral(n) {
  const parts = [...String(n)].map(Number);
  const text = parts.map((digit, i) => (digit ? DIGITS[digit] + ["", "十", "百", "千"][parts.length - 1 - i] : "零")).join("");
  return text.replace(/零+/g, "零").replace(/零$/, "").replace(/^一十/, "十");
}

// The outline: paragraphs that are headings.
export class Chapters {
  constructor(editor, onGo) {
    Object.assign(this, { editor, onGo, drawn: null });
  }

  get found() {
    return this.editor.paragraphs.filter((p) => p.len < 60 && HEADING.test(p.text));
  }

  draw() {
    const { found } = this;
    const drawn = [document.documentElement.lang, ...found.map((p) => p.text)].join("\n");
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    fill("chapter-list", found.map((p, i) => make("li", {},
      make("button", { lang: "zh-CN", click: () => this.go(this.found[i]) }, p.text.trim()))), "noChapters");
  }

  go(p) {
    if (!p) return;
    const { editor } = this;
    this.onGo();
    editor.root.focus({ preventScroll: true });
    const at = editor.startOf(editor.paragraphs.indexOf(p));
    editor.setCaret([at, at]);
    p.el.scrollIntoView({ block: "start" });
  }

  walk(step) {
    const { paragraphs, place } = this.editor;
    const [here, found] = [this.editor.locate(place[1])[0], this.found.map((p) => paragraphs.indexOf(p))];
    this.go(paragraphs[step > 0 ? found.find((at) => at > here) : found.findLast((at) => at < here)]);
  }

  // Begin the next chapter at the end of the text.
  begin() {
    const { editor, found } = this;
    const last = found.at(-1)?.text.match(/第(.+?)([章回节卷集部篇])/);
    const isDigits = last && /\d/.test(last[1].normalize("NFKC"));
    const n = found.filter((p) => p.text.includes("第")).length + 1;
    const number = isDigits ? Number(last[1].normalize("NFKC")) + 1 : numeral(n);
    this.onGo();
    editor.root.focus();
    editor.setCaret([editor.size, editor.size]);
    editor.write(`${editor.paragraphs.at(-1).len ? "\n" : ""}第${number}${last?.[2] ?? "章"} `);
  }

  // Titles that the model finds for the chapter around the caret; the one that is chosen becomes its heading.
  async entitle(story, settings) {
    await story.settle();
    const { editor, found } = this;
    const [here, places] = [editor.locate(editor.place[1])[0], found.map((p) => editor.paragraphs.indexOf(p))];
    const [first, next] = [places.findLast((at) => at <= here), places.find((at) => at > here)];
    const [p, start] = [editor.paragraphs[first ?? 0], editor.startOf(first ?? 0)];
    const end = next === undefined ? editor.size : editor.startOf(next) - 1;
    const { titles } = await ask("/api/titles", { story: story.id, node: story.head, start, end, settings });
    const use = (title) => {
      $("title-list").replaceChildren();
      if (!editor.paragraphs.includes(p)) return; // it was changed meanwhile
      const at = editor.startOf(editor.paragraphs.indexOf(p));
      editor.setCaret([at, at + (first === undefined ? 0 : p.len)]);
      editor.write(first === undefined ? `${title}\n` : `${p.text.match(NUMBER)[0].trim()} ${title}`);
    };
    const choices = titles.map((title) => make("li", {}, make("button", { lang: "zh-CN", click: () => use(title) }, title)));
    fill("title-list", choices, "nothingFound");
  }
}

// What the book says of the text, asked for while it is written and at every pause.
export class Mirror {
  constructor({ editor, story, state, fail }) {
    Object.assign(this, { editor, story, state, fail, timer: 0, asked: 0, checked: 0, from: Infinity, to: 0 });
  }

  // Something has changed here.
  changed(start, end) {
    Object.assign(this, { from: Math.min(this.from, start), to: Math.max(this.to, end) });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look().catch(this.fail), PAUSE);
  }

  // The model has written up to here: look for copies at once, not too often.
  async written(end) {
    if (!this.state.has_book || this.busy || performance.now() - this.asked < LIVE) return;
    Object.assign(this, { asked: performance.now(), busy: true });
    await this.copies(Math.max(0, Math.min(this.checked, end) - EDGE), end);
    Object.assign(this, { checked: end, busy: false });
  }

  async copies(start, end) {
    const { editor, story } = this;
    for (let at = start; at < end && !story.isBusy(); at += REACH) {
      const [text, from, to] = [editor.text, Math.max(0, at - EDGE), Math.min(end, at + REACH)];
      const body = { story: story.id, node: story.head, start: from, end: to, least: LEAST };
      const found = await ask("/api/copies", body).catch(this.fail);
      if (!found || story.isBusy() || !editor.text.startsWith(cut(text, 0, to))) return;
      editor.setMarks("copy", from, to, found.runs);
    }
    this.drawCopies();
  }

  async look() {
    const { editor, story } = this;
    if (editor.composing || document.hidden) return;
    if (story.isBusy()) return this.changed(this.from, this.to); // until all of it is saved
    if (!this.state.has_book) return this.draw();
    const [id, head, text] = [story.id, story.head, editor.text];
    const [from, to] = [Math.max(0, this.from - EDGE), Math.min(editor.size, this.to + EDGE)];
    Object.assign(this, { from: Infinity, to: 0 });
    await this.copies(from, to);
    const [style, doubt] = await Promise.all([
      ask("/api/style", { story: id, node: head }).catch(() => null),
      ask("/api/doctor", { story: id, node: head }).catch(() => null),
    ]);
    if (id !== story.id || text !== editor.text || editor.composing) return;
    this.style = style;
    if (doubt) editor.setMarks("doubt", 0, editor.size, doubt.runs);
    this.draw();
  }

  draw() {
    this.drawCopies();
    this.drawStyle();
  }

  drawCopies() {
    const runs = [];
    for (const run of this.editor.marksOf("copy").sort((a, b) => a.start - b.start)) {
      const last = runs.at(-1);
      const isOne = last && (run.start < last.end || (run.place === last.place && run.start === last.end + 1));
      if (isOne) last.end = Math.max(last.end, run.end);
      else runs.push(run);
    }
    const [list, note] = [$("copy-list"), $("copy-note")];
    const key = !this.state.has_book ? "noBook" : runs.length ? "copiesAsk" : "copiesNone";
    note.textContent = word(key, { n: LEAST });
    $("copy-count").textContent = runs.length || "";
    list.replaceChildren(...runs.slice(0, 200).map((run) => {
      const title = run.title || word("chapterOf", { n: run.chapter });
      const text = cut(this.editor.text, run.start, run.end);
      const show = () => {
        this.editor.reveal(run.end);
        openBook(run.chapter, text, run.place).catch(this.fail);
      };
      return make("li", {}, make("button", { click: show },
        make("small", {}, word("copyRun", { n: run.end - run.start, title })), make("span", { lang: "zh-CN" }, text)));
    }));
  }

  drawStyle() {
    const box = $("style-box");
    if (!this.style) return box.replaceChildren(faint(this.state.has_book ? "styleAsk" : "noBook"));
    const rows = this.style.figures.map(({ name, text, book, low, high }) => {
      const most = Math.max(text, book, high ?? 0, 1e-9);
      const bar = (value, key) => {
        const line = make("span", { class: `bar ${key}`, "aria-hidden": "true" });
        line.style.width = `${(100 * value) / most}%`;
        return make("span", { class: "pair" }, make("small", {}, word(key === "book" ? "book" : "here_text")),
          make("span", { class: "track" }, line), make("span", { class: "figure" }, String(+value.toPrecision(3))));
      };
      const verdict = low === undefined || low === null ? "" : text < low ? "below" : text > high ? "above" : "within";
      return make("li", {}, make("b", {}, word(name)), bar(text, "text"), bar(book, "book"),
        make("small", {}, verdict && word(verdict)));
    });
    const found = new Map(this.editor.marksOf("doubt").map((run) => [cut(this.editor.text, run.start, run.end), run.nearest]));
    const doubts = [...found].map(([what, nearest]) => make("li", {},
      make("b", { lang: "zh-CN" }, what), nearest ? ` ${word("nearest", { what: nearest })}` : ""));
    box.replaceChildren(
      make("p", {}, word(this.style.advice)), make("ul", { class: "figures" }, ...rows),
      make("h3", {}, word("doctor")), doubts.length ? make("ul", {}, ...doubts) : faint("doctorNone"),
    );
  }
}

// The book, open at a chapter with a passage marked.
export async function openBook(chapter, passage = "", place = null) {
  const { title, text } = await ask(`/api/book/${encodeURIComponent(chapter)}`);
  const dialog = $("book");
  const chosen = place !== null && cut(text, place, place + size(passage)) === passage;
  const at = chosen ? cut(text, 0, place).length : text.indexOf(passage);
  dialog.querySelector("h2").textContent = title;
  const body = dialog.querySelector(".novel");
  if (at < 0 || !passage) body.replaceChildren(text);
  else body.replaceChildren(text.slice(0, at), make("mark", {}, passage), text.slice(at + passage.length));
  if (!dialog.open) dialog.showModal();
  body.querySelector("mark")?.scrollIntoView({ block: "center" });
}

// Openings of the book that are like these characters.
export async function findOpenings(text, use) {
  const { openings } = await ask(`/api/openings?text=${encodeURIComponent(text)}`);
  fill("opening-list", openings.map(({ text: found, chapter }) => make("li", {},
    make("span", { lang: "zh-CN" }, found),
    make("button", { click: () => use(found) }, word("useOpening")),
    make("button", { click: () => openBook(chapter, found) }, word("open")),
  )), "nothingFound");
}

// The dialog of all stories; open(id) and gone(id) after one was chosen or moved away.
export async function showStories({ current, open, gone }) {
  const { stories } = await ask("/api/stories");
  const when = (at) => new Date(1000 * at).toLocaleString(document.documentElement.lang);
  const remove = async ({ id, name }) => {
    if (!confirm(word("removeSure", { name }))) return;
    await ask(`/api/stories/${id}`, undefined, { method: "DELETE" });
    await gone(id);
  };
  $("story-list").replaceChildren(...stories.map((story) => make("li", {},
    make("button", { click: () => open(story.id), "aria-current": story.id === current && "true" }, story.name || word("unnamed")),
    make("small", {}, word("characters", { n: story.characters.toLocaleString() })),
    make("small", {}, story.running ? word("writing") : when(story.changed)),
    make("button", { class: "quiet", click: () => remove(story) }, word("remove")))));
  if (!$("stories").open) $("stories").showModal();
}

// A file of the person's as a new story is made from it: its name, and its bytes for the server to decode.
export async function readFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let data = "";
  for (let at = 0; at < bytes.length; at += 0x8000) data += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return { name: file.name.replace(/\.[^.]*$/, ""), data: btoa(data) };
}

export async function showExport(story) {
  await story.settle().catch(() => {});
  const links = $("export").querySelectorAll("a");
  for (const link of links) link.href = `/api/stories/${story.id}/export?format=${link.dataset.format}`;
  // what is not saved is in the page alone
  if (story.isUnsaved) Object.assign(links[0], { href: URL.createObjectURL(new Blob([story.editor.text])), download: `${story.name}.txt` });
  $("export").showModal();
}
