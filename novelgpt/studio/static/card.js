// What else was or would have been written: candidates, branches, ten alternatives of each character, the colours of the whole text.
import { $, make, word } from "./words.js";
import { ask } from "./stream.js";
import { cut, size } from "./paragraphs.js";

const CHUNK = 400; // characters scored by one request
const REST = 300; // milliseconds that the mouse rests before the card opens

const percent = (p) => (p >= 0.0995 ? `${Math.round(100 * p)} %` : p >= 0.001 ? `${(100 * p).toFixed(1)} %` : "< 0.1 %");
const visible = (text) => text.replace(/\n/g, "↵").replace(/^\s+$/, "␣") || "∅";

// The candidates of the last job: what each has written, which one is shown, and how well the old text follows.
export function drawCandidates({ nodes, story, jobs, choose }) {
  const list = $("candidate-list");
  if (list.childElementCount !== nodes.length || !nodes.length) {
    list.replaceChildren(...nodes.map((id, i) => make("li", {}, make("button", { click: () => choose(i) },
      make("small", {}), make("span", { lang: "zh-CN" })))));
    $("no-candidates").hidden = nodes.length > 0;
  }
  const path = new Set(story.path());
  nodes.forEach((id, i) => {
    const [node, button] = [story.nodes.get(id), list.children[i].firstChild];
    const isTaken = path.has(id);
    const facts = [word("candidate", { n: i + 1 }), word("characters", { n: size(node?.text ?? "") })];
    if (isTaken) facts.push(word("taken"));
    if (jobs.fits.has(id)) facts.push(word("follows", { p: jobs.fits.get(id).toFixed(1) }));
    if (!jobs.isRunning && node?.why) facts.push(word(`why_${node.why}`));
    button.firstChild.textContent = facts.join(" · ");
    button.lastChild.textContent = node?.text || "…";
    button.setAttribute("aria-pressed", String(isTaken));
    if (i < 9) button.setAttribute("aria-keyshortcuts", `Alt+${i + 1}`);
  });
}

// The tree of versions: a row for each stretch without a fork.
export function drawBranches(story, list) {
  const [path, rows] = [new Set(story.path()), story.branches()];
  const items = rows.map(({ ids, depth }) => {
    const [text, sign] = [ids.map((id) => story.nodes.get(id).text).join("").trim(), ids.some((id) => path.has(id)) ? "●" : "○"];
    const item = make("li", {}, make("button", { lang: "zh-CN", title: cut(text, 0, 200), class: story.nodes.get(ids[0]).kind,
      "aria-current": ids.includes(story.head) && "true", click: () => story.go(() => ids.at(-1)) }, `${sign} ${cut(text, 0, 14) || "…"}`));
    item.style.setProperty("--depth", Math.min(depth, 8));
    return item;
  });
  list.replaceChildren(...(rows.length > 1 ? items : [make("li", { class: "faint" }, word("noBranches"))]));
}

export class Card {
  // take(position, text): go on from there with another character; filters() -> how tokens are chosen; fail(refusal)
  constructor(box, { editor, story, take, filters, fail }) {
    Object.assign(this, { box, editor, story, take, filters, fail, timer: 0, round: 0, position: null });
    editor.root.addEventListener("pointermove", (event) => this.hover(event));
    editor.root.addEventListener("pointerleave", () => this.leave());
    box.addEventListener("pointerenter", () => clearTimeout(this.timer));
    box.addEventListener("pointerleave", () => this.leave());
    box.addEventListener("keydown", (event) => this.onKey(event));
    editor.scroller.addEventListener("scroll", () => this.close() || this.refreshSoon(), { passive: true });
  }

  // Tokens of the part of a paragraph around an offset; kept until the paragraph or what is before it changes.
  async score(index, offset, settings) {
    const { editor, story } = this;
    const p = editor.paragraphs[index];
    const start = Math.floor(offset / CHUNK) * CHUNK;
    const end = Math.min(p.len, start + CHUNK);
    const key = `${start} ${end} ${JSON.stringify(settings)}`;
    if (p.stale) p.scores = p.stale = null;
    p.scores ??= new Map();
    if (!p.scores.has(key)) {
      await story.flush();
      const base = editor.startOf(editor.paragraphs.indexOf(p));
      const body = { story: story.id, node: story.head, start: base + start, end: base + end, settings };
      const { tokens } = await ask("/api/score", body);
      p.scores.set(key, tokens.map((token) => ({ ...token, start: token.start - base })));
    }
    return p.scores.get(key);
  }

  refreshSoon() {
    if (!this.editor.surprise) return;
    clearTimeout(this.later);
    this.later = setTimeout(() => this.refresh(), 300);
  }

