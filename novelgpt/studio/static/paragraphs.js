// The text on the page: one <p> a paragraph, spans only where they say something, positions in code points.

import { make } from "./words.js";

const PAIR = /[\ud800-\udbff][\udc00-\udfff]/g;

// Code points of a text, and the part of it from one code point to another.
export const size = (text) => text.length - (text.match(PAIR)?.length ?? 0);
export const cut = (text, from, to = Infinity) =>
  size(text) === text.length ? text.slice(from, to) : Array.from(text).slice(from, to).join("");

// The part [from, to) of runs [[length, kind], …].
export function clip(runs, from, to) {
  const parts = [];
  let at = 0;
  for (const [length, kind] of runs) {
    const part = Math.min(at + length, to) - Math.max(at, from);
    if (part > 0) addRun(parts, part, kind);
    at += length;
  }
  return parts;
}

export function addRun(runs, length, kind) {
  if (runs.at(-1)?.[1] === kind) runs[runs.length - 1] = [runs.at(-1)[0] + length, kind];
  else if (length) runs.push([length, kind]);
}

// Where two texts differ: [start, end of the old, what the new has there], in code points.
export function difference(before, after) {
  const [a, b] = [Array.from(before), Array.from(after)];
  let [start, end] = [0, 0];
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  return [start, a.length - end, b.slice(start, b.length - end).join("")];
}

// The characters of a <p>; the <br> of an empty one is none.
export function readNode(node) {
  if (node.nodeType === 3) return node.data;
  if (node.nodeName === "BR") return "\n";
  const text = Array.from(node.childNodes, readNode).join("");
  return node.nodeName === "P" && node.lastChild?.nodeName === "BR" ? text.slice(0, -1) : text;
}

export const fresh = (text, runs = []) => ({ text, len: size(text), runs, marks: [], nats: null, el: null });

const LOOKS = { model: "m", root: "r" }; // who wrote it; what a person typed or brought needs no span
const levelOf = (nats) => (nats === undefined || nats < 1 ? "" : `n${Math.min(7, Math.floor(nats))}`);

export class Paragraphs {
  constructor(root, scroller) {
    Object.assign(this, { root, scroller, paragraphs: [fresh("")], dirty: new Set(), known: new WeakMap() });
    Object.assign(this, { surprise: false, composing: false, following: true });
    this.last = [0, 0]; // the selection that was last in the text
    document.addEventListener("selectionchange", () => (this.last = this.caret() ?? this.last));
    const isAtEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
    scroller.addEventListener("scroll", () => (this.following = isAtEnd()), { passive: true });
  }

  get text() {
    return this.paragraphs.map((p) => p.text).join("\n");
  }

  get size() {
    return this.paragraphs.reduce((sum, p) => sum + p.len + 1, -1);
  }

  locate(position) {
    let index = 0;
    while (index < this.paragraphs.length - 1 && position > this.paragraphs[index].len) {
      position -= this.paragraphs[index++].len + 1;
    }
    return [index, Math.min(position, this.paragraphs[index].len)];
  }

  startOf(index) {
    return this.paragraphs.slice(0, index).reduce((sum, p) => sum + p.len + 1, 0);
  }

  lengthOf(child) {
    const p = this.known.get(child);
    return p && !this.dirty.has(child) ? p.len : size(readNode(child));
  }

  positionOf(node, offset) {
    let [at, child] = [0, node];
    if (node === this.root) child = this.root.childNodes[offset] ?? null;
    else while (child.parentNode !== this.root) child = child.parentNode;
    for (const other of this.root.childNodes) {
      if (other === child) break;
      at += this.lengthOf(other) + 1;
    }
    if (!child) return Math.max(0, at - 1);
    if (node === this.root) return at;
    const range = new Range();
    range.setStart(child, 0);
    range.setEnd(node, offset);
    return at + size(range.toString());
  }

