// Writing by hand and by the model in one text: what is typed is read back after each input and told as one change;
// what the model writes is put in without touching what stands there. Nothing is rewritten while an input method composes.
import { make } from "./words.js";
import { addRun, clip, cut, difference, fresh, Paragraphs, readNode, size } from "./paragraphs.js";

const STALE = 1100; // characters after a change whose probabilities have changed with it

export class Editor extends Paragraphs {
  // onEdit({replace, text}) for what the person has changed; onUndo(redo?) when the browser's own undo is asked for
  constructor(root, scroller, { onEdit, onUndo }) {
    super(root, scroller);
    Object.assign(this, { onEdit, onUndo, later: [] });
    this.anchors = new Map(); // node -> where its growth goes on, moved by every change
    this.exchange(0, this.paragraphs, []);
    this.observer = new MutationObserver((records) => this.note(records));
    this.observer.observe(root, { childList: true, characterData: true, subtree: true });
    root.addEventListener("beforeinput", (event) => this.beforeInput(event));
    root.addEventListener("input", () => this.composing || this.readBack());
    root.addEventListener("compositionstart", () => (this.composing = true));
    root.addEventListener("compositionend", () => this.endComposition());
  }

  // Replace [start, end) by text of a kind; nats: of its characters, where they are known.
  splice(start, end, text, kind, nats) {
    const [[first, from], [last, to]] = [this.locate(start), this.locate(end)];
    const target = this.paragraphs[first];
    const grows = start === end && from === target.len;
    const { anchorNode } = document.getSelection();
    const holds = this.paragraphs.slice(first, last + 1).some((p) => p.el.contains(anchorNode));
    if (this.composing && !grows && holds) {
      this.later.push({ start, end, text, kind, nats });
      return;
    }
    if (grows) this.extend(first, text, kind, nats);
    else {
      const kept = this.caret();
      const elements = this.paragraphs.slice(first, last + 1).map((p) => p.el);
      const offset = this.startOf(last) - this.startOf(first);
      this.amend(first, elements, from, offset + to, text, kind);
      const move = (at) => (at <= start ? at : at >= end ? at + size(text) - (end - start) : start + size(text));
      if (kept) this.setCaret(kept.map(move));
    }
    this.shift(start, end, text);
    this.follow();
  }

  // What stands behind a change moves with it.
  shift(start, end, text) {
    const length = size(text);
    for (const node of this.anchors.keys()) this.moveAnchor(node, start, end, length);
    for (const task of this.later) {
      if (task.start < end) continue;
      task.start += length - (end - start);
      task.end += length - (end - start);
    }
  }

  // The server's rule: growth goes on behind what was put in at its place, and is not shown where its place was taken.
  moveAnchor(node, start, end, length) {
    const at = this.anchors.get(node);
    if (at >= end) this.anchors.set(node, at + length - (end - start));
    else if (at > start) this.anchors.delete(node);
  }

  // Text at the end of a paragraph: what stands there is not touched.
  extend(index, text, kind, nats) {
    const lines = text.split("\n");
    const after = this.paragraphs[index].el.nextSibling;
    let at = 0;
    lines.forEach((line, i) => {
      if (i) {
        const p = fresh("");
        this.paragraphs.splice(index + i, 0, p);
        this.create(p, after);
      }
      const p = this.paragraphs[index + i];
      const from = p.len;
      p.text += line;
      p.len += size(line);
      addRun(p.runs, p.len - from, kind);
      if (nats && line) p.nats = [...(p.nats ?? new Array(from)), ...nats.slice(at, at + p.len - from)];
      at += p.len - from + 1;
      this.append(p, from);
    });
    this.discard();
  }

  append(p, from) {
    if (p.len === from) return;
    if (from === 0) p.el.replaceChildren();
    const isComposed = this.composing && p.el.contains(document.getSelection().anchorNode);
    for (const piece of this.pieces(p, from)) {
      const last = p.el.lastChild;
      const isSame = last && (last.className ?? "") === piece.className;
      if (isSame && !isComposed) (last.firstChild ?? last).appendData(piece.text);
      else p.el.append(this.nodeOf(piece));
    }
  }

  // Replace [start, end) of the paragraphs from `first` on that stand in these elements.
  amend(first, elements, start, end, text, kind, count = elements.length) {
    const old = this.paragraphs.slice(first, first + count);
    const whole = old.map((p) => p.text).join("\n");
    const [length, added] = [size(whole), size(text)];
    const runs = old.flatMap((p, i) => (i ? [[1, "typed"], ...p.runs] : p.runs));
    const changed = [...clip(runs, 0, start), [added, kind], ...clip(runs, end, length)];
    let at = 0;
    const marks = [];
    for (const p of old) {
      for (const mark of p.marks) {
        const [a, b] = [at + mark.start, at + mark.end];
        const move = a >= end ? added - (end - start) : 0;
        if (b <= start || a >= end) marks.push({ ...mark, start: a + move, end: b + move });
      }
      at += p.len + 1;
    }
    at = 0;
    const paragraphs = (cut(whole, 0, start) + text + cut(whole, end, length)).split("\n").map((line) => {
      const p = fresh(line, clip(changed, at, at + size(line)));
      for (const mark of marks) {
        const [a, b] = [Math.max(mark.start - at, 0), Math.min(mark.end - at, p.len)];
        if (a < b) p.marks.push({ ...mark, start: a, end: b });
      }
      at += p.len + 1;
      return p;
    });
    this.paragraphs.splice(first, count, ...paragraphs);
    this.exchange(first, paragraphs, elements);
    this.spoil(first + paragraphs.length);
  }

