"use strict";
// What a page does: draws plots when they come into view, hides methods, sorts tables, shows
// single runs. Everything it draws is in the page; texts of language models are set as text only.

const byId = id => document.getElementById(id);
const parsed = {};
/** The data of a script element, parsed when first asked for. */
const data = id => (parsed[id] ??= JSON.parse(byId(id).textContent));

const CONFIG = {responsive: true, displaylogo: false, toImageButtonOptions: {format: "svg"}};
const FAILED = "#B00000";
const SOURCES = {
  llm: ["#D55E00", "diamond"], base: ["#0072B2", "circle"], startup: ["#7F7F7F", "square"],
  "llm-screened": ["#56B4E9", "diamond-open"],
  enqueued: ["#000000", "cross"], "llm-duplicate": ["#CC79A7", "triangle-up"],
  "llm-error": ["#E69F00", "triangle-down"], "": ["#0072B2", "circle"],
};
const MOST_LINES = 1000; // of parallel coordinates: more take seconds without a GPU, and are one blot
const SVG_POINTS = 3000; // above it points are drawn by WebGL, of which a page has few contexts

/** Plotly is packed, and takes most of a second to start: the page opens before it does. */
async function startPlotly() {
  const packed = Uint8Array.from(atob(byId("plotly").textContent), c => c.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
}
let starting;
const plotly = () => (starting ??= startPlotly());

// --- where a page is shown ---------------------------------------------------------------------

const PAPER = 700; // pixels across a printed page
const darkness = matchMedia("(prefers-color-scheme: dark)");
let printing = false;
const isDark = () => darkness.matches && !printing;
const isNarrow = () => innerWidth < 500 && !printing;

// --- comparisons: figures that came with the page, less the methods that are hidden ----------

const boxes = [...document.querySelectorAll("#methods input")];
const isShown = method => boxes.every(box => box.value !== method || box.checked);

/** A trace without the points of hidden methods; null if none are left. */
function filtered(trace) {
  const methods = trace.meta?.methods ?? [];
  if (methods.length < 2) return methods.every(isShown) ? trace : null;
  const keep = values => values?.filter((_, i) => isShown(methods[i]));
  const copy = {...trace, y: keep(trace.y), hovertext: keep(trace.hovertext)};
  copy.x = Array.isArray(trace.x[0]) ? trace.x.map(keep) : keep(trace.x);
  for (const name of ["error_x", "error_y"]) if (trace[name])
    copy[name] = {...trace[name], array: keep(trace[name].array), arrayminus: keep(trace[name].arrayminus)};
  return copy.y.length ? copy : null;
}

function comparison(div) {
  const menu = div.parentElement.querySelector("select[data-chooses]");
  const {data: traces, layout} = data("figures")[menu?.value ?? div.dataset.figure];
  return [traces.map(filtered).filter(Boolean), layout];
}

// --- single runs: figures made here from the trials -------------------------------------------

const short = v => typeof v === "number" && !Number.isInteger(v) ? String(Number(v.toPrecision(4))) : String(v);
const parameter = name => data("trials").parameters.find(p => p.name === name);
// Plotly reads a little HTML in texts, so what others named is escaped.
const metric = () => escaped(data("trials").metric);
const escaped = text => String(text).replace(/[&<>]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;"})[c]);

function describe(run, i) {
  const {parameters} = data("trials");
  const value = run.value[i] === null ? run.status[i] : `${data("trials").metric} ${run.value[i].toFixed(4)}`;
  const lines = parameters.map((p, j) => `${p.name} = ${short(run.params[j][i])}`);
  return [`trial ${run.number[i]} ${run.source[i]}: ${value}`, run.reason[i], ...lines]
    .filter(Boolean).map(escaped).join("<br>");
}

/** The trials of the chosen run, or of all runs of a method ("m:..."), or of all ("*"). */
function chosen(value) {
  const {runs} = data("trials");
  const picked = value === "*" ? runs : value.startsWith("m:")
    ? runs.filter(run => run.method === value.slice(2)) : [runs[Number(value)]];
  return picked.flatMap(run => run.number.map((_, i) => ({run, i, value: run.value[i]})));
}

const AXIS = {gridcolor: "#eee", zeroline: false, exponentformat: "power"};
const layout = (x, y, more = {}) => ({
  height: 460, margin: {l: 70, r: 20, t: 30, b: 50}, hovermode: "closest", legend: {orientation: "h", y: 1.12},
  plot_bgcolor: "#fff", showlegend: true, xaxis: {title: {text: x}, ...AXIS}, yaxis: {title: {text: y}, ...AXIS}, ...more,
});
const points = (rows, more) => ({
  type: rows.length > SVG_POINTS ? "scattergl" : "scatter", mode: "markers", hoverinfo: "text",
  hovertext: rows.map(r => describe(r.run, r.i)), ...more,
});
// The rim shows the ends of the colours, one of which is nearly that of the page.
const colored = rows => ({color: rows.map(r => r.value), coloraxis: "coloraxis", size: 7, line: {width: 1, color: "#8a8a8a"}});
const coloraxis = () => ({...colors(), colorbar: {title: {text: metric()}}});
/** 1 if lower values are better, -1 if higher ones are. */
const sign = () => data("trials").higher_is_better ? -1 : 1;
const ranked = rows => [...rows].sort((a, b) => sign() * (a.value - b.value));
const best = rows => rows.length ? ranked(rows)[0].value : 0;

/** A robust worse end for axes and colours: a few values far off would flatten all others. */
function worst(rows) {
  if (!rows.length) return 1;
  const values = ranked(rows).map(r => sign() * r.value);
  const upper = values[Math.floor(0.9 * (values.length - 1))];
  return sign() * (upper > values[0] ? Math.min(values.at(-1), upper + 1.5 * (upper - values[0])) : values.at(-1));
}

/** The best values stand out most; the same colour is the same value in all plots and runs. */
let range;
function colors() {
  if (!range) {
    const all = chosen("*").filter(r => r.value !== null);
    range = [best(all), worst(all)].sort((a, b) => a - b);
  }
  return {colorscale: "Cividis", cmin: range[0], cmax: range[1], reversescale: sign() < 0 !== isDark()};
}

const empty = text => [[], {
  height: 120, xaxis: {visible: false}, yaxis: {visible: false},
  annotations: [{text, showarrow: false, x: 0.5, y: 0.5, xref: "paper", yref: "paper"}],
}];

const views = {
  trace({run: index, x}) {
    const rows = chosen(index), run = rows[0].run, unit = data("trials").unit;
    const at = r => x === "trials" ? r.i + 1 : run.seconds[r.i] / unit.seconds;
    const ok = rows.filter(r => r.value !== null), failed = rows.filter(r => r.value === null);
    const top = best(ok), end = worst(ok), edge = 0.06 * (end - top || sign()), traces = [];
    for (const source of new Set(ok.map(r => run.source[r.i]))) {
      const group = ok.filter(r => run.source[r.i] === source);
      const [color, symbol] = SOURCES[source] ?? SOURCES[""];
      traces.push(points(group, {
        name: source || "ok", x: group.map(at), y: group.map(r => r.value),
        marker: {color, symbol, size: 7, opacity: isDark() ? 1 : .75, line: {width: symbol.endsWith("-open") ? 2 : 0}},
      }));
    }
    for (const status of new Set(failed.map(r => run.status[r.i]))) {
      const group = failed.filter(r => run.status[r.i] === status);
      traces.push(points(group, {
        name: status === "pruned" ? status : `failed: ${status}`, x: group.map(at), y: group.map(() => end + edge),
        marker: {color: FAILED, symbol: {oom: "x-thin-open", timeout: "y-down-open", nan: "asterisk-open"}[status] ?? "cross-thin-open", size: 9, line: {width: 2}},
      }));
    }
    let last = Infinity;
    const found = ok.filter(r => sign() * r.value < last && ((last = sign() * r.value), true));
    if (found.length) traces.push({
      name: "best so far", mode: "lines", hoverinfo: "skip", line: {shape: "hv", color: "#000", width: 2},
      x: [...found.map(at), at(rows.at(-1))], y: [...found.map(r => r.value), top],
    }, points(found, {
      name: "incumbent", x: found.map(at), y: found.map(r => r.value),
      marker: {symbol: "circle-open", size: 14, color: "#000", line: {width: 2}},
    }));
    const figure = layout(x === "trials" ? "trials that ended" : `training time (${unit.name})`, metric());
    if (ok.length) figure.yaxis.range = [top - edge, end + 1.5 * edge].sort((a, b) => a - b);
    return [traces, figure];
  },

  curves({run: index}) {
    const rows = chosen(index).filter(r => r.run.curves?.[r.i][0].length);
    if (!rows.length) return empty("No trial of this run reported values while it trained.");
    const done = ranked(rows.filter(r => r.value !== null)), stopped = rows.filter(r => r.value === null);
    const group = (name, rows, color, width) => {
      const steps = rows.flatMap(r => [...r.run.curves[r.i][0], null]);
      return {
        name, type: "scatter", mode: "lines", x: steps, y: rows.flatMap(r => [...r.run.curves[r.i][1], null]),
        line: {color, width}, hoverinfo: "text",
        hovertext: rows.flatMap(r => [...r.run.curves[r.i][1].map(v => `trial ${r.run.number[r.i]}: ${short(v)}`), ""]),
      };
    };
    return [[
      group("stopped or failed", stopped.slice(-200), FAILED, .7),
      group("others", done.slice(5, 200), "#8a8a8a", .8),
      group("best five", done.slice(0, 5), "#0072B2", 2),
    ].filter(trace => trace.x.length), layout("step", "reported value")];
  },

  evolution({run: index}) {
    const rows = chosen(index), {parameters} = data("trials");
    const ok = rows.filter(r => r.value !== null), failed = rows.filter(r => r.value === null);
    const shown = parameters.map((p, j) => ({...p, j})).filter(p => rows.some(r => r.run.params[p.j][r.i] !== null));
    if (!shown.length) return empty("This run has no parameters: its method writes code.");
    const columns = Math.min(isNarrow() ? 2 : 3, shown.length), lines = Math.ceil(shown.length / columns);
    const figure = layout("", "", {
      height: (printing ? 165 : 200) * lines + 60, grid: {rows: lines, columns, pattern: "independent", ygap: 0.45, xgap: 0.16},
      annotations: [], coloraxis: coloraxis(), showlegend: false,
    });
    delete figure.xaxis; delete figure.yaxis;
    const traces = shown.flatMap((p, k) => {
      const n = k ? k + 1 : "", on = {xaxis: `x${n}`, yaxis: `y${n}`};
      figure[`yaxis${n}`] = {...AXIS, ...axis(p, rows.map(r => r.run.params[p.j][r.i])), automargin: true};
      figure[`xaxis${n}`] = AXIS;
      figure.annotations.push({
        text: escaped(p.name), showarrow: false, font: {size: 12}, x: 0.5, y: 1.02, yanchor: "bottom", xref: `${on.xaxis} domain`, yref: `${on.yaxis} domain`,
      });
      const place = group => ({x: group.map(r => r.run.number[r.i]), y: group.map(r => r.run.params[p.j][r.i]), ...on});
      return [
        points(ok, {...place(ok), marker: {...colored(ok), size: 5}}),
        points(failed, {...place(failed), marker: {color: FAILED, symbol: "x-thin-open", size: 5}}),
      ];
    });
    return [traces, figure];
  },

  pair({run, x, y}) {
    const rows = chosen(run), {parameters} = data("trials");
    const values = (group, name) => {
      const j = parameters.findIndex(p => p.name === name);
      return group.map(r => r.run.params[j][r.i]);
    };
    const ok = rows.filter(r => r.value !== null), failed = rows.filter(r => r.value === null);
    const figure = layout(escaped(x), escaped(y), {height: 520, coloraxis: coloraxis()});
    Object.assign(figure.xaxis, axis(parameter(x), values(rows, x)));
    Object.assign(figure.yaxis, axis(parameter(y), values(rows, y)));
    return [[
      points(ok, {showlegend: false, x: values(ok, x), y: values(ok, y), marker: colored(ok)}),
      points(failed, {name: "failed", x: values(failed, x), y: values(failed, y), marker: {color: FAILED, symbol: "x-thin-open", size: 8, line: {width: 2}}}),
    ], figure];
  },

  parallel({run, share}) {
    const {parameters} = data("trials");
    const all = ranked(chosen(run).filter(r => r.value !== null && r.run.params.some(p => p[r.i] !== null)));
    const asked = Math.max(1, Math.ceil(all.length * Number(share || 100) / 100));
    const rows = all.slice(0, Math.min(asked, MOST_LINES));
    if (!all.length) return empty("No trial with parameters succeeded.");
    const dimensions = parameters.flatMap((p, j) => {
      const values = rows.map(r => r.run.params[j][r.i]);
      if (values.some(v => v === null)) return [];
      if (p.choices) return [{
        label: p.name, values: values.map(v => p.choices.indexOf(v)), tickvals: p.choices.map((_, i) => i), ticktext: p.choices.map(String), range: [-.2, p.choices.length - .8],
      }];
      if (!p.log) return [{label: p.name, values}];
      const logs = values.map(Math.log10), [low, high] = [Math.min(...logs), Math.max(...logs)];
      const ticks = [0, 1, 2, 3, 4].map(i => low + (high - low) * i / 4);
      return [{label: p.name, values: logs, tickvals: ticks, ticktext: ticks.map(t => Number((10 ** t).toPrecision(2)).toString())}];
    });
    dimensions.push({label: metric(), values: rows.map(r => r.value)});
    return [[{
      type: "parcoords", dimensions, labelangle: -25, labelside: "top",
      line: {color: rows.map(r => r.value), ...colors(), showscale: true},
    }], {
      height: 500, margin: {t: 120, l: 80, r: 40, b: 50},
      ...(isNarrow() ? {width: 60 * dimensions.length + 200} : {}), // it scrolls
      annotations: rows.length < asked ? [{
        text: `the best ${rows.length} of ${asked} trials`, showarrow: false, x: 0, y: -0.12, xref: "paper", yref: "paper",
      }] : [],
    }];
  },
};
function axis(p, values) {
  if (p.choices) return {type: "category", categoryorder: "array", categoryarray: p.choices};
  if (!p.log) return {type: "linear"};
  const ticks = logTicks(values.filter(v => v > 0));
  return {type: "log", tickvals: ticks, ticktext: ticks.map(short)};
}

/** At most six round numbers in the range: 1, 2, 5 times powers of ten, or the powers alone. */
function logTicks(values) {
  if (!values.length) return [];
  const low = Math.min(...values) * .999, high = Math.max(...values) * 1.001;
  const powers = Array.from({length: 40}, (_, i) => i - 20);
  for (const factors of [[1, 2, 3, 4, 5, 6, 8], [1, 2, 5], [1, 3], [1]]) {
    const ticks = powers.flatMap(k => factors.map(f => f * 10 ** k)).filter(t => t >= low && t <= high);
    if (ticks.length <= 6) return ticks;
  }
  return powers.filter(k => k % 3 === 0).map(k => 10 ** k).filter(t => t >= low && t <= high);
}

// --- drawing -----------------------------------------------------------------------------------

function settings(div) {
  const controls = div.parentElement.querySelectorAll("[data-setting]");
  return Object.fromEntries([...controls].map(c => [c.dataset.setting, c.value]));
}

/** A title in lines for which a small screen has room. */
const wrapped = text => text?.replace(/(.{20,}?) /g, "$1<br>");

/** In a dark page what is black in a figure is light, and on a small screen it is lower. */
function themed(traces, figure) {
  const axes = change => Object.fromEntries(Object.entries(figure).map(([key, value]) =>
    [key, /^[xy]axis/.test(key) ? change(value, key) : value]));
  if (printing) figure = {...figure, width: PAPER};
  if (isNarrow() && figure.margin) {
    const legend = {orientation: "h", y: -0.25, yanchor: "top"}; // above, its lines would cover points
    // Without labels at its ticks plotly leaves room for the last line of an axis's title only.
    const room = value => value.showticklabels === false ? 40 : undefined;
    figure = axes((value, key) => key.startsWith("x")
      ? {...value, automargin: true, title: {...value.title, text: wrapped(value.title?.text), standoff: room(value)}} : value);
    figure = {...figure, legend, margin: {...figure.margin, l: 50, r: 8}};
    const flat = of => ({...of, colorbar: {
      orientation: "h", title: {...of.colorbar.title, side: "top"}, thickness: 10, y: 1.02, yanchor: "bottom",
    }});
    traces = traces.map(trace => trace.colorbar ? flat(trace) : trace);
    if (figure.coloraxis) figure = {...figure, coloraxis: flat(figure.coloraxis)};
    if (figure.coloraxis || traces.some(trace => trace.colorbar)) figure.margin.t = 90;
  }
  if (!isDark()) return [traces, figure];
  const dark = value => JSON.parse(JSON.stringify(value).replace(/"#000(000)?"/g, '"#e8e8e8"').replaceAll(FAILED, "#FF6B6B"));
  const paper = {paper_bgcolor: "#181818", plot_bgcolor: "#181818", font: {color: "#e8e8e8"}};
  return [dark(traces), {...axes(value => ({...value, gridcolor: "#333", color: "#e8e8e8"})), ...paper}];
}

function draw(div) {
  if (!window.Plotly) return plotly().then(() => draw(div));
  const [traces, figure] = div.dataset.view ? views[div.dataset.view](settings(div)) : comparison(div);
  div.dataset.drawn = "";
  window.Plotly.react(div, ...themed(traces, figure), CONFIG);
  if (!div.dataset.bound) {
    div.dataset.bound = "";
    div.on("plotly_hover", event => speak(event.points[0]));
  }
}

/** Says to screen readers what the label of a point shows. */
function speak({hovertext, text, x, y}) {
  const words = hovertext ?? [text, x, y].filter(v => v !== undefined).join(", ");
  byId("spoken").textContent = String(words).replaceAll("<br>", ", ");
}
const redraw = div => { if ("drawn" in div.dataset) draw(div); };

const figures = [...document.querySelectorAll(".figure")];
const seen = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries) if (isIntersecting) {
    seen.unobserve(target);
    draw(target);
  }
}, {rootMargin: "200px"});
for (const div of figures) seen.observe(div);
const redrawAll = () => { for (const div of figures) redraw(div); };
darkness.addEventListener("change", redrawAll);
// A page is printed without waiting for a script, at once after it was loaded if a program prints
// it: an open document in a frame counts as something that is still being loaded.
const frame = document.createElement("iframe");
frame.hidden = true;
document.body.append(frame);
frame.contentDocument.open();
setTimeout(() => plotly().finally(() => { frame.contentDocument.close(); frame.remove(); }), 300);
for (const event of ["beforeprint", "afterprint"]) addEventListener(event, () => {
  printing = event === "beforeprint";
  for (const div of figures) if (printing || "drawn" in div.dataset) draw(div);
  if (tableDiv) showTable(); // its headings break on paper
});

