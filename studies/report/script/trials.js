// All trials: a table that is made here, a page of rows at a time, sorted and filtered.

const PAGE = 50; // rows
const tableDiv = byId("table");
const table = {sort: "", down: false, first: 0, rows: []};

/** The columns of the trials' table: heading to what is shown, sorted and, if it is HTML, drawn. */
function tableColumns() {
  const {parameters, runs} = data("trials"), columns = {};
  if (runs.length > 1) Object.assign(columns, {method: r => r.run.method, seed: r => r.run.seed});
  columns.trial = r => r.run.number[r.i];
  columns[data("trials").metric] = r => r.run.value[r.i];
  columns.state = r => r.run.status[r.i];
  if (runs.some(run => run.reason.some(Boolean))) columns.reason = r => r.run.reason[r.i];
  columns.source = r => r.run.source[r.i];
  if (runs.some(run => run.seconds.at(-1))) columns["time (s)"] = r => Number((r.run.seconds[r.i] - (r.run.seconds[r.i - 1] ?? 0)).toFixed(1));
  const last = {};
  if (runs.some(run => run.artifacts)) last.files = r => r.run.artifacts?.[r.i] ?? [];
  const taken = Object.keys({...columns, ...last});
  parameters.forEach((p, j) => { columns[taken.includes(p.name) ? `param:${p.name}` : p.name] = r => valueOf(r, j); });
  return {...columns, ...last};
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

function tableCell(value, name) {
  if (name === "reason" && typeof value === "string") {
    const cell = made("td", "", {className: "text reason", title: value});
    cell.append(made("div", value)); // of lines that are counted
    return cell;
  }
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
    for (const part of name.split(/(?<=_)/)) button.append(part, made("wbr", ""));
    if (table.rows.some(row => columns[name](row)?.length !== undefined)) cell.className = "text";
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
    for (const [name, get] of Object.entries(columns)) line.append(tableCell(get(row), name));
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
