"use strict";
// What a page does: draws plots when they come into view, hides methods, sorts tables, shows
// single runs. Everything it draws is in the page; texts of language models are set as text only.

const byId = id => document.getElementById(id);
const parsed = {};
/** The data of a script element, parsed when first asked for. */
const data = id => (parsed[id] ??= JSON.parse(byId(id).textContent));

const CONFIG = {responsive: true, displaylogo: false, toImageButtonOptions: {format: "svg"}};
const FAILED = "#B00000";
const UNCOUNTED = {pruned: "#7F7F7F", infeasible: "#E69F00"}; // stopped as hopeless, or against a constraint: no failures
const SOURCES = {
  llm: ["#D55E00", "diamond"], base: ["#0072B2", "circle"], startup: ["#7F7F7F", "square"],
  "llm-screened": ["#56B4E9", "diamond-open"],
  baseline: ["#000000", "cross"], enqueued: ["#000000", "cross"], "llm-duplicate": ["#CC79A7", "triangle-up"],
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

// Where a page is shown.

const PAPER = 700; // pixels across a printed page
const darkness = matchMedia("(prefers-color-scheme: dark)");
let printing = false;
const isDark = () => darkness.matches && !printing;
const isNarrow = () => innerWidth < 500 && !printing;