for (const div of figures)
  for (const control of div.parentElement.querySelectorAll(".controls select, .controls input"))
    control.addEventListener("change", () => { draw(div); remember(); });

/** What arrow keys step through: the points of each trace, and the cells of each row of a heatmap. */
const lines = div => (div.data ?? []).flatMap((trace, curve) => {
  if (trace.hoverinfo === "skip" || trace.visible === false) return [];
  const {type = "scatter", x, y, z, text, hovertext} = trace;
  if (type === "heatmap") return z.map((row, i) => ({
    curve,
    count: hovertext ? hovertext[i].filter(Boolean).length : row.length, // a range may have fewer parts
    place: j => ({xval: j, yval: i}), // plotly takes no pointNumber of a heatmap; it counts from 0
    said: j => ({hovertext: hovertext?.[i][j], text: y[i], x: x?.[j], y: row[j] ?? "-"}),
  })).filter(line => line.count);
  if (!["scatter", "scattergl", "bar"].includes(type) || !y?.length) return [];
  return [{
    curve,
    count: y.length,
    place: j => ({pointNumber: j}),
    said: j => ({
      hovertext: hovertext?.[j],
      text: [trace.name, text?.[j]].filter(Boolean).join(" "),
      x: Array.isArray(x[0]) ? x.map(level => level[j]).join(" ") : x[j],
      y: y[j],
    }),
  }];
});

