// A story: what the person does becomes operations that the server keeps; the tree of versions, walked.
import { word } from "./words.js";
import { ask, pause, Refusal } from "./stream.js";
import { cut, size } from "./paragraphs.js";

const WAIT = 250; // milliseconds until what was typed is sent
const KEPT = 20000; // UTF-16 units, of 3 bytes at most: a browser takes 64 KiB of requests that outlive the page
const PATIENCE = 2000; // milliseconds that another story waits for what this one has not saved
const FOR_GOOD = [400, 404, 413]; // refusals that asking again does not change
const ROWS = 400; // branches drawn at most
const tabs = new BroadcastChannel("novelgpt-stories");

export class Story {
  // onChange(place): head, nodes, name or the text there are new; onState(state, refusal?): saving, saved or lost; onJobs(jobs): all that run
  constructor(editor, { onChange, onState, onJobs }) {
    Object.assign(this, { editor, onChange, onState, onJobs, id: null, nodes: new Map(), writing: new Set() });
    Object.assign(this, { waiting: [], sent: null, timer: 0, queue: Promise.resolve() });
    tabs.onmessage = ({ data }) => data === this.id && this.reload();
    document.addEventListener("visibilitychange", () => document.hidden || this.reload());
    window.addEventListener("pagehide", () => this.sendLast());
  }

  async open(id) {
    await this.settle().catch(() => {}); // what a full disk refuses waits on by itself
    const story = await ask(`/api/stories/${id}`);
    const left = Object.assign(this.waiting, { id: this.id, version: this.version, head: this.head, seen: this.seen() });
    this.queue.then(() => this.send(left)).catch(() => {}); // what is not sent yet goes on without the page
    Object.assign(this, { id, name: story.name, nodes: new Map(), writing: new Set(), waiting: [], sent: null, queue: Promise.resolve() });
    this.editor.anchors.clear();
    this.take(story);
  }

  // Ask for the whole story; insist: until it could be taken over.
  async reload(insist = false) {
    if (!this.id || document.hidden) return;
    const id = this.id;
    do {
      const done = this.inTurn(async () => {
        const story = await ask(`/api/stories/${id}`).catch(() => null);
        if (story && id === this.id) this.take(story);
      });
      await (insist ? done : done.catch(() => {})); // a refusal was told already
      if (id !== this.id) return;
      if (this.editor.composing) await pause(WAIT);
    } while (insist && this.late);
  }

  // Take over the whole story where nothing of our own is on its way. Returns {start, end} of the text that changed, or null.
  take(story) {
    const isBehind = story.nodes.some((node) => this.writing.has(node.id) && size(node.text) < this.count(node.id));
    this.late = this.isBusy() || (isBehind && story.head === this.head); // a stream may be faster than this answer
    if (this.late) return null;
    this.nodes = new Map(story.nodes.map((node) => [node.id, node]));
    this.writing = new Set(story.jobs.flatMap((job) => job.nodes));
    Object.assign(this, { name: story.name, version: story.version, head: story.head, redo: story.redo });
    const place = this.editor.setText(story.text, story.origins);
    this.anchor();
    this.onChange(place);
    this.onJobs(story.jobs);
    return place;
  }

  // Take over the answer to our own operations; while a job writes, the text stays as it is here.
  takeReply(reply) {
    for (const node of reply.nodes) if (!this.writing.has(node.id)) this.nodes.set(node.id, node);
    Object.assign(this, { name: reply.name, version: reply.version, head: reply.head, redo: reply.redo });
    this.late = this.isBusy() || this.writing.size > 0;
    const place = this.late ? null : this.editor.setText(reply.text, reply.origins);
    this.onChange(place);
    return place;
  }

  get isUnsaved() {
    return this.waiting.length > 0 || this.sent !== null;
  }

  isBusy() {
    return this.isUnsaved || this.editor.composing;
  }

  count(id) {
    return size(this.nodes.get(id)?.text ?? "");
  }

