// The time-lapse, what follows from the clock, and the page that renews itself while its run goes on.
(() => {
  const EVERY = 900, RENEW = 30_000, STALE = 6 * 3600; // ms between frames, ms between reloads, s without a word
  const run = page.data("run"), slider = document.getElementById("frame"), play = document.getElementById("play");
  const kept = (name) => { try { return sessionStorage.getItem("novelgpt." + name + "." + location.pathname); } catch { return null; } };
  const keep = (name, value) => { try { sessionStorage.setItem("novelgpt." + name + "." + location.pathname, value); } catch { /* not kept */ } };
  let timer = null;
  if (!run) return;

  // ---- the time-lapse -----------------------------------------------------------------------------------------------
  const frames = run.frames, last = frames.length - 1;
  const passage = [...document.querySelectorAll("#passage span")];
  const cards = new Map([...document.querySelectorAll(".card[data-kind]")].map((card) => [card.dataset.kind, card]));
  const number = (value) => value.toLocaleString("en", {maximumFractionDigits: 2});
  const name = (step) => run.epoch ? page.say(`epoch ${number(step / run.epoch)}`, `第 ${number(step / run.epoch)} 轮`)
    : page.say(`step ${number(step)}`, `第 ${number(step)} 步`);

  function fill(card, sample, written) {
    const [given, text, said] = ["given", "text", "said"].map((part) => card.querySelector("." + part));
    given.textContent = sample ? sample.prefix ?? "" : "";
    text.textContent = sample ? sample.text + (sample.cut ? " …" : "") : page.say("(nothing written yet)", "（还没有写）");
    const parts = sample && written !== null ? [page.say(`written at ${name(written)}`, `写于${name(written)}`)] : [];
    if (sample && sample.longest !== undefined)
      parts.push(page.say(`longest run copied: ${sample.longest} characters`, `最长照抄：${sample.longest} 字`));
    said.textContent = parts.join(" · ");
    said.classList.toggle("long", Boolean(sample && sample.longest >= 20));
  }

  function show(at) {
    const frame = frames[at];
    slider.value = at;
    for (const [kind, card] of cards) {
      let from = at;
      while (from >= 0 && !Object.hasOwn(frames[from].samples, kind)) from--; // a kind may have any name
      fill(card, from < 0 ? null : frames[from].samples[kind], from < 0 ? null : frames[from].step);
    }
    if (frame.nats.length)
      passage.forEach((span, index) => {
        const tenths = frame.nats[index] ?? -1;
        span.className = tenths < 0 ? "unscored" : `n${Math.min(9, Math.floor(tenths / 10))}`;
        span.title = tenths < 0 ? "" : (tenths / 10).toFixed(1);
      });
    const loss = frame.loss === null ? "" : page.say(`, held-out loss ${frame.loss.toFixed(3)}`, `，留出损失 ${frame.loss.toFixed(3)}`);
    const words = name(frame.step) + loss;
    document.getElementById("where").textContent = words;
    slider.setAttribute("aria-valuetext", words);
    keep("frame", at === last ? "last" : String(at));
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.setAttribute("aria-pressed", "false");
  }

  function start() {
    if (+slider.value === last) show(0);
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => { show(Math.min(last, +slider.value + 1)); if (+slider.value === last) stop(); }, EVERY);
  }

  if (last >= 0 && slider) {
    const wanted = kept("frame");
    slider.max = last;
    slider.addEventListener("input", () => { stop(); show(+slider.value); });
    play.addEventListener("click", () => timer ? stop() : start());
    document.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[event.code];
      const is_taken = event.target.closest("input, select, textarea, [role=slider], [contenteditable]");
      if (!step || is_taken || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
      stop();
      show(Math.max(0, Math.min(last, +slider.value + step)));
    });
    slider.value = wanted === null || wanted === "last" ? last : Math.min(last, Math.max(0, +wanted || 0));
    page.onLanguage(() => show(+slider.value));
  }

  // ---- the clock of whoever looks, and commands to take along -------------------------------------------------------
  for (const element of document.querySelectorAll("time[data-unix]")) {
    const moment = new Date(element.dataset.unix * 1000);
    if (!isNaN(moment)) page.onLanguage(() => {
      const day = moment.toDateString() === new Date().toDateString() ? {} : {month: "short", day: "numeric"};
      element.textContent = moment.toLocaleString(page.say("en-GB", "zh-CN"), {...day, hour: "2-digit", minute: "2-digit"});
    });
  }
  for (const button of document.querySelectorAll("button.copy"))
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        document.getElementById("said").textContent = page.say("The command is copied.", "命令已复制。");
      } catch { getSelection().selectAllChildren(code); }
    });

  // ---- while the run goes on ----------------------------------------------------------------------------------------
  addEventListener("pagehide", () => { keep("scroll", String(scrollY)); keep("focus", document.activeElement?.id || ""); });
  if (performance.getEntriesByType("navigation")[0]?.type === "reload") {
    document.getElementById(kept("focus") || " ")?.focus({preventScroll: true});
    scrollTo({top: +kept("scroll") || 0, behavior: "instant"});
  }
  const is_silent = () => run.time !== null && Date.now() / 1000 - run.time > STALE;
  const is_busy = () => timer || document.hidden || String(getSelection());
  if (run.live && is_silent()) { // killed, perhaps: what was foretold is past
    document.getElementById("left")?.remove();
    page.onLanguage(() => { document.querySelector(".live").textContent = page.say("no word for hours: the same command goes on", "好几个小时没有消息：同一条命令可以接着训练"); });
  } else if (run.live)
    setInterval(() => { if (!is_busy()) location.reload(); }, RENEW);
})();