// Arrow keys step through a plot's points, as the mouse does by hovering: left and right along a
// line, up and down between lines.
for (const div of figures) div.addEventListener("keydown", event => {
  const step = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]}[event.key];
  const all = lines(div);
  if (!step || !all.length) return;
  event.preventDefault();
  const at = div.at ?? {line: 0, point: -1};
  const line = (at.line + step[0] + all.length) % all.length, {curve, count, place, said} = all[line];
  const point = Math.max(0, Math.min(count - 1, at.point + step[1])), {xaxis = "x", yaxis = "y"} = div.data[curve];
  div.at = {line, point};
  window.Plotly.Fx.hover(div, [{curveNumber: curve, ...place(point)}], xaxis + yaxis);
  speak(said(point)); // of a hover that it was told to do plotly sends no event
});

// --- methods that are shown --------------------------------------------------------------------

function applyMethods() {
  for (const row of document.querySelectorAll("tr[data-method]")) row.hidden = !isShown(row.dataset.method);
  for (const div of figures) if (!div.dataset.view) redraw(div);
  remember();
}
for (const box of boxes) box.addEventListener("change", applyMethods);
for (const button of document.querySelectorAll("#methods button"))
  button.addEventListener("click", () => {
    for (const box of boxes) box.checked = ["all", box.dataset.kind].includes(button.value);
    applyMethods();
  });

