// The chart of losses: units, axes, a cross-hair for mouse, finger and keys, and other runs laid beside this one.
const curves = (() => {
  const SIDE = 1000, ROOM = 1.03, MOST_RUNS = 5, EARLY = 0.03, FEW = 12;
  const run = page.data("run"), plot = document.getElementById("plot");
  if (!run || !plot) return null;
  const [unit, along, smooth, reading, others] = ["unit", "along", "smooth", "reading", "others"].map((id) => document.getElementById(id));
  const svg = plot.querySelector("svg"), cross = page.make("div", {class: "cross", hidden: ""});
  const runs = [{...run, colour: "this"}];
  let place = null, shown = null; // of the cross-hair: number of a point; what is drawn

  // ---- figures ------------------------------------------------------------------------------------------------------
  const inUnit = (nats, name = unit.value) => name === "perplexity" ? Math.exp(nats)
    : name === "bits" ? nats / Math.LN2 * run.tokens_per_character : nats;
  const spell = (nats) => unit.value === "perplexity" ? tidy(inUnit(nats), 1) : tidy(inUnit(nats), 3);
  const tidy = (value, digits) => value.toLocaleString("en", {maximumFractionDigits: digits, minimumFractionDigits: digits});
  const across = (which, points, index) => {
    const step = points.steps[index];
    if (along.value === "log") return Math.log10(Math.max(1, step));
    if (along.value === "epoch") return step / which.epoch;
    return along.value === "hours" ? points.seconds[index] / 3600 : step;
  };
  const has = (which, mode) => mode === "hours" ? which.curve.seconds.length + which.held_out.seconds.length > 0
    : mode !== "epoch" || which.epoch > 0;

  function roundSteps(low, high, most) {
    if (!(high > low)) return [low];
    const power = 10 ** Math.floor(Math.log10((high - low) / most));
    const step = [1, 2, 5, 10, 20].map((size) => size * power).find((size) => (high - low) / size <= most);
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(+(at * step).toPrecision(12));
    return found;
  }

  // heights that the drawing must reach: of a long curve not its steep beginning, as range_of in chart.py
  function reach(points) {
    const {steps, losses} = points, last = steps.length - 1;
    if (last < FEW) return losses;
    const start = steps[0] + EARLY * (steps[last] - steps[0]);
    return losses.filter((_, index) => steps[index] >= start);
  }

  function range() {
    let [low, high] = run.axis;
    for (const other of runs.slice(1))
      for (const loss of [...reach(other.curve), ...reach(other.held_out)]) { low = Math.min(low, loss); high = Math.max(high, loss); }
    return [low, high];
  }

  // round figures of a unit -> [nats, label]
  function marks(low, high) {
    if (unit.value === "perplexity") {
      for (const sizes of [[1, 2, 5], [1, 1.2, 1.5, 2, 3, 5, 7]]) {
        const found = [0, 1, 2, 3, 4, 5].flatMap((power) => sizes.map((size) => +(size * 10 ** power).toPrecision(3)))
          .filter((value) => Math.log(value) >= low && Math.log(value) <= high);
        if (found.length > 2 || sizes.length > 3) return found.map((value) => [Math.log(value), value.toLocaleString("en")]);
      }
    }
    const factor = inUnit(1, unit.value === "bits" ? "bits" : "nats");
    return roundSteps(low * factor, high * factor, 6).map((value) => [value / factor, String(value)]);
  }

  // ---- drawing ------------------------------------------------------------------------------------------------------
  function smoothed(losses) {
    if (!smooth.checked) return losses;
    const reachOf = Math.max(1, Math.round(losses.length / 40)); // points on either side
    return losses.map((_, at) => {
      const near = losses.slice(Math.max(0, at - reachOf), at + reachOf + 1);
      return near.reduce((sum, loss) => sum + loss, 0) / near.length;
    });
  }

  function draw() {
    const drawn = runs.filter((which) => has(which, along.value));
    const ends = drawn.flatMap((which) => [which.curve, which.held_out].filter((points) => points.steps.length)
      .map((points) => across(which, points, points.steps.length - 1)));
    const right = Math.max(...ends, 1e-9) * ROOM, [low, high] = range();
    const x = (value) => Math.round(value / right * SIDE * 10) / 10;
    const y = (nats) => Math.round((1 - Math.min(1.05, Math.max(-0.05, (nats - low) / (high - low)))) * SIDE * 10) / 10;
    shown = {x, y, right, low, high};
    svg.replaceChildren();
    plot.querySelectorAll(".up, .rail, .goal").forEach((element) => element.remove());
    for (const [nats, label] of marks(low, high)) {
      svg.append(page.make("line", {class: "grid", x1: 0, x2: SIDE, y1: y(nats), y2: y(nats)}));
      plot.append(page.make("span", {class: "up", style: `top:${y(nats) / 10}%`}, label));
    }
    const rails = along.value === "log" ? roundSteps(0, right, 8).filter(Number.isInteger) : roundSteps(0, right, innerWidth < 600 ? 4 : 6);
    for (const value of rails) {
      const label = (along.value === "log" ? 10 ** value : value).toLocaleString("en");
      plot.append(page.make("span", {class: "rail", style: `left:${x(value) / 10}%`}, label));
    }
    drawGoals(y);
    for (const which of drawn) drawRun(which, x, y);
    plot.append(cross);
    point(place);
  }

  function drawGoals(y) {
    const end = [...run.held_out.losses.slice(-1), ...run.curve.losses.slice(-1)][0]; // names stand where the curves are not
    let edge = -100;
    for (const [english, chinese, cost] of [...run.goals].sort((one, two) => two[2] - one[2])) {
      svg.append(page.make("line", {class: "goal", x1: 0, x2: SIDE, y1: y(cost), y2: y(cost)}));
      edge = Math.max(edge + 7, y(cost) / 10); // names lie under one another, not on one another
      plot.append(page.make("span", {class: end < cost ? "goal beaten" : "goal", style: `top:${edge}%`}, page.both(english, chinese), ` ${spell(cost)}`));
    }
  }

  function drawRun(which, x, y) {
    const path = (points, losses) => losses.map((loss, at) => `${at ? "L" : "M"}${x(across(which, points, at))} ${y(loss)}`).join("");
    const dot = (at) => `M${x(across(which, which.held_out, at))} ${y(which.held_out.losses[at])}h0`;
    const {curve, held_out: held} = which, best = held.losses.indexOf(Math.min(...held.losses));
    svg.append(page.make("path", {class: `curve ${which.colour}`, d: path(curve, smoothed(curve.losses))}));
    svg.append(page.make("path", {class: `held ${which.colour}`, d: path(held, held.losses)}));
    if (best >= 0) svg.append(page.make("path", {class: `best ${which.colour}`, d: dot(best)}));
    svg.append(page.make("path", {class: `dots ${which.colour}`, d: held.losses.map((_, at) => dot(at)).join("")}));
  }

  // ---- the cross-hair -----------------------------------------------------------------------------------------------
  // all points of this run from left to right: [points, number]
  const stops = [run.curve, run.held_out].flatMap((points) => points.steps.map((step, at) => [step, points, at]))
    .sort((one, two) => one[0] - two[0]);
  const nearest = (points, step) => {
    let low = 0, high = points.steps.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (points.steps[middle] > step) high = middle; else low = middle; }
    return high >= 0 && Math.abs(points.steps[high] - step) < Math.abs(points.steps[low] - step) ? high : low;
  };

  function point(where) {
    place = where;
    cross.hidden = place === null || !stops.length || !has(run, along.value);
    if (cross.hidden) { reading.textContent = page.say("Move over the chart, or use the arrow keys.", "把指针移到图上，或用方向键。"); return; }
    place = Math.max(0, Math.min(stops.length - 1, place));
    const [step, points, at] = stops[place];
    cross.style.left = `${shown.x(across(run, points, at)) / 10}%`;
    const parts = [page.say(`step ${step.toLocaleString("en")}`, `第 ${step.toLocaleString("en")} 步`)];
    if (run.epoch) parts.push(page.say(`epoch ${tidy(step / run.epoch, 2)}`, `第 ${tidy(step / run.epoch, 2)} 轮`));
    if (points.seconds.length) parts.push(page.say(`${tidy(points.seconds[at] / 3600, 2)} h`, `${tidy(points.seconds[at] / 3600, 2)} 小时`));
    if (run.curve.steps.length) parts.push(page.say("training ", "训练 ") + spell(run.curve.losses[nearest(run.curve, step)]));
    if (run.held_out.steps.length) {
      const held = nearest(run.held_out, step), where = run.held_out.steps[held];
      parts.push(page.say("held out ", "留出 ") + spell(run.held_out.losses[held]) + (where === step ? "" : page.say(` (step ${where})`, `（第 ${where} 步）`)));
    }
    reading.textContent = parts.join(" · ");
    plot.setAttribute("aria-valuenow", place);
    plot.setAttribute("aria-valuetext", reading.textContent);
  }

  function follow(event) {
    const box = plot.getBoundingClientRect(), aim = (event.clientX - box.left) / box.width * SIDE;
    let best = null, distance = Infinity;
    stops.forEach(([, points, at], index) => {
      const away = Math.abs(shown.x(across(run, points, at)) - aim);
      if (away < distance) { best = index; distance = away; }
    });
    point(best);
  }
  plot.addEventListener("pointermove", follow);
  plot.addEventListener("pointerdown", follow);
  plot.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? Math.max(2, Math.round(stops.length / 20)) : 1, now = place ?? (stops.length - 1);
    const to = {ArrowLeft: now - step, ArrowDown: now - step, ArrowRight: now + step, ArrowUp: now + step, Home: 0, End: stops.length - 1}[event.code];
    if (event.code === "Escape") point(null);
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    point(to);
  });

  // ---- other runs ---------------------------------------------------------------------------------------------------
  const held = (which) => which.held_out.losses.length ? Math.min(...which.held_out.losses) : null;

  function list() {
    runs.slice(1).forEach((other, index) => { other.colour = `other${index}`; });
    others.replaceChildren(...runs.slice(1).map((other) => {
      const best = held(other), away = page.make("button", {type: "button", "aria-label": page.say(`Take ${other.name} away`, `移除 ${other.name}`)}, "×");
      away.addEventListener("click", () => { runs.splice(runs.indexOf(other), 1); settle(); });
      const swatch = page.make("span", {class: `swatch ${other.colour}`});
      return page.make("li", {}, swatch, ` ${other.name} `, best === null ? "" : page.both(`best ${best.toFixed(3)}`, `最好 ${best.toFixed(3)}`), " ", away);
    }));
  }

  function settle() {
    list();
    draw();
    try { sessionStorage.setItem("novelgpt.others", JSON.stringify(runs.slice(1))); } catch { /* then they are gone after a reload */ }
  }

  async function add(files) {
    for (const file of files) {
      const found = await logs.read(file);
      const is_run = found.curve.steps.length + found.held_out.steps.length > 0;
      if (is_run && runs.length <= MOST_RUNS) runs.push(found);
      document.getElementById("said").textContent = !is_run ? page.say(`${file.name}: no log of a run`, `${file.name}：不是训练记录`)
        : page.say(`${file.name} is laid beside`, `已加入 ${file.name}`);
    }
    settle();
  }

  try { runs.push(...JSON.parse(sessionStorage.getItem("novelgpt.others") || "[]").slice(0, MOST_RUNS)); } catch { /* none kept */ }
  document.getElementById("files").addEventListener("change", (event) => add([...event.target.files]));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => { event.preventDefault(); add([...event.dataTransfer.files]); });

  for (const option of along.options) option.hidden = option.disabled = !has(run, option.value);
  unit.querySelector('[value="bits"]').disabled = !run.tokens_per_character;
  for (const control of [unit, along]) control.addEventListener("change", () => { page.remember(`training.${control.id}`, control.value); draw(); });
  for (const control of [unit, along]) {
    const kept = page.remembered(`training.${control.id}`);
    if ([...control.options].some((option) => option.value === kept && !option.disabled)) control.value = kept;
  }
  smooth.addEventListener("change", draw);
  addEventListener("resize", draw);
  for (const element of document.querySelectorAll(".scripted")) element.hidden = false;
  for (const [name, value] of Object.entries({role: "slider", tabindex: 0, "aria-valuemin": 0, "aria-valuemax": Math.max(0, stops.length - 1), "aria-valuenow": 0}))
    plot.setAttribute(name, value);
  svg.setAttribute("aria-hidden", "true");
  page.onLanguage(() => { list(); draw(); });
  return {runs, draw, point};
})();