  // Colour the paragraphs in view that have no probabilities yet.
  async refresh() {
    const { editor } = this;
    const round = ++this.round;
    const { top, bottom } = editor.scroller.getBoundingClientRect();
    const inView = editor.paragraphs.filter((p) => {
      const box = p.el.getBoundingClientRect();
      return box.bottom > top - 200 && box.top < bottom + 200 && p.len;
    });
    for (const p of inView) {
      for (let offset = 0; offset < p.len; offset += CHUNK) {
        const index = editor.paragraphs.indexOf(p);
        if (round !== this.round || index < 0 || !editor.surprise || editor.composing) return;
        if (!p.stale && p.nats?.length === p.len && !p.nats.slice(offset, offset + CHUNK).includes(undefined)) continue;
        const length = p.len;
        const tokens = await this.score(index, offset).catch(this.fail);
        if (!tokens || p.len !== length) return;
        const nats = Array.from({ length }, (_, i) => p.nats?.[i]);
        for (const token of tokens) {
          for (let i = 0; i < size(token.text); i++) nats[token.start + i] = i ? 0 : token.nats;
        }
        p.nats = nats;
        editor.paint(p);
      }
    }
  }

  toggle(on) {
    this.editor.showSurprise(on);
    if (on) this.refresh();
    else this.close();
  }

  hover({ clientX, clientY, pointerType, buttons }) {
    clearTimeout(this.timer);
    if (!this.editor.surprise || pointerType !== "mouse" || buttons || this.editor.composing) return;
    this.timer = setTimeout(() => {
      const position = this.editor.positionAt(clientX, clientY);
      if (position !== null && position !== this.position) this.open(position);
    }, REST);
  }

  leave() {
    clearTimeout(this.timer);
    if (!this.byKey) this.timer = setTimeout(() => this.close(), REST);
  }

  // Show the card of a character; byKey: the keyboard goes into it.
  async open(position, byKey = false) {
    const { editor } = this;
    if (position < 0 || position >= editor.size) return;
    const [index, offset] = editor.locate(position);
    const p = editor.paragraphs[index];
    if (offset >= p.len) return;
    let tokens;
    try {
      tokens = await this.score(index, offset, this.filters());
    } catch (refusal) {
      return this.fail(refusal);
    }
    const token = tokens.find(({ start, text }) => start <= offset && offset < start + size(text));
    if (!token || editor.paragraphs[index] !== p) return;
    const start = position - offset + token.start;
    Object.assign(this, { position, byKey });
    this.draw(token, start, p);
    this.place(start, start + size(token.text));
    if (byKey) this.box.querySelector("button")?.focus();
  }

  draw(token, start, p) {
    let at = 0;
    const kind = p.runs.find(([length]) => (at += length) > token.start)?.[1];
    const facts = { p: percent(token.probability), rank: token.rank, nats: token.nats.toFixed(2) };
    const drawable = new Set(token.after.map(({ text }) => text));
    const most = Math.max(...token.top.map(({ probability }) => probability), 1e-9);
    const rows = token.top.map(({ text, probability }) => {
      const bar = make("span", { class: "bar", "aria-hidden": "true" });
      bar.style.width = `${(100 * probability) / most}%`;
      const isOut = !drawable.has(text);
      const label = [make("b", { lang: "zh-CN" }, visible(text)), make("span", { class: "track" }, bar), percent(probability)];
      if (isOut) label.push(make("small", {}, word("filtered")));
      const isOwn = text === token.text;
      const use = () => this.close() || this.take(start, text);
      return make("li", {}, make("button", { class: isOut && "out", "aria-current": isOwn && "true", click: use }, ...label));
    });
    this.box.replaceChildren(
      make("p", { class: "char", lang: "zh-CN" }, visible(token.text)),
      make("p", {}, word("cardText", facts), make("br"), make("small", {}, kind ? word(`by_${kind}`) : "")),
      make("ol", {}, ...rows),
      make("small", {}, word("cardHint")),
    );
    this.box.setAttribute("aria-label", word("card"));
    this.box.hidden = false;
  }

  place(start, end) {
    const at = this.editor.rangeOf(start, end).getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.box;
    const below = at.bottom + 8 + height < innerHeight || at.top < height + 8;
    this.box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
    this.box.style.top = `${Math.max(8, Math.min(below ? at.bottom + 8 : at.top - height - 8, innerHeight - height - 8))}px`;
  }

  // Close it; true where one was open and the keyboard has come back to the text.
  close() {
    clearTimeout(this.timer);
    const [wasOpen, byKey] = [!this.box.hidden, this.byKey];
    this.box.hidden = true;
    Object.assign(this, { position: null, byKey: false });
    if (wasOpen && byKey) {
      this.editor.root.focus({ preventScroll: true });
      this.editor.setCaret(this.editor.place);
    }
    return false;
  }

  onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.code];
    if (!step) return;
    event.preventDefault();
    const buttons = [...this.box.querySelectorAll("button")];
    const next = (buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length;
    buttons[next].focus();
  }
}