// --- tables ------------------------------------------------------------------------------------

for (const button of document.querySelectorAll("th button"))
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const key = row => {
      const text = row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
      return text === "" || isNaN(text) ? text : Number(text);
    };
    [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      if ((x === "") !== (y === "")) return x === "" ? 1 : -1; // what there is no number of: last
      return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
    }).forEach(row => body.append(row));
  });

// --- all trials --------------------------------------------------------------------------------

const PAGE = 50; // rows
const tableDiv = byId("table");
const table = {sort: "", down: false, first: 0, rows: []};

/** The columns of the trials' table: heading to what is shown, sorted and, if it is HTML, drawn. */
function tableColumns() {
  const {parameters, runs} = data("trials"), columns = {};
  if (runs.length > 1) Object.assign(columns, {method: r => r.run.method, seed: r => r.run.seed});
  columns.trial = r => r.run.number[r.i];
  columns[data("trials").metric] = r => r.value;
  columns.state = r => r.run.status[r.i];
  columns.source = r => r.run.source[r.i];
  columns["time (s)"] = r => Number((r.run.seconds[r.i] - (r.run.seconds[r.i - 1] ?? 0)).toFixed(1));
  parameters.forEach((p, j) => { columns[p.name] = r => r.run.params[j][r.i]; });
  if (runs.some(run => run.reason.some(Boolean))) columns.reason = r => r.run.reason[r.i];
  if (runs.some(run => run.artifacts)) columns.files = r => r.run.artifacts?.[r.i] ?? [];
  return columns;
}

