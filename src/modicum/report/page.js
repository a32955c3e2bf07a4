"use strict";
(() => {
const content = JSON.parse($("#content").textContent);

// ---- panels of which one is shown: every select of a switch narrows them by one data attribute
for (const tools of $$("[data-switch]")) {
  const panels = $$(`[data-panel="${tools.dataset.switch}"]`);
  const selects = $$("select", tools);
  for (const select of selects) {
    for (const value of new Set(panels.map((p) => p.dataset[select.dataset.key]))) select.add(new Option(value, value));
  }
  const show = () => panels.forEach((p) => { p.hidden = selects.some((s) => p.dataset[s.dataset.key] !== s.value); });
  tools.addEventListener("change", show);
  tools.hidden = panels.length < 2;
  show();
}

// ---- table: filter and sort
const rows = $$("#results tbody tr");
const form = $("#filter");
function filter() {
  const { text, family, budget } = form.elements;
  const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const fits = words.every((w) => row.dataset.search.includes(w))
      && (!family.value || row.dataset.family === family.value) && (!budget.value || row.dataset.budget === budget.value);
    row.hidden = !fits;
    shown += fits;
  }
  $("#shown").textContent = `${shown} of ${rows.length} rows`;
}
for (const event of ["input", "change"]) form.addEventListener(event, filter);
form.addEventListener("submit", (event) => event.preventDefault());

function sort(head) {
  const column = head.cellIndex;
  const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of $$("#results thead th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  const key = (row) => row.cells[column].dataset.key;
  const numeric = rows.every((row) => key(row) === "" || Number.isFinite(Number(key(row))));
  const compare = (a, b) => (numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
  const ordered = [...rows].sort((a, b) => {
    if (!key(a) || !key(b)) return !key(a) - !key(b); // what is not known comes last either way
    return direction * compare(key(a), key(b));
  });
  $("#results tbody").append(...ordered);
  say(`Sorted by ${head.innerText.trim()}, ${head.getAttribute("aria-sort")}`);
}
for (const button of $$("#results .sort")) button.addEventListener("click", () => sort(button.closest("th")));

// ---- the frontier
const chart = $("#chart");
const hidden = new Set();
const state = { x: "flops", y: "test", view: "all" };
const titles = { flops: "FLOPs, choosing and training", seconds: "seconds, choosing and training", samples: "samples visited" };
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const giga = (text) => text.replace("K", " k").replace("M", " M").replace("B", " G").replace(/(\d)T/, "$1 T");
const percent = content.metric === "accuracy";
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const isNarrow = () => chart.clientWidth < 520;
/** Lines short enough for the chart they hover over. */
const fold = (text) => text.match(isNarrow() ? /.{1,38}(\s|$)|\S{1,38}/g : /.{1,70}(\s|$)|\S{1,70}/g) ?? [];
const told = (p) => [
  ...fold(p.head).map((line) => `<b>${plain(line)}</b>`), ...fold(p.note).map((line) => `<i>${plain(line)}</i>`),
  ...p.cells.flatMap(fold).map(plain),
].join("<br>");
const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();

function trace(series) {
  const points = content.points
    .filter((p) => p.method === series.method && p.x[state.x] > 0 && p.y[state.y][0] !== null)
    .sort((a, b) => a.keep - b.keep);
  const ink = color(series.color);
  return {
    type: "scatter", mode: "lines+markers", name: plain(series.method), meta: { control: series.control, method: series.method },
    visible: series.control || !hidden.has(series.method),
    x: points.map((p) => p.x[state.x]), y: points.map((p) => p.y[state.y][0]),
    error_y: { type: "data", array: points.map((p) => p.y[state.y][1] ?? 0), thickness: 1, width: 3, color: ink },
    text: points.map(told), hoverinfo: "text",
    line: { color: ink, width: series.control ? 2 : 1.5, dash: series.dash },
    marker: { color: ink, symbol: series.symbol, size: series.control ? 11 : 9, line: { width: series.control ? 2 : 0, color: ink } },
  };
}

function picked() {
  const points = content.points.filter((p) => p.recommended && p.x[state.x] > 0 && p.y[state.y][0] !== null);
  return {
    type: "scatter", mode: "markers", name: "recommended", meta: { control: true }, hoverinfo: "skip",
    x: points.map((p) => p.x[state.x]), y: points.map((p) => p.y[state.y][0]),
    marker: { symbol: "circle-open", size: 24, color: color("--accent"), line: { width: 3, color: color("--accent") } },
  };
}

function ranges(traces) {
  const shown = traces.filter((t) => t.visible !== false);
  const xs = shown.flatMap((t) => t.x).map(Math.log10);
  const [low, high] = [Math.min(...xs), Math.max(...xs)];
  const pad = Math.max(0.06 * (high - low), 0.05);
  const x = xs.length ? [low - pad, high + pad] : undefined;
  if (state.view !== "target" || content.target === null) return { x };
  const ys = shown.flatMap((t) => t.y);
  const reach = Math.max(Math.max(...ys, content.target) - content.target, 0.02);
  return { x, y: [content.target - 2 * reach, content.target + 1.4 * reach] };
}

/** Round numbers for a logarithmic axis: as many per decade as its range, in powers of ten, has room for. */
function ticks([low, high], room) {
  for (const step of [0.1, 0.5, 1, 2, 3, 10]) {
    const per = step === 3 ? [1, 2, 5] : step === 2 ? [1, 2, 3, 5, 7] : step === 10 ? [1] : Array.from({ length: 9 / step }, (_, i) => 1 + i * step);
    const values = [];
    for (let decade = Math.floor(low); decade <= high; decade++) values.push(...per.map((m) => m * 10 ** decade));
    const seen = values.filter((v) => v >= 10 ** low && v <= 10 ** high);
    if (seen.length <= room && seen.length > 1) return { tickmode: "array", tickvals: seen, ticktext: seen.map(tickText) };
  }
  return { tickmode: "auto", tickvals: null, ticktext: null, nticks: room };
}
const tickText = (value) => (value >= 1e15 ? value.toExponential(0) : state.x === "seconds" ? String(Number(value.toPrecision(3))) : giga(compact.format(value)));

function layout(traces) {
  const [text, gray, line] = [color("--text"), color("--gray"), color("--line")];
  const narrow = isNarrow();
  const { x, y } = ranges(traces);
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, automargin: true };
  const target = content.target === null ? [] : [content.target];
  return {
    width: chart.clientWidth, height: narrow ? 380 : 480, showlegend: false, hovermode: "closest", uirevision: "keep",
    // a finger on the chart scrolls the page; the buttons above it zoom
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    margin: { l: narrow ? 44 : 64, r: 12, t: 16, b: 48 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 12 : 13, color: text },
    hoverlabel: { bgcolor: color("--raised"), bordercolor: gray, font: { family: getComputedStyle(document.body).fontFamily, color: text, size: narrow ? 10 : 12 }, align: "left" },
    xaxis: { ...axis, type: "log", tickangle: 0, title: { text: titles[state.x] }, ...(x && { range: x, ...ticks(x, narrow ? 5 : 8) }) },
    yaxis: { ...axis, title: { text: narrow ? "" : `${state.y === "test" ? "test" : "validation"} ${content.metric}` }, tickformat: percent ? "~%" : "~g", ...(y ? { range: y } : { autorange: true }) },
    shapes: target.map((t) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: t, y1: t, line: { color: color("--accent"), width: 1.5, dash: "dot" } })),
    annotations: target.map((t) => ({
      xref: "paper", x: 0, xanchor: "left", y: t, yanchor: "bottom", showarrow: false, font: { color: color("--accent") },
      text: `target ${percent ? `${(100 * t).toFixed(1)} %` : t.toFixed(3)}`,
    })),
  };
}

