// Every word of the page, [Chinese, English], in one table; and the frame: tabs, sheets, looks.
// {name} is filled in.
const WORDS = {
  title: ["写作 · novelgpt", "Writing · novelgpt"], continue: ["续写", "Continue"], stop: ["停止", "Stop"], retry: ["换一个", "Another"],
  rewrite: ["从此处重写", "Rewrite from here"], insert: ["在此处插入", "Insert here"], here: ["这个字", "This character"], undo: ["撤销", "Undo"],
  redo: ["重做", "Redo"], previous: ["上一个版本", "Previous version"], next: ["下一个版本", "Next version"],
  version: ["第 {n} 个版本，共 {all} 个", "Version {n} of {all}"], stories: ["我的故事", "Stories"], storyName: ["故事名", "Name of the story"],
  newStory: ["新故事", "New story"], unnamed: ["未命名", "Untitled"], open: ["打开", "Open"], remove: ["移走", "Remove"],
  removeSure: ["把《{name}》移到 removed 文件夹？", "Move “{name}” to the folder removed?"], import: ["导入文件", "Import a file"],
  importHint: ["任何编码的文本都可以", "Text in any encoding"], characters: ["{n} 字", "{n} characters"], export: ["导出", "Export"],
  exportTxt: ["文本（UTF-8）", "Text (UTF-8)"], exportBom: ["文本（UTF-8 带 BOM，给记事本）", "Text (UTF-8 with BOM, for Notepad)"],
  exportGb: ["文本（GB18030）", "Text (GB18030)"], exportHtml: ["网页（HTML）", "Web page (HTML)"], exportJson: ["带全部版本的 JSON", "JSON with all versions"],
  training: ["训练", "Training"], corpus: ["语料", "Corpus"], help: ["按键", "Keys"], close: ["关闭", "Close"], menu: ["章节与分支", "Chapters and branches"],
  panels: ["面板", "Panels"], actions: ["操作", "Actions"], chapters: ["章节", "Chapters"],
  noChapters: ["以“第一章”起头的段落会列在这里。", "Paragraphs that begin with 第一章 are listed here."], newChapter: ["新一章", "New chapter"],
  entitle: ["给这一章取名", "Titles for this chapter"], branches: ["分支", "Branches"], noBranches: ["换一个写法，就有了分支。", "Another version makes a branch."],
  text: ["正文", "Text"], begin: ["写下第一句，或者直接按“续写”……", "Write the first sentence, or press Continue …"], language: ["English", "中文"],
  languageLabel: ["切换到 English", "切换到中文 (Chinese)"], theme: ["外观", "Looks"], themeAuto: ["随系统", "As the system"], themeLight: ["浅色", "Light"],
  themeDark: ["深色", "Dark"], themePaper: ["纸", "Paper"], font: ["字体", "Font"], fontSong: ["宋", "Song"], fontHei: ["黑", "Hei"], fontKai: ["楷", "Kai"],
  textSize: ["字号", "Size"], indent: ["段首空两格", "Indent paragraphs"], origins: ["用颜色区分谁写的", "Colour by who wrote it"], reader: ["专注", "Focus"],
  steady: ["稳妥", "Steady"], balanced: ["平衡", "Balanced"], bold: ["大胆", "Bold"], set_temperature: ["温度", "Temperature"], set_topk: ["前 k 个", "Top k"],
  set_topp: ["前 p 份额", "Top p"], set_min_p: ["最小份额", "Min p"], set_repetition_penalty: ["重复惩罚", "Repetition penalty"],
  set_penalty_window: ["惩罚窗口", "Penalty window"], set_no_repeat_ngram_size: ["不重复几字", "No repeated run"], set_typical: ["典型份额", "Typical"],
  set_dry_multiplier: ["不绕圈子", "No loops (DRY)"], keepHead: ["记住的开头（字）", "Remembered beginning (tokens)"], candidates: ["候选", "Candidates"],
  noCandidates: ["续写之后，候选会在这里。点一个就用它，其余的留作分支。", "After Continue the candidates are here. Click one to take it; the others stay as branches."],
  candidate: ["候选 {n}", "Candidate {n}"], taken: ["正在用", "taken"], follows: ["接后文 {p}", "fits what follows {p}"], copies: ["相同", "Copies"],
  copiesTitle: ["与原书相同", "The same as the book"], copiesNone: ["没有 {n} 字以上与原书相同的地方。", "Nothing of {n} or more characters is the same as the book."],
  copiesAsk: ["写的时候，与原书相同的 {n} 字以上的地方会画上波浪线。", "Runs of {n} or more characters that stand in the book are underlined while they are written."],
  copyRun: ["{n} 字 · {title}", "{n} characters · {title}"], chapterOf: ["第 {n} 篇", "chapter {n}"],
  noBook: ["没有找到原书，所以不能比较。用 --corpus 指出训练时的 train.json。", "The book was not found, so nothing can be compared. Name the train.json of that training with --corpus."],
  style: ["文风", "Style"], styleTitle: ["文风对照原书", "Style beside the book"], styleAsk: ["停笔片刻，就会和原书比较。", "Compared with the book at every pause."],
  here_text: ["本文", "text"], book: ["原书", "book"], within: ["在原书的范围内", "within the book's range"], above: ["高于原书", "above the book"],
  below: ["低于原书", "below the book"], doctor: ["原书里没有的字和名字", "What the book never uses"],
  doctorNone: ["没有原书里没有的字。", "Nothing that the book never uses."], nearest: ["最接近的是 {what}", "nearest: {what}"],
  openings: ["在书中找开头", "Find an opening in the book"], openingsHint: ["几个字，例如 夜里", "A few characters"], find: ["找", "Find"],
  useOpening: ["以此开头", "Begin with it"], nothingFound: ["没有找到。", "Nothing found."], settings: ["设置", "Settings"], presets: ["写法", "Preset"],
  seedPreset: ["原样", "Plain"], length: ["长度（字）", "Length (tokens)"], ending: ["停在", "End at"], endLength: ["写够长度", "the length"],
  endSentence: ["句末", "a sentence's end"], endParagraph: ["段末", "a paragraph's end"], endChapter: ["章末", "a chapter's end"],
  howMany: ["候选个数", "Candidates"], seed: ["随机种子", "Seed"], seedLock: ["锁定种子", "Keep the seed"], guard: ["照抄上限（0 不限）", "Longest copy (0 none)"],
  display: ["显示", "Display"], reset: ["恢复默认", "Defaults"], surprise: ["意外", "Surprise"], card: ["这个字的概率", "Probability of this character"],
  cardText: ["概率 {p} · 第 {rank} 位 · 意外 {nats}", "probability {p} · rank {rank} · surprise {nats}"],
  cardHint: ["选一个，就从这里改写", "Take one to go on from here"], filtered: ["会被筛掉", "filtered out"], by_root: ["开头", "opening"],
  by_typed: ["自己写的", "your own"], by_model: ["模型写的", "the model’s"], by_import: ["导入的", "imported"], saved: ["已存", "saved"],
  savedLong: ["已保存在服务器的文件夹里。", "Saved in the server’s folder."], saving: ["在存…", "saving …"],
  modelChanged: ["模型文件夹里已是另一个模型；重新启动 studio.py 才会用它。", "The folder holds another model by now; start studio.py again to use it."],
  notSaved: ["还没存上", "not saved yet"], rate: ["{n} 字/秒", "{n} chars/s"], loading: ["模型载入中 {p}", "loading the model {p}"],
  noModel: ["没有模型", "no model"], queued: ["前面还有 {n} 个", "{n} before this one"], writing: ["正在写", "writing"],
  wrote: ["写了 {n} 字", "{n} characters written"], stopped: ["停了，写了 {n} 字", "stopped after {n} characters"],
  failed: ["没有写成：{why}", "It could not be written: {why}"], undone: ["已撤销", "undone"], redone: ["已重做", "redone"], why_length: ["够长", "length"],
  why_sentence: ["句末", "sentence"], why_paragraph: ["段末", "paragraph"], why_chapter: ["章末", "chapter"], why_stop: ["停止词", "stop word"],
  why_end: ["文末", "end"], why_stopped: ["停止", "stopped"], why_interrupted: ["中断", "interrupted"],
  offline: ["连不上服务器。写下的字还在这一页，连上就存。", "The server does not answer. What you wrote stays in this page and is saved when it does."],
  moved: ["这个故事在别处换了分支；你写的留在原来的分支上。", "The story was moved to another branch elsewhere; what you wrote stays on its own branch."],
  login: ["打开 studio.py 打印的那个网址（带 token）。", "Open the address that studio.py printed, with its token."],
  key_here: ["光标前那个字的概率；↑ ↓ 选，回车用", "Probability of the character before the caret; ↑ ↓ choose, Enter takes"],
  key_versions: ["上一个、下一个版本", "Previous, next version"], key_chapters: ["上一章、下一章", "Previous, next chapter"],
  key_take: ["用第几个候选", "Take a candidate"], key_stop: ["停止；关闭卡片", "Stop; close a card"], key_save: ["已保存；导出", "Saved; export"],
  key_undo: ["撤销、重做（走在版本树上）", "Undo, redo (in the tree of versions)"],
};

