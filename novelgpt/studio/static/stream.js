// What the page asks of the server: plain requests, and the text of a job while it is written.
import { language, word } from "./words.js";
import { size } from "./paragraphs.js";

const STREAMS = 4; // a browser opens six connections a host: these for streams, two are left for clicks

// An answer that is no success; status 0: no answer at all.
export class Refusal extends Error {
  constructor(status, data) {
    super(data?.error?.message ?? (status ? `HTTP ${status}` : word("offline")));
    Object.assign(this, { status, data, hint: data?.error?.hint ?? "" });
  }
}

// GET without a body, POST with one; JSON both ways.
export async function ask(path, body, { method, keepalive = false } = {}) {
  const headers = { "Accept-Language": language() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  method ??= body === undefined ? "GET" : "POST";
  const reply = await fetch(path, { method, headers, keepalive, body: body && JSON.stringify(body) })
    .catch(() => Promise.reject(new Refusal(0)));
  const isJson = (reply.headers.get("Content-Type") ?? "").includes("json");
  const data = isJson ? await reply.json().catch(() => null) : null;
  if (!reply.ok || data === null) throw new Refusal(reply.ok ? 0 : reply.status, data); // an answer may break off
  return data;
}

// The token of the printed address becomes a cookie and leaves the address.
export async function login() {
  const facts = new URLSearchParams(location.hash.slice(1));
  const token = facts.get("token");
  if (!token) return;
  facts.delete("token");
  history.replaceState(null, "", `${location.pathname}#${facts}`);
  await ask("/api/login", { token });
}

export const pause = (time) => new Promise((done) => setTimeout(done, time));

// Run `work` while holding one of the few slots that all tabs share; false where none is free.
async function inSlot(work) {
  if (!navigator.locks) return false; // http on a LAN address is no secure context
  for (let slot = 0; slot < STREAMS; slot++) {
    const held = await navigator.locks.request(`novelgpt-stream-${slot}`, { ifAvailable: true }, async (lock) => {
      if (lock) await work();
      return Boolean(lock);
    });
    if (held) return true;
  }
  return false;
}

const shown = () => new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));

// Follows one job from the characters that are known on; a hidden tab follows nothing.
export class Follower {
  // seen() -> characters known of each candidate; news(data, ended); lost(refusal) when the server does not answer
  constructor(job, { seen, news, lost }) {
    Object.assign(this, { job, seen, news, lost, closed: false, leave: null });
    this.onHide = () => document.hidden && this.leave?.();
    document.addEventListener("visibilitychange", this.onHide);
    this.run();
  }

  address() {
    return `/api/jobs/${this.job}?from=${this.seen().join(",")}`;
  }

  async run() {
    while (!this.closed) {
      if (document.hidden) await shown();
      else if (!(await inSlot(() => this.stream())) && !this.closed) await this.poll();
    }
    document.removeEventListener("visibilitychange", this.onHide);
  }

  // One event stream, until it ends, breaks or the tab is hidden.
  async stream() {
    let broken = false;
    await new Promise((done) => {
      const source = new EventSource(this.address());
      this.leave = () => {
        source.close();
        done();
      };
      const take = (event) => this.take(JSON.parse(event.data), event.type === "end");
      for (const kind of ["text", "end"]) source.addEventListener(kind, take);
      source.onerror = () => {
        broken = !this.closed;
        this.leave();
      };
    });
    this.leave = null;
    if (broken) await this.poll(); // says whether the job or the server is gone
  }

  async poll() {
    try {
      const data = await ask(this.address());
      this.take(data, ["done", "stopped", "failed"].includes(data.state));
      if (!this.closed) await pause(data.again);
    } catch (refusal) {
      if (refusal.status) this.closed = true; // the server is there and knows no such job
      this.lost(refusal);
      if (!this.closed) await pause(1000);
    }
  }

  take(data, ended) {
    if (this.closed) return;
    if (ended) this.closed = true;
    this.news(data, ended);
    if (ended) this.leave?.();
  }

  close() {
    this.closed = true;
    this.leave?.();
  }
}

// The jobs that write in the story on the page.
export class Jobs {
  // onNews(data, place of the growth), onEnd(data, first node); both after the story has taken it over
  constructor({ story, editor, onNews, onEnd, fail }) {
    Object.assign(this, { story, editor, onNews, onEnd, fail, all: new Map(), fits: new Map(), inserted: new Set() });
  }

  get isRunning() {
    return this.all.size > 0;
  }

  async start({ node, position = null, forced = "", insert = false, ...settings }) {
    const { story } = this;
    await story.settle();
    const body = { story: story.id, node: node ?? story.head, position, forced, insert, ...settings };
    const reply = await ask("/api/jobs", body);
    if (insert && reply.nodes.length > 1) this.inserted.add(reply.job);
    await story.reload(true);
    this.follow(reply);
    return reply;
  }

  follow({ job, nodes }) {
    if (this.all.has(job)) return;
    const { story } = this;
    const follower = new Follower(job, {
      seen: () => nodes.map((id) => story.count(id)),
      news: (data, ended) => {
        if (!this.all.has(job)) return;
        const isWhole = data.candidates.map((candidate) => story.grow(candidate)).every(Boolean);
        if (!isWhole && !ended) follower.leave?.(); // ask again from what is here
        this.onNews(data, this.editor.anchors.get(nodes[0]));
        if (ended) this.end(job, data).catch(this.fail);
      },
      lost: (refusal) => (refusal.status ? this.end(job, {}).catch(this.fail) : this.fail(refusal)),
    });
    this.all.set(job, { follower, nodes });
  }

  async end(job, data) {
    const { nodes } = this.all.get(job);
    this.all.delete(job);
    for (const id of nodes) this.story.writing.delete(id);
    await this.story.reload();
    this.onEnd(data, this.story.nodes.get(nodes[0]));
    if (this.inserted.delete(job)) await this.rank(nodes);
  }

  // How likely the model finds the next forty characters of the old text after each of the inserted ones.
  async rank(nodes) {
    const { story, fits } = this;
    if (story.head !== nodes[0]) return;
    const rest = this.editor.size - size(story.nodes.get(nodes[0]).text); // characters of the old text
    for (const id of nodes) {
      const { replace, text } = story.nodes.get(id);
      const start = replace[0] + size(text);
      const end = Math.min(start + 40, rest + size(text));
      const { tokens } = await ask("/api/score", { story: story.id, node: id, start, end });
      fits.set(id, -tokens.reduce((sum, token) => sum + token.nats, 0));
    }
    const best = nodes.toSorted((a, b) => fits.get(b) - fits.get(a))[0];
    await story.go(() => best);
  }

  // Stop what is being written; resolves when the server has said that it has.
  async stopAll() {
    await Promise.all([...this.all.keys()].map((job) => ask(`/api/jobs/${job}/stop`, {})));
    while (this.isRunning) await pause(10);
  }

  closeAll() {
    for (const { follower } of this.all.values()) follower.close();
    this.all.clear();
    this.fits.clear();
  }
}