function draw() {
  const traces = [...content.series.map(trace), picked()];
  Plotly.react(chart, traces, layout(traces), { displayModeBar: false, scrollZoom: false, doubleClick: "reset" });
}

// a zoom by mouse needs other ticks; writing them is a relayout too, but one without a range
function watch(change) {
  const range = chart._fullLayout.xaxis.range;
  if (Object.keys(change).some((key) => key.startsWith("xaxis.range") || key.startsWith("xaxis.autorange"))) {
    const { tickmode, tickvals, ticktext } = ticks(range, isNarrow() ? 5 : 8);
    Plotly.relayout(chart, { "xaxis.tickmode": tickmode, "xaxis.tickvals": tickvals, "xaxis.ticktext": ticktext });
  }
}

function zoom(factor) {
  const { xaxis, yaxis } = chart._fullLayout;
  const around = ([a, b]) => [(a + b) / 2 - (factor * (b - a)) / 2, (a + b) / 2 + (factor * (b - a)) / 2];
  Plotly.relayout(chart, { "xaxis.range": around(xaxis.range), "yaxis.range": around(yaxis.range) });
}

const views = {
  all: () => { state.view = "all"; draw(); },
  target: () => { state.view = "target"; draw(); },
  in: () => zoom(0.7),
  out: () => zoom(1 / 0.7),
  save: () => Plotly.downloadImage(chart, { format: "png", filename: "frontier", width: 1200, height: 700, scale: 2 }),
};
for (const button of $$("[data-view]")) button.addEventListener("click", () => views[button.dataset.view]());
for (const radio of $$("#frontier input[type=radio]")) {
  radio.addEventListener("change", () => { state[radio.name] = radio.value; draw(); });
}

const switches = $$("button[data-series]");
function showSeries(button, shown) {
  button.setAttribute("aria-pressed", String(shown));
  if (shown) hidden.delete(button.dataset.series); else hidden.add(button.dataset.series);
}
for (const button of switches) {
  button.addEventListener("click", () => { showSeries(button, hidden.has(button.dataset.series)); draw(); });
}
for (const button of $$("[data-show]")) {
  button.addEventListener("click", () => {
    for (const one of switches) showSeries(one, button.dataset.show === "all");
    draw();
    say(button.dataset.show === "all" ? "All series are shown" : "Only controls are shown");
  });
}

draw();
root.addEventListener("theme", draw);
chart.on("plotly_relayout", watch);
let drawn = chart.clientWidth;
new ResizeObserver(() => {
  if (chart.clientWidth === drawn) return;
  drawn = chart.clientWidth;
  draw();
}).observe(chart);
})();
