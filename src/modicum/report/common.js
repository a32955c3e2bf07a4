"use strict";
// What every page does: the theme, outlines of a class over histograms, copying the command.
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const say = (text) => { $("#live").textContent = text; };

// ---- theme
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
function showTheme() {
  $("#theme").setAttribute("aria-pressed", String(isDark()));
  root.dispatchEvent(new Event("theme")); // charts are drawn in its colors
}
$("#theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("modicum-theme", root.dataset.theme); } catch { /* the choice lasts for this visit only */ }
  showTheme();
});
system.addEventListener("change", showTheme);
showTheme();

// ---- the outline of a class over the histograms
for (const chosen of $$("#class")) {
  chosen.addEventListener("change", () => {
    for (const path of $$("path.one")) path.classList.toggle("shown", path.dataset.class === chosen.value);
  });
  if (chosen.options.length < 2) chosen.closest(".tools").hidden = true;
}

// ---- copy
for (const button of $$(".command button")) {
  button.addEventListener("click", async () => {
    const code = $("code", button.parentElement);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      say("Command copied");
    } catch {
      getSelection().selectAllChildren(code);
      say("Command selected");
    }
  });
}
