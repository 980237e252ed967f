// Opens what is known of a document: by the slider below the chart, its keys, or a click on a bar.
(() => {
  const books = page.data("books") || [], counts = n => n.toLocaleString("en-US");

  function facts(book, place) {
    const parts = [page.both(`document ${counts(place + 1)} of ${counts(book.lines.length)}`, `第 ${counts(place + 1)} 篇，共 ${counts(book.lines.length)} 篇`),
      " · ", page.both(`${counts(book.characters[place])} characters`, `${counts(book.characters[place])} 字`),
      " · ", page.both(`line ${counts(book.lines[place])}`, `第 ${counts(book.lines[place])} 行`)];
    const nats = book.surprise[place], repeats = book.repeats[place];
    if (nats !== null && nats !== undefined) {
      const scored = book.surprise.filter(value => value !== null).sort((one, other) => one - other);
      const middle = scored[Math.floor(scored.length / 2)];
      parts.push(" · ", page.both(`surprise by the others ${nats.toFixed(2)} nats a character (middle one ${middle.toFixed(2)})`,
                                  `按其余各篇衡量的意外度：每字 ${nats.toFixed(2)} nats（中位 ${middle.toFixed(2)}）`));
    }
    if (repeats) parts.push(" · ", page.both(`repeated paragraphs: ${counts(repeats)}`, `重复的段落：${counts(repeats)}`));
    return parts;
  }

  document.querySelectorAll("[data-book]").forEach(section => {
    const book = books[Number(section.dataset.book)], slider = section.querySelector("input"), svg = section.querySelector("svg");
    const bars = svg.querySelectorAll("rect"), panel = section.querySelector(".chapter");
    slider.hidden = false;
    function show() {
      const place = Number(slider.value) - 1;
      bars.forEach((bar, number) => bar.classList.toggle("chosen", number === Math.floor(place / book.bar)));
      const heading = page.make("strong", {lang: "zh-CN"}, book.headings[place] || "—");
      const lines = [page.make("p", {}, heading), page.make("p", {}, ...facts(book, place))];
      if (book.beginnings[place]) lines.push(page.make("p", {class: "novel", lang: "zh-CN"}, book.beginnings[place] + "…"));
      panel.replaceChildren(...lines);
      slider.setAttribute("aria-valuetext", (book.headings[place] || "") + " " + counts(place + 1));
    }
    slider.addEventListener("input", show);
    svg.addEventListener("click", event => {
      const box = svg.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
      slider.value = 1 + Math.min(book.lines.length - 1, Math.floor(share * bars.length) * book.bar);
      show();
      slider.focus();
    });
    show();
  });
})();