export const $ = (id) => document.getElementById(id);
let column = 0;

// The language of the page, as in <html lang>.
export const language = () => (column ? "en" : "zh-CN");

// Words of the table, or of a pair {zh, en} that the server gave.
export function word(key, values = {}) {
  const pair = typeof key === "string" ? WORDS[key] : [key?.zh ?? "", key?.en ?? ""];
  return (pair ? pair[column] : key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

// Speak this language, in everything that carries data-word or data-label.
export function speak(code) {
  column = code.startsWith("zh") ? 0 : 1;
  document.documentElement.lang = language();
  document.title = word("title");
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", word(element.dataset.label));
    element.title = word(element.dataset.label);
  }
  for (const element of document.querySelectorAll("[data-hint]")) {
    element.setAttribute(element.isContentEditable ? "aria-placeholder" : "placeholder", word(element.dataset.hint));
  }
}

// An element with attributes, listeners (values that are functions) and children; strings become text, never markup.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// ---- the frame

export function showTab(name) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const isOn = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", String(isOn));
    tab.tabIndex = isOn ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !isOn;
  }
}

export function listenTabs() {
  showTab("candidates");
  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => showTab(tab.getAttribute("aria-controls")));
    tab.addEventListener("keydown", ({ code }) => {
      const next = tabs[(i + { ArrowRight: 1, ArrowLeft: -1 }[code] + tabs.length) % tabs.length];
      next?.click();
      next?.focus();
    });
  });
}

