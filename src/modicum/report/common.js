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
$("#class").addEventListener("change", (event) => {
  for (const path of $$("path.one")) path.classList.toggle("shown", path.dataset.class === event.target.value);
});
if ($("#class").options.length < 2) $("#class").closest(".tools").hidden = true;

// ---- copy
$("#copy").addEventListener("click", async () => {
  const code = $(".command code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    $("#copy").textContent = "Copied";
    say("Command copied");
  } catch {
    getSelection().selectAllChildren(code);
    say("Command selected");
  }
});
