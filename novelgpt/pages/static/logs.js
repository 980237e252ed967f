// A log.jsonl that somebody lays beside the run of the page -> its curves, of any size, as story.py reads them.
const logs = (() => {
  const COLUMNS = 600; // of pixels; in each the lowest and the highest point stay
  const columns = () => ({steps: [], seconds: [], losses: []});

  // as story.py reads a log, a line at a time: torn lines and what is no number are left out
  function take(found, line) {
    let record;
    try { record = JSON.parse(line); } catch { return; }
    if (!record || typeof record !== "object") return;
    if (record.event === "start") {
      if (!(record.step > 0)) Object.assign(found, {curve: columns(), held_out: columns(), epoch: 0, began: undefined, away: 0, step: 0});
      if (record.windows > 0 && record.batch_size > 0) found.length = record.windows / record.batch_size;
      if (record.total_steps > 0 && record.epochs > 0) found.length = record.total_steps / record.epochs;
    }
    const step = Number.isFinite(record.step) ? record.step : found.step;
    if (step < found.step && (record.event === "resume" || record.event === undefined)) {
      for (const points of [found.curve, found.held_out])
        while (points.steps.length && points.steps.at(-1) > step) for (const values of Object.values(points)) values.pop();
    }
    found.step = step;
    if (Number.isFinite(record.time)) {
      found.began ??= record.time;
      if (record.event === "resume") found.away += Math.max(0, record.time - found.time);
      found.time = record.time;
    }
    if (record.epoch > 0) found.epoch = Math.max(found.epoch, step / record.epoch);
    for (const [points, loss] of [[found.curve, record.loss], [found.held_out, record.valid_loss]]) {
      if (!Number.isFinite(loss) || record.event !== undefined) continue;
      points.steps.push(step);
      points.losses.push(loss);
      if (found.began !== undefined) points.seconds.push(found.time - found.began - found.away);
    }
  }

  function thin(points) {
    const count = points.steps.length, last = points.steps[count - 1], keep = new Set();
    if (count <= COLUMNS) return points;
    let group = [], column = 0;
    for (let at = 0; at <= count; at++) {
      const next = at < count ? Math.floor(points.steps[at] / (last + 1) * COLUMNS) : -1;
      if (next !== column && group.length) {
        group.sort((one, two) => points.losses[one] - points.losses[two]);
        keep.add(group[0]).add(group.at(-1));
        group = [];
      }
      column = next;
      group.push(at);
    }
    const kept = [...keep].sort((one, two) => one - two), pick = (values) => values.length === count ? kept.map((at) => values[at]) : [];
    return {steps: pick(points.steps), seconds: pick(points.seconds), losses: pick(points.losses)};
  }

  async function read(file) {
    const found = {name: file.name, curve: columns(), held_out: columns(), epoch: 0, away: 0, step: 0};
    const reader = file.stream().pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (rest + part.value).split("\n");
      rest = lines.pop().slice(-1e7); // a line of that length is none of ours
      for (const line of lines) take(found, line);
    }
    take(found, rest);
    return {name: found.name, epoch: found.length || found.epoch, curve: thin(found.curve), held_out: thin(found.held_out)};
  }
  return {read};
})();
