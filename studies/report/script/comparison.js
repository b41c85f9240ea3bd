// Comparisons: figures that came with the page, less the methods that are hidden.

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
  return [traces.map(filtered).filter(Boolean), {...layout, template: data("template")}];
}

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