function tableRows() {
  const {run, state, source} = settings(tableDiv), get = tableColumns()[table.sort];
  table.rows = chosen(run).filter(r =>
    (!state || r.run.status[r.i] === state) && (!source || r.run.source[r.i] === source));
  if (get) table.rows.sort((a, b) => {
    const x = get(a), y = get(b);
    if ((x ?? "") === "" || (y ?? "") === "") return ((x ?? "") === "") - ((y ?? "") === "");
    return (table.down ? -1 : 1) * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
  });
}

const made = (tag, text, more = {}) => Object.assign(document.createElement(tag), {textContent: text}, more);

function tableCell(value) {
  if (!Array.isArray(value))
    return made("td", value === null ? "" : typeof value === "number" ? value : String(value), typeof value === "string" ? {className: "text", title: value} : {});
  const cell = made("td", "", {className: "text"});
  for (const [name, id] of value)
    cell.append(made("a", name, {href: `${data("trials").artifacts}/${encodeURIComponent(id)}`}), " ");
  return cell;
}

function showTable() {
  const columns = tableColumns(), head = made("tr", "");
  for (const name of Object.keys(columns)) {
    const button = made("button", "", {type: "button"}), cell = made("th", "", {scope: "col"});
    for (const part of name.split(/(?<=_)/)) button.append(part, ...(printing ? [made("wbr", "")] : []));
    if (table.rows.some(row => typeof columns[name](row) === "string")) cell.className = "text";
    if (name === table.sort) cell.setAttribute("aria-sort", table.down ? "descending" : "ascending");
    button.addEventListener("click", () => {
      Object.assign(table, {down: table.sort === name && !table.down, sort: name, first: 0});
      tableRows(); showTable(); remember();
      [...tableDiv.querySelectorAll("th button")].find(b => b.textContent === name).focus();
    });
    cell.append(button);
    head.append(cell);
  }
  const body = made("tbody", "");
  const shown = table.rows.slice(table.first, table.first + PAGE);
  for (const row of shown) {
    const line = made("tr", "");
    for (const get of Object.values(columns)) line.append(tableCell(get(row)));
    body.append(line);
  }
  const whole = made("table", ""), top = made("thead", "");
  top.append(head);
  whole.append(top, body);
  tableDiv.replaceChildren(whole);
  const last = table.first + shown.length;
  byId("table-range").textContent = last ? `${table.first + 1} to ${last} of ${table.rows.length}` : "none";
  for (const button of tableDiv.parentElement.querySelectorAll(".controls button"))
    button.disabled = button.value === "-1" ? !table.first : last >= table.rows.length;
}