export function closeDrawers() {
  const open = document.querySelectorAll("aside.open");
  for (const drawer of open) {
    drawer.classList.remove("open");
    $(`open-${drawer.id}`).setAttribute("aria-expanded", "false");
  }
  return open.length > 0;
}

export function openDrawer(id) {
  const isOpen = $(id).classList.contains("open");
  closeDrawers();
  if (isOpen) return;
  $(id).classList.add("open");
  $(`open-${id}`).setAttribute("aria-expanded", "true");
  $(id).querySelector("button")?.focus();
}

// Buttons that the head and the foot have no room for on a phone stand in the sheets.
export function fillSheets() {
  const twin = (id) => make("button", { "data-word": { here: "here", "open-stories": "stories", "open-export": "export",
    "open-help": "help" }[id] ?? id, click: () => [closeDrawers(), $(id).click()] });
  const link = (id) => make("a", { href: `/${id}`, target: "_blank", "data-word": id });
  $("menu-stories").append(...["open-stories", "open-export", "language", "open-help"].map(twin), ...["training", "corpus"].map(link));
  $("panel-actions").append(...["undo", "redo", "rewrite", "insert", "here", "surprise"].map(twin));
}

// Looks, as the server remembers them.
export function showLooks({ theme = "auto", font = "song", size = 19, indent = true, origins = true }) {
  const root = document.documentElement;
  Object.assign(root.dataset, { theme, font });
  root.toggleAttribute("data-indent", indent);
  root.toggleAttribute("data-origins", origins);
  root.style.setProperty("--size", `${size}px`);
  for (const [id, value] of Object.entries({ theme, font, size })) $(id).value = value;
  for (const [id, checked] of Object.entries({ indent, origins })) $(id).checked = checked;
}