  // Where the growth of each node that is being written stands in the text that is shown.
  anchor() {
    this.editor.anchors.clear();
    const path = this.path();
    for (const id of this.writing) {
      const at = path.indexOf(id);
      if (at < 0) continue;
      this.editor.anchors.set(id, this.nodes.get(id).replace[0] + this.count(id));
      for (const { replace: [start, end], text } of path.slice(at + 1).map((other) => this.nodes.get(other))) {
        this.editor.moveAnchor(id, start, end, size(text));
      }
    }
  }

  // Characters of a node that is being written; false where some before them are missing.
  grow({ node: id, text, nats, characters, why }) {
    const node = this.nodes.get(id);
    if (!node) return true;
    const [have, start] = [this.count(id), characters - size(text)];
    if (start > have) return false;
    const fresh = cut(text, have - start);
    node.why = why;
    node.text += fresh;
    const place = this.editor.anchors.get(id);
    if (!fresh || place === undefined) return true;
    this.editor.splice(place, place, fresh, "model", nats?.slice(have - start));
    this.moveWaiting(place, size(fresh));
    return true;
  }

  // What was typed behind the growth and is not yet sent moves with its place.
  moveWaiting(place, length) {
    for (const op of this.waiting.toReversed()) {
      const [start, end] = op.replace;
      if (place >= start + size(op.text)) place -= size(op.text) - (end - start);
      else op.replace = [start + length, end + length];
    }
  }