  // Probabilities after a change are no longer true.
  spoil(index) {
    for (let seen = 0; index < this.paragraphs.length && seen < STALE; index++) {
      this.paragraphs[index].stale = true;
      seen += this.paragraphs[index].len + 1;
    }
  }

  // Put these paragraphs where those elements stand; the first ones are used again.
  exchange(first, paragraphs, elements) {
    const after = elements.length ? elements.at(-1).nextSibling : (this.paragraphs[first + paragraphs.length]?.el ?? null);
    const spare = elements.filter((element) => element.nodeName === "P").slice(0, paragraphs.length);
    for (const element of elements) if (!spare.includes(element)) element.remove();
    for (const p of paragraphs) {
      p.el = spare.shift();
      if (p.el) this.known.set(p.el, p);
      else this.create(p, after);
      this.render(p);
    }
    this.discard();
  }

  create(p, after) {
    p.el = make("p", {}, make("br"));
    this.known.set(p.el, p);
    this.root.insertBefore(p.el, after);
  }

  // ---- what the person does

  note(records) {
    for (const { target } of records) {
      let node = target;
      while (node && node.parentNode !== this.root) node = node.parentNode;
      if (node) this.dirty.add(node);
    }
  }

  // Our own changes are no edits; while a composition is open the observer's notes are kept.
  discard() {
    if (this.composing) this.note(this.observer.takeRecords());
    else this.observer?.takeRecords();
  }

  readBack() {
    this.note(this.observer.takeRecords());
    const [nodes, old] = [[...this.root.childNodes], this.paragraphs];
    const isSame = (node, p) => node === p.el && !this.dirty.has(node);
    let [i, j] = [0, 0];
    while (i < nodes.length && i < old.length && isSame(nodes[i], old[i])) i++;
    while (j < nodes.length - i && j < old.length - i && isSame(nodes.at(-1 - j), old.at(-1 - j))) j++;
    if (i === nodes.length && i === old.length) return;
    if (i && (i === nodes.length - j || i === old.length - j)) i--;
    else if (j && (i === nodes.length - j || i === old.length - j)) j--;
    const kept = this.caret();
    const elements = nodes.slice(i, nodes.length - j);
    const before = old.slice(i, old.length - j).map((p) => p.text).join("\n");
    const [start, end, text] = difference(before, elements.map(readNode).join("\n"));
    const base = this.startOf(i);
    this.amend(i, elements, start, end, text, "typed", old.length - j - i);
    this.dirty.clear();
    if (kept) this.setCaret(kept);
    if (start === end && !text) return;
    this.shift(base + start, base + end, text);
    this.onEdit({ replace: [base + start, base + end], text });
  }

  beforeInput(event) {
    const kind = event.inputType;
    if (kind.startsWith("history")) {
      event.preventDefault();
      this.onUndo(kind === "historyRedo");
    } else if (!event.isComposing && ["insertParagraph", "insertLineBreak", "insertFromPaste"].includes(kind)) {
      event.preventDefault();
      const pasted = event.dataTransfer?.getData("text/plain") ?? event.data ?? "";
      this.write(kind === "insertFromPaste" ? pasted.replace(/\r\n?/g, "\n") : "\n");
    }
  }

  // Put text in the place of the selection, as if it were typed.
  write(text) {
    const [start, end] = [...this.place].sort((a, b) => a - b);
    if (start === end && !text) return;
    this.splice(start, end, text, "typed");
    this.setCaret([start + size(text), start + size(text)]);
    this.paragraphs[this.locate(start + size(text))[0]].el.scrollIntoView({ block: "nearest" });
    this.onEdit({ replace: [start, end], text });
  }

  endComposition() {
    this.composing = false;
    this.readBack();
    while (this.later.length) {
      const { start, end, text, kind, nats } = this.later.shift();
      this.splice(start, end, text, kind, nats);
    }
  }

  // ---- what the server says

  // Show this text, changing no more than differs; origins [[length, kind], …]. Returns {start, end} of the change, or null.
  setText(text, origins) {
    const [old, lines] = [this.paragraphs, text.split("\n")];
    let [i, j] = [0, 0];
    while (i < lines.length - 1 && i < old.length - 1 && lines[i] === old[i].text) i++;
    while (j < lines.length - 1 - i && j < old.length - 1 - i && lines.at(-1 - j) === old.at(-1 - j).text) j++;
    const before = old.slice(i, old.length - j).map((p) => p.text).join("\n");
    const [start, end, part] = difference(before, lines.slice(i, lines.length - j).join("\n"));
    const base = this.startOf(i);
    const isChanged = start !== end || part !== "";
    if (isChanged) this.splice(base + start, base + end, part, "typed");
    this.setOrigins(origins);
    return isChanged ? { start: base + start, end: base + start + size(part) } : null;
  }

  setOrigins(origins) {
    let [run, rest] = [0, origins[0]?.[0] ?? 0];
    for (const p of this.paragraphs) {
      const runs = [];
      for (let left = p.len + 1; left > 0 && run < origins.length; ) {
        const part = Math.min(left, rest);
        addRun(runs, Math.min(part, left - 1), origins[run][1]);
        [left, rest] = [left - part, rest - part];
        if (rest === 0) rest = origins[++run]?.[0] ?? 0;
      }
      if (JSON.stringify(runs) === JSON.stringify(p.runs)) continue;
      p.runs = runs;
      this.paint(p);
    }
  }
}
