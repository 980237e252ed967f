"use strict";
// What all pages share: language, theme, data. A page's own script stands behind this one in the same element.
const page = (() => {
  const root = document.documentElement;
  const listeners = [];

  function remembered(name) {
    try { return localStorage.getItem("novelgpt." + name); } catch { return null; } // a page may not be let near it
  }
  function remember(name, value) {
    try { localStorage.setItem("novelgpt." + name, value); } catch { /* then it is chosen anew each time */ }
  }
  function language() { return root.lang === "zh-CN" ? "zh" : "en"; }

  // one of two texts; numbers and names stand in both
  function say(english, chinese) { return language() === "zh" ? chinese : english; }

  function setLanguage(name) {
    root.lang = name === "zh" ? "zh-CN" : "en";
    // a name for a screen reader, and text where no element fits
    for (const element of document.querySelectorAll("[data-en]")) element.setAttribute("aria-label", element.dataset[name]);
    for (const element of document.querySelectorAll("[data-text-en]"))
      element.textContent = name === "zh" ? element.dataset.textZh : element.dataset.textEn;
    for (const listener of listeners) listener(name);
  }

  function setTheme(name) {
    if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
  }

  // listener(language) now and whenever the language changes
  function onLanguage(listener) { listeners.push(listener); listener(language()); }

  // what a <script type="application/json"> holds; null where there is none or it is torn
  function data(id) {
    const element = document.getElementById(id);
    try { return element && JSON.parse(element.textContent); } catch { return null; }
  }

  // make("p", {class: "novel", lang: "zh-CN"}, "text", child …): text only ever becomes text
  function make(tag, attributes = {}, ...children) {
    const drawn = ["svg", "g", "path", "line", "circle", "rect", "text", "title", "polyline", "polygon"].includes(tag);
    const element = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // a pair of texts as an element, as both() of render.py makes them
  function both(english, chinese) {
    return make("span", {}, make("span", {class: "en", lang: "en"}, english), make("span", {class: "zh", lang: "zh-CN"}, chinese));
  }

  const theme = document.getElementById("theme"), switcher = document.getElementById("language");
  theme.value = remembered("theme") || "auto";
  theme.addEventListener("change", () => { setTheme(theme.value); remember("theme", theme.value); });
  switcher.addEventListener("click", () => {
    const name = language() === "zh" ? "en" : "zh";
    setLanguage(name);
    remember("language", name);
  });
  theme.hidden = switcher.hidden = false;
  setTheme(theme.value || "auto");
  setLanguage(remembered("language") || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en"));
  return {language, say, onLanguage, remembered, remember, data, make, both};
})();