  edit(op) {
    const last = this.waiting.at(-1);
    if (last && op.replace[0] === op.replace[1] && op.replace[0] === last.replace[0] + size(last.text)) last.text += op.text;
    else this.waiting.push(op);
    this.onState("saving");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush().catch(() => {}), WAIT);
  }

  seen() {
    return Object.fromEntries([...this.writing].map((id) => [id, this.count(id)]));
  }

  // Send what was typed; resolves when the server has it.
  flush() {
    clearTimeout(this.timer);
    return this.waiting.length ? this.inTurn(() => {}) : this.queue;
  }

  // Until all of it is saved; where that does not come soon, it says so.
  async settle() {
    await Promise.race([this.flush(), pause(PATIENCE)]);
    if (this.isUnsaved) throw new Refusal(0, { error: { message: word("notSaved") } });
  }

  // One request after the other, behind what was typed: an older answer never comes behind a newer one.
  inTurn(work) {
    const { waiting } = this;
    const isOpen = () => waiting === this.waiting; // another story may be opened meanwhile
    const done = this.queue.then(() => isOpen() && this.send()).then(() => (isOpen() ? work() : null));
    this.queue = done.catch(() => {});
    return done;
  }

  async send(waiting = this.waiting) {
    if (!waiting.length) return;
    const isOpen = () => waiting === this.waiting;
    let { id, version, head } = isOpen() ? this : waiting;
    while (waiting.length) {
      const seen = isOpen() ? this.seen() : waiting.seen;
      const body = { base: version, ops: waiting.splice(0), seen, key: Math.random().toString(36) };
      const reply = await this.insist(id, body, { head, waiting });
      tabs.postMessage(id);
      ({ version, head } = reply);
      if (isOpen()) {
        this.sent = null;
        this.takeReply(reply);
      } else if (id === this.id) this.reload();
    }
    if (!this.isUnsaved) this.onState("saved");
    if (isOpen() && this.late && !this.writing.size) setTimeout(() => this.reload(), WAIT);
  }

  // Ask until the server takes it: what was typed is never given up; what it can never take waits for the next change.
  async insist(id, body, { head, waiting }) {
    const { ops } = body;
    for (;;) {
      const isOpen = waiting === this.waiting;
      if (isOpen) this.sent = body;
      try {
        return await this.post(id, body);
      } catch (refusal) {
        if (refusal.status === 409 && refusal.data?.version !== undefined) {
          this.onState("moved"); // elsewhere the story went to another branch; ours stays where it was written
          body = { ...body, base: refusal.data.version, ops: [{ head }, ...ops], key: `${body.key} again` };
          continue;
        }
        this.onState("lost", refusal);
        if (FOR_GOOD.includes(refusal.status)) {
          waiting.unshift(...ops);
          if (waiting === this.waiting) this.sent = null;
          throw refusal;
        }
        await pause(1500);
      }
    }
  }

  post(id, body) {
    return ask(`/api/stories/${id}/ops`, body, { keepalive: JSON.stringify(body).length < KEPT });
  }

  // The page is left: what is still waiting goes out without an answer, with what may not have come there yet.
  sendLast() {
    if (!this.isUnsaved) return;
    const body = { base: this.version, before: this.sent, ops: this.waiting.splice(0), seen: this.seen() };
    this.post(this.id, body).catch(() => {});
  }

  // Show the node that is found when its turn has come; returns whether there was one to go to.
  async go(find) {
    const take = async (reply) => (this.writing.size ? this.take(await ask(`/api/stories/${this.id}`)) : this.takeReply(reply));
    const place = await this.carryOut(() => ({ head: this.editor.composing ? null : (find() ?? null) }), take);
    if (place && this.editor.caret()) this.editor.setCaret([place.end, place.end]);
    if (place) this.editor.reveal(place.end);
    return place !== false;
  }

  rename(name) {
    return this.carryOut(() => ({ name }));
  }

  // One operation, behind what was typed and what was asked before; false where there is nothing to do.
  carryOut(find, take = (reply) => this.takeReply(reply)) {
    return this.inTurn(async () => {
      const op = find();
      if (op.head === null) return false;
      const reply = await this.post(this.id, { base: this.version, ops: [op] });
      tabs.postMessage(this.id);
      return take(reply);
    });
  }

  // Back to the parent, or again to where redo leads.
  walk(isBack) {
    return this.go(() => (isBack ? this.nodes.get(this.head)?.parent : this.redo));
  }

  path(id = this.head) {
    const path = [];
    for (let node = this.nodes.get(id); node; node = this.nodes.get(node.parent)) path.unshift(node.id);
    return path;
  }

  childrenOf(id) {
    return [...this.nodes.values()].filter((node) => node.parent === id).map((node) => node.id);
  }

  // The last node on the way to the head that the model has written, or null.
  written() {
    return this.path().reverse().map((id) => this.nodes.get(id)).find((node) => node.kind === "model") ?? null;
  }

  // The versions at this place: those beside the head, or beside the model's text that it goes on from.
  versions() {
    const node = this.nodes.get(this.head);
    const own = this.childrenOf(node?.parent ?? null);
    const base = own.length > 1 ? node : (this.written() ?? node);
    const all = base && base.parent !== null ? this.childrenOf(base.parent) : own;
    return { all, at: base ? all.indexOf(base.id) : -1 };
  }

  // The candidates that were written together with the text that is shown.
  batch() {
    const node = this.written();
    if (!node) return [];
    const isTwin = ({ kind, seed, replace }) => kind === "model" && seed === node.seed && replace[0] === node.replace[0];
    return this.childrenOf(node.parent).filter((id) => isTwin(this.nodes.get(id)));
  }

  // Rows of the branches: each a chain of versions without a fork, {ids, depth}.
  branches() {
    const children = new Map();
    for (const { id, parent } of this.nodes.values()) children.set(parent, [...(children.get(parent) ?? []), id]);
    const rows = [];
    const stack = (children.get(null) ?? []).map((id) => [id, 0]).reverse();
    while (stack.length && rows.length < ROWS) {
      let [id, depth] = stack.pop();
      const ids = [id];
      while (children.get(id)?.length === 1) ids.push((id = children.get(id)[0]));
      rows.push({ ids, depth });
      for (const child of (children.get(id) ?? []).toReversed()) stack.push([child, depth + 1]);
    }
    return rows;
  }
}
