// Tables that came with the page, sorted by a click on a heading.

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
