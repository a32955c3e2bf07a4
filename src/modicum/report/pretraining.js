"use strict";
// The map: a class stands out, and a sample tells its name and shows its picture when it is pointed at.
(() => {
const figure = $("#places");
if (!figure) return;
const { points, classes, notes, sprite } = JSON.parse($("#content").textContent);
const drawing = $("svg", figure);
const tip = $(".tip", figure);
const picture = $(".picture", tip);
const words = $("p", tip);
let only = "";

$("#class").addEventListener("change", (event) => {
  only = event.target.value;
  for (const group of $$("g.dots", figure)) group.classList.toggle("faded", only !== "" && group.dataset.class !== only);
});

function near(event) {
  const scale = drawing.viewBox.baseVal.width / drawing.getBoundingClientRect().width;
  const box = drawing.getBoundingClientRect();
  const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  let [best, least] = [-1, (16 * Math.max(1, scale)) ** 2];
  points.forEach(([px, py, c], i) => {
    if (only !== "" && classes[c] !== only) return;
    const distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least) [best, least] = [i, distance];
  });
  return best;
}

function show(event) {
  const i = near(event);
  if (i < 0) { hide(); return; }
  tip.hidden = false;
  $(".ring", drawing).setAttribute("visibility", "visible");
  const [x, y, c, id] = points[i];
  $(".ring", drawing).setAttribute("cx", x);
  $(".ring", drawing).setAttribute("cy", y);
  words.textContent = [classes[c], id, notes[i]].filter((text) => text !== undefined && text !== "").join(" · ");
  picture.hidden = !sprite;
  if (sprite) {
    const zoom = 64 / sprite.side;
    picture.style.backgroundSize = `${sprite.across * sprite.side * zoom}px auto`;
    picture.style.backgroundPosition = `${-(i % sprite.across) * 64}px ${-Math.floor(i / sprite.across) * 64}px`;
  }
  const scale = drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
  const left = Math.min(x * scale + 14, figure.clientWidth - tip.offsetWidth - 4);
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${y * scale + 14}px`;
}
drawing.addEventListener("pointermove", show);
drawing.addEventListener("pointerdown", show);
function hide() {
  tip.hidden = true;
  $(".ring", drawing).setAttribute("visibility", "hidden");
}
drawing.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
addEventListener("resize", hide);
})();
