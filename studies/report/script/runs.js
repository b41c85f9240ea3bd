// Single runs: figures made here from the trials.

const short = v => typeof v === "number" && !Number.isInteger(v) ? String(Number(v.toPrecision(4))) : String(v);
const decimals = v => v && Math.abs(v) < .01 ? String(Number(v.toPrecision(4))) : v.toFixed(4);
const parameter = name => data("trials").parameters.find(p => p.name === name);
// Plotly reads a little HTML in texts, so what others named is escaped.
const metric = () => escaped(data("trials").metric);
const escaped = text => String(text).replace(/[&<>]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;"})[c]);

/** A trial's value of the parameter at j, of which a choice is stored as its place; null if it has none. */
function valueOf({run, i}, j) {
  const value = run.params[j][i], {choices} = data("trials").parameters[j];
  return choices && value !== null ? choices[value] : value;
}

function describe(run, i) {
  const {parameters} = data("trials");
  const measured = run.value[i] === null ? "" : `${data("trials").metric} ${decimals(run.value[i])}`;
  const value = [run.status[i] === "ok" ? "" : run.status[i], measured].filter(Boolean).join(", ");
  const lines = parameters.map((p, j) => [p.name, valueOf({run, i}, j)])
    .filter(([, v]) => v !== null).map(([name, v]) => `${name} = ${short(v)}`);
  return [`trial ${run.number[i]} ${run.source[i]}: ${value}`, run.reason[i], ...lines]
    .filter(Boolean).map(escaped).join("<br>");
}

/** The trials, with the values of those that count, of the chosen run, or of all runs of a method ("m:..."), or of all ("*"). */
function chosen(value) {
  const {runs} = data("trials");
  const picked = value === "*" ? runs : value.startsWith("m:")
    ? runs.filter(run => run.method === value.slice(2)) : [runs[Number(value)]];
  return picked.flatMap(run => run.number.map((_, i) => ({run, i, value: run.status[i] === "ok" ? run.value[i] : null})));
}

const AXIS = {gridcolor: "#eee", zeroline: false, exponentformat: "power"};
const layout = (x, y, more = {}) => ({
  height: 460, margin: {l: 70, r: 20, t: 30, b: 50}, hovermode: "closest", legend: {orientation: "h", y: 1.02, yanchor: "bottom"},
  plot_bgcolor: "#fff", showlegend: true, xaxis: {title: {text: x}, ...AXIS}, yaxis: {title: {text: y}, ...AXIS}, ...more,
});
const points = (rows, more) => ({
  type: rows.length > SVG_POINTS ? "scattergl" : "scatter", mode: "markers", hoverinfo: "text",
  hovertext: rows.map(r => describe(r.run, r.i)), ...more,
});
/** Crosses of the trials whose value doesn't count: those that failed, and those that were pruned or are infeasible. */
const crosses = (rows, place, more) => ["failed", ...Object.keys(UNCOUNTED)].map(name => {
  const group = rows.filter(r => r.value === null && (UNCOUNTED[r.run.status[r.i]] ? r.run.status[r.i] : "failed") === name);
  const color = UNCOUNTED[name] ?? FAILED;
  return points(group, {name, ...place(group), marker: {color, symbol: "x-thin-open", ...more}});
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
    const place = (i, seconds) => x === "trials" ? i + 1 : seconds / unit.seconds;
    const at = r => place(r.i, run.seconds[r.i]);
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
        name: UNCOUNTED[status] ? status : `failed: ${status}`, x: group.map(at), y: group.map(() => end + edge),
        marker: {color: UNCOUNTED[status] ?? FAILED, symbol: {oom: "x-thin-open", timeout: "y-down-open", nan: "asterisk-open"}[status] ?? "cross-thin-open", size: 9, line: {width: 2}},
      }));
    }
    const found = run.incumbents.map(([i]) => rows[i]), since = run.incumbents.map(([, ...from]) => place(...from));
    const values = found.map(r => r.value);
    if (found.length) traces.push({
      name: "best so far", mode: "lines", hoverinfo: "skip", line: {shape: "hv", color: "#000", width: 2},
      x: [...since, at(rows.at(-1))], y: [...values, values.at(-1)],
    }, points(found, {
      name: "incumbent", x: since, y: values,
      marker: {symbol: "circle-open", size: 14, color: "#000", line: {width: 2}},
    }));
    const figure = layout(x === "trials" ? "trials that ended" : `${unit.title} (${unit.name})`, metric());
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
    ].filter(trace => trace.x.length), layout(data("trials").steps, "reported value")];
  },

  evolution({run: index}) {
    const rows = chosen(index), {parameters} = data("trials");
    const ok = rows.filter(r => r.value !== null);
    const shown = parameters.map((p, j) => ({...p, j})).filter(p => rows.some(r => valueOf(r, p.j) !== null));
    if (!shown.length) return empty("This run has no parameters: its method writes code.");
    const columns = Math.min(isNarrow() ? 2 : 3, shown.length), lines = Math.ceil(shown.length / columns);
    const figure = layout("", "", {
      // Room above the upper names, which plotly's buttons would cover.
      height: (printing ? 165 : 200) * lines + 90, margin: {l: 70, r: 20, t: 60, b: 50}, grid: {rows: lines, columns, pattern: "independent", ygap: 0.45, xgap: 0.16},
      annotations: [], coloraxis: coloraxis(), showlegend: false,
    });
    delete figure.xaxis; delete figure.yaxis;
    const traces = shown.flatMap((p, k) => {
      const n = k ? k + 1 : "", on = {xaxis: `x${n}`, yaxis: `y${n}`};
      figure[`yaxis${n}`] = {...AXIS, ...axis(p, rows.map(r => valueOf(r, p.j))), automargin: true};
      figure[`xaxis${n}`] = AXIS;
      figure.annotations.push({
        text: escaped(p.name), showarrow: false, font: {size: 12}, x: 0.5, y: 1.02, yanchor: "bottom", xref: `${on.xaxis} domain`, yref: `${on.yaxis} domain`,
      });
      const place = group => ({x: group.map(r => r.run.number[r.i]), y: group.map(r => valueOf(r, p.j)), ...on});
      return [points(ok, {...place(ok), marker: {...colored(ok), size: 5}}), ...crosses(rows, place, {size: 5})];
    });
    return [traces, figure];
  },

  pair({run, x, y}) {
    const rows = chosen(run), {parameters} = data("trials");
    const values = (group, name) => {
      const j = parameters.findIndex(p => p.name === name);
      return group.map(r => valueOf(r, j));
    };
    const ok = rows.filter(r => r.value !== null);
    const place = group => ({x: values(group, x), y: values(group, y)});
    const figure = layout(escaped(x), escaped(y), {height: 520, coloraxis: coloraxis()});
    Object.assign(figure.xaxis, axis(parameter(x), values(rows, x)));
    Object.assign(figure.yaxis, axis(parameter(y), values(rows, y)));
    return [[
      points(ok, {showlegend: false, ...place(ok), marker: colored(ok)}),
      ...crosses(rows, place, {size: 8, line: {width: 2}}),
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
        label: p.name, values, tickvals: p.choices.map((_, i) => i), ticktext: p.choices.map(String), range: [-.2, p.choices.length - .8],
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

/** At most six round numbers in the range: 1, 2, 5 times powers of ten, or the powers alone; its ends if there is one or none. */
function logTicks(values) {
  if (!values.length) return [];
  const low = Math.min(...values) * .999, high = Math.max(...values) * 1.001;
  const powers = Array.from({length: 40}, (_, i) => i - 20);
  for (const factors of [[1, 2, 3, 4, 5, 6, 8], [1, 2, 5], [1, 3], [1]]) {
    const ticks = powers.flatMap(k => factors.map(f => f * 10 ** k)).filter(t => t >= low && t <= high);
    if (ticks.length < 2) return [...new Set([Math.min(...values), Math.max(...values)])];
    if (ticks.length <= 6) return ticks;
  }
  return powers.filter(k => k % 3 === 0).map(k => 10 ** k).filter(t => t >= low && t <= high);
}