  placeOf(position) {
    const [index, offset] = this.locate(position);
    let [rest, node] = [cut(this.paragraphs[index].text, 0, offset).length, this.paragraphs[index].el];
    const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      node = walker.currentNode;
      if (rest <= node.length) return [node, rest];
      rest -= node.length;
    }
    return [node, node.nodeType === 3 ? node.length : 0];
  }

  // [anchor, focus] of the selection, or null where it is elsewhere.
  caret() {
    const { anchorNode, anchorOffset, focusNode, focusOffset } = document.getSelection();
    if (!anchorNode || !this.root.contains(anchorNode) || !this.root.contains(focusNode)) return null;
    const focus = this.positionOf(focusNode, focusOffset);
    const isOne = anchorNode === focusNode && anchorOffset === focusOffset;
    return [isOne ? focus : this.positionOf(anchorNode, anchorOffset), focus];
  }

  // The selection, or the one that was last in the text.
  get place() {
    return this.caret() ?? this.last;
  }

  setCaret([anchor, focus]) {
    document.getSelection().setBaseAndExtent(...this.placeOf(anchor), ...this.placeOf(focus));
    this.last = [anchor, focus];
  }

  rangeOf(start, end) {
    const range = new Range();
    range.setStart(...this.placeOf(start));
    range.setEnd(...this.placeOf(end));
    return range;
  }

  // The position of the character under a point of the window, or null.
  positionAt(x, y) {
    const place = document.caretPositionFromPoint?.(x, y);
    const range = place ? null : document.caretRangeFromPoint?.(x, y);
    const [node, offset] = place ? [place.offsetNode, place.offset] : [range?.startContainer, range?.startOffset];
    if (node?.nodeType !== 3 || !this.root.contains(node)) return null;
    const position = this.positionOf(node, offset);
    for (const start of [position - 1, position]) {
      if (start < 0 || start >= this.size) continue;
      const box = this.rangeOf(start, start + 1).getBoundingClientRect();
      if (x >= box.left && x <= box.right && y >= box.top && y <= box.bottom) return start;
    }
    return null;
  }

  // [from, to) of a paragraph in pieces {text, className} of one look each.
  pieces(p, from = 0, to = p.len) {
    const edges = new Set([from, to]);
    const add = (at) => at > from && at < to && edges.add(at);
    let at = 0;
    const kinds = p.runs.map(([length, kind]) => [at, (at += length), kind]);
    for (const [start, end] of kinds) [start, end].forEach(add);
    for (const { start, end } of p.marks) [start, end].forEach(add);
    const levels = this.surprise && p.nats ? p.nats.map(levelOf) : [];
    for (let i = from + 1; i < to; i++) if (levels[i] !== levels[i - 1]) edges.add(i);
    const sorted = [...edges].sort((a, b) => a - b);
    return sorted.slice(0, -1).map((start, i) => {
      const kind = kinds.find(([a, b]) => a <= start && start < b)?.[2];
      const names = [LOOKS[kind], levels[start]];
      for (const mark of p.marks) if (mark.start <= start && start < mark.end) names.push(mark.kind);
      return { text: cut(p.text, start, sorted[i + 1]), className: names.filter(Boolean).join(" ") };
    });
  }

  nodeOf({ text, className }) {
    return className ? make("span", { class: className }, text) : document.createTextNode(text);
  }

  render(p) {
    p.el.replaceChildren(...(p.len ? this.pieces(p).map(this.nodeOf) : [make("br")]));
  }

  // Render anew with the caret where it is; what is being composed waits.
  paint(p) {
    const { anchorNode } = document.getSelection();
    const holds = anchorNode && p.el.contains(anchorNode);
    if (holds && this.composing) return;
    const kept = holds ? this.caret() : null;
    this.render(p);
    this.discard();
    if (kept) this.setCaret(kept);
  }

  // Marks of one kind for the characters [start, end): [{start, end, …}] in place of those there.
  setMarks(kind, start, end, found) {
    let base = 0;
    for (const p of this.paragraphs) {
      const [from, to] = [base, base + p.len];
      base = to + 1;
      if (to < start || from > end) continue;
      const rest = p.marks.filter((mark) => mark.kind !== kind || mark.start + from < start || mark.end + from > end);
      const marks = found.filter((mark) => mark.start < to && mark.end > from)
        .map((mark) => ({ ...mark, kind, start: Math.max(mark.start - from, 0), end: Math.min(mark.end, to) - from }));
      const all = [...rest, ...marks];
      if (JSON.stringify(all) === JSON.stringify(p.marks)) continue;
      p.marks = all;
      this.paint(p);
    }
  }

  // All marks of a kind with their positions in the text.
  marksOf(kind) {
    let base = 0;
    return this.paragraphs.flatMap((p) => {
      const from = base;
      base += p.len + 1;
      const marks = p.marks.filter((mark) => mark.kind === kind);
      return marks.map((mark) => ({ ...mark, start: mark.start + from, end: mark.end + from }));
    });
  }

  showSurprise(on) {
    this.surprise = on;
    for (const p of this.paragraphs) if (p.nats) this.paint(p);
  }

  // Keep to the end while the reader is there.
  follow() {
    if (!this.following || this.isMoving) return;
    this.isMoving = true;
    requestAnimationFrame(() => {
      this.isMoving = false;
      if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
    });
  }

  // Bring a position into view where it is not.
  reveal(position) {
    const box = this.rangeOf(Math.max(0, position - 1), position).getBoundingClientRect();
    const view = this.scroller.getBoundingClientRect();
    if (box.top >= view.top && box.bottom <= view.bottom && box.height) return;
    this.paragraphs[this.locate(position)[0]].el.scrollIntoView({ block: "center" });
  }
}
