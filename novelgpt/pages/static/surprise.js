// Colours a paragraph when it comes near the reader, and says what a character cost that is pointed at or touched.
(() => {
  const costs = page.data("nats") || [], told = document.getElementById("told");

  // "0k1c|1,4" -> [nats, length] of each span; null: not scored
  function decode(code) {
    const [digits, lengths] = code.split("|");
    const sizes = lengths ? lengths.split(",").map(Number) : null;
    return Array.from({length: digits.length / 2}, (_, place) => {
      const two = digits.slice(2 * place, 2 * place + 2);
      return [two === "zz" ? null : parseInt(two, 36) / 50, sizes ? sizes[place] : 1];
    });
  }

  function colour(paragraph) {
    const characters = Array.from(paragraph.textContent), parts = document.createDocumentFragment();
    let place = 0;
    for (const [nats, length] of decode(costs[Number(paragraph.id.slice(1))] || "")) {
      const kind = nats === null ? "unscored" : "n" + Math.min(9, Math.floor(nats));
      const span = page.make("span", {class: kind}, characters.slice(place, place + length).join(""));
      if (nats !== null) { span.title = nats.toFixed(2); }
      parts.append(span);
      place += length;
    }
    parts.append(characters.slice(place).join(""));
    paragraph.replaceChildren(parts);
  }

  const watcher = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      colour(entry.target);
    }
  }, {rootMargin: "600px"});
  for (const paragraph of document.querySelectorAll(".text p")) watcher.observe(paragraph);

  let last = null;
  function tell() {
    if (!last) return;
    const figure = last.title;
    told.textContent = figure
      ? page.say(`“${last.textContent}” cost ${figure} nats: one chance in ${Math.max(1, Math.round(Math.exp(figure))).toLocaleString()}`,
                 `“${last.textContent}”：${figure} nats，模型给它的机会是 1/${Math.max(1, Math.round(Math.exp(figure))).toLocaleString()}`)
      : page.say(`“${last.textContent}” was not scored`, `“${last.textContent}”：未评分`);
  }
  for (const kind of ["click", "pointerover"]) {
    document.addEventListener(kind, event => {
      const span = event.target.closest && event.target.closest(".text span[class]");
      if (span) { last = span; tell(); }
    });
  }
  page.onLanguage(tell);
  window.addEventListener("beforeprint", () => { for (const paragraph of document.querySelectorAll(".text p:not(:has(span))")) colour(paragraph); });
})();
