// What is chosen stands in the page's address, so that it can be passed on.

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