if (tableDiv) {
  const section = tableDiv.parentElement;
  for (const [name, column] of [["state", "status"], ["source", "source"]]) {
    const values = new Set(data("trials").runs.flatMap(run => run[column]));
    for (const value of [...values].filter(Boolean).sort())
      section.querySelector(`[data-setting=${name}]`).append(new Option(value, value));
  }
  section.addEventListener("change", () => { table.first = 0; tableRows(); showTable(); remember(); });
  for (const button of section.querySelectorAll(".controls button"))
    button.addEventListener("click", () => { table.first += PAGE * Number(button.value); showTable(); });
}

// --- what is chosen stands in the page's address, so that it can be passed on --------------------

const controls = [...document.querySelectorAll("[data-setting], [data-chooses]")];
const initial = new Map(controls.map(control => [control, control.value]));
const keyOf = control => `${control.closest("section").id.slice(2)}.${control.dataset.setting ?? "shows"}`;

function remember() {
  const state = new URLSearchParams();
  for (const control of controls) if (control.value !== initial.get(control)) state.set(keyOf(control), control.value);
  for (const box of boxes) if (!box.checked) state.append("hide", box.value);
  if (table.sort) state.set("sort", (table.down ? "-" : "") + table.sort);
  history.replaceState(null, "", `${location.pathname}${state.size ? `?${state}` : ""}${location.hash}`);
}

