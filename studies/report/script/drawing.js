// Drawing: a plot when it comes into view, as it suits the screen, the dark or the paper.

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
  if (printing) figure = { // two a page, with all names in their legends
    ...figure, width: PAPER, height: figure.grid ? figure.height : 0.77 * figure.height, legend: {...figure.legend, tracegroupgap: 0},
  };
  if (isNarrow() && figure.margin) {
    // The legend is below, where it covers no points, and the figure as much higher.
    const names = traces.filter(t => figure.showlegend !== false && t.showlegend !== false && t.name).map(t => t.name);
    const lines = names.some(name => name.length > 15) ? names.length : Math.ceil(names.length / 2);
    const legend = {orientation: "h", yref: "container", y: 0, yanchor: "bottom"};
    // Without labels at its ticks plotly leaves room for the last line of an axis's title only.
    const room = value => value.showticklabels === false ? 40 : undefined;
    // The names of parts of a category, which plotly would write askew and cut off at the edge.
    const tickangle = traces.some(trace => Array.isArray(trace.x?.[0])) ? 90 : undefined;
    figure = axes((value, key) => ({
      ...value, automargin: true, ...(key[0] === "x" && {tickangle}),
      title: {...value.title, text: wrapped(value.title?.text), standoff: room(value)},
    }));
    figure = {...figure, legend, height: figure.height + 20 * lines, margin: {...figure.margin, l: 50, r: 8}};
    const named = figure.grid ? 25 : 0; // pixels of the names above the upper plots of a grid
    const flat = of => ({...of, colorbar: {
      orientation: "h", title: {...of.colorbar.title, side: "top"}, thickness: 10, y: 1.02 + named / (figure.height - 140), yanchor: "bottom",
    }});
    traces = traces.map(trace => trace.colorbar ? flat(trace) : trace);
    if (figure.coloraxis) figure = {...figure, coloraxis: flat(figure.coloraxis)};
    if (figure.coloraxis || traces.some(trace => trace.colorbar)) {
      figure.height += 60 + named;
      figure.margin.t = 90 + named;
    }
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
    // Of parallel coordinates it has no points.
    div.on("plotly_hover", event => event.points && speak(event.points[0]));
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
});

for (const div of figures)
  for (const control of div.parentElement.querySelectorAll(".controls select, .controls input"))
    control.addEventListener("change", () => { draw(div); remember(); });