// Sliders and presets; what is chosen is remembered by the server.
export class Settings {
  constructor({ state, keep }) {
    const own = JSON.parse(state.preferences.writing ?? "{}");
    const base = { preset: state.default_preset, settings: {}, candidates: 1, length: 200, ending: "length", guard: 0, keep_head: 0, seed: null };
    Object.assign(this, { state, keep, values: { ...base, ...own }, base });
    this.draw();
  }

  // What a job is asked with.
  get request() {
    const { preset, settings, ...values } = this.values;
    return { ...values, settings: { ...(this.state.presets[preset] ?? {}), ...settings } };
  }

  set(values) {
    Object.assign(this.values, values);
    this.keep({ writing: JSON.stringify(this.values) });
    return this;
  }

  valueOf({ name, default: value }) {
    return this.values.settings[name] ?? this.state.presets[this.values.preset]?.[name] ?? value;
  }

  draw() {
    const { state, values } = this;
    const presets = Object.keys(state.presets).map((name) => make("button", {
      "aria-pressed": String(name === values.preset),
      click: () => {
        this.set({ preset: name, settings: {} }).draw();
        $("preset-list").querySelector("[aria-pressed=true]").focus();
      },
    }, word(name === "seed" ? "seedPreset" : name)));
    $("preset-list").replaceChildren(...presets);
    const { candidates, length } = state.limits;
    $("setting-list").replaceChildren(
      this.slider("howMany", values.candidates, 1, candidates, 1, (n) => this.set({ candidates: n })),
      this.number("length", values.length, 1, length, (n) => this.set({ length: n })),
      this.ending(),
      ...state.settings.map((setting) => this.slider(setting, this.valueOf(setting), setting.low, setting.high, setting.step,
        (n) => this.set({ settings: { ...values.settings, [setting.name]: n } }))),
      this.number("guard", values.guard, 0, 200, (n) => this.set({ guard: n })),
      this.number("keepHead", values.keep_head, 0, 256, (n) => this.set({ keep_head: n })),
      this.seed(),
      make("button", { click: () => this.set(structuredClone(this.base)).draw() }, word("reset")),
    );
  }

  field(name, ...inputs) {
    const label = typeof name === "string" ? word(name) : word(`set_${name.name}`).replace("set_", "");
    return make("label", { title: typeof name === "string" ? null : `${name.name}: ${word(name.help)}` }, make("span", {}, label), ...inputs);
  }

  slider(name, value, low, high, step, change) {
    const shown = make("output", {}, String(value));
    const input = make("input", { type: "range", min: low, max: high, step, input: () => (shown.textContent = input.value),
      change: () => change(Number(input.value)) });
    input.value = value;
    return this.field(name, input, shown);
  }

  number(name, value, low, high, change) {
    const input = make("input", { type: "number", min: low, max: high, inputmode: "numeric", change: () => {
      if (input.value === "") return change(name === "seed" ? null : low);
      input.value = Math.min(high, Math.max(low, Math.round(Number(input.value))));
      change(Number(input.value));
    } });
    input.value = value;
    return this.field(name, input);
  }

  // A seed that is kept: the same text again from the same place; without it the last one drawn is shown.
  seed() {
    const field = this.number("seed", this.values.seed ?? "", 0, 2 ** 32 - 1, (seed) => {
      this.set({ seed });
      lock.checked = seed !== null;
    });
    const lock = make("input", { type: "checkbox", change: () => {
      this.set({ seed: lock.checked ? Number(input.value || input.placeholder || 0) : null });
      input.value = this.values.seed ?? "";
    } });
    const input = field.querySelector("input");
    input.id = "seed";
    lock.checked = this.values.seed !== null;
    return make("div", {}, field, make("label", { class: "tick" }, lock, word("seedLock")));
  }

  ending() {
    const kinds = ["Length", "Sentence", "Paragraph", "Chapter"];
    const choose = make("select", { change: () => this.set({ ending: choose.value }) },
      ...kinds.map((kind) => make("option", { value: kind.toLowerCase() }, word(`end${kind}`))));
    choose.value = this.values.ending;
    return this.field("ending", choose);
  }
}