const given = new URLSearchParams(location.search);
for (const control of controls) {
  control.value = given.get(keyOf(control)) ?? initial.get(control);
  if (control.tagName === "SELECT" && control.selectedIndex < 0) control.value = initial.get(control);
}
for (const box of boxes) box.checked = !given.getAll("hide").includes(box.value);
const sort = given.get("sort") ?? "";
Object.assign(table, {down: sort.startsWith("-"), sort: sort.replace(/^-/, "")});
if (given.has("hide")) for (const row of document.querySelectorAll("tr[data-method]")) row.hidden = !isShown(row.dataset.method);
if (tableDiv) { tableRows(); showTable(); }

// --- prompts and replies -----------------------------------------------------------------------

const runMenu = byId("transcript-run"), trialMenu = byId("transcript-trial");
if (runMenu) {
  const showTranscript = () => {
    byId("transcript").textContent = data("transcripts")[Number(trialMenu.value)].text;
  };
  const listTrials = () => {
    trialMenu.replaceChildren(...data("transcripts").flatMap(({run, trial, about}, i) =>
      String(run) === runMenu.value ? [new Option(`trial ${trial}: ${about}`, i)] : []));
    showTranscript();
  };
  runMenu.addEventListener("change", listTrials);
  trialMenu.addEventListener("change", showTranscript);
  listTrials();
}
