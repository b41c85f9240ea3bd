// Arrow keys step through a plot's points, as the mouse does by hovering: left and right along a
// line, up and down between lines.

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
