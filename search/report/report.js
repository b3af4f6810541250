"use strict";
// Figures: drawn in the page's colours, and again when the reader's scheme changes.
const figures = JSON.parse(document.getElementById("plots").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

function colours(layout) {
  const style = getComputedStyle(document.documentElement);
  const [ink, page, line] = ["--ink", "--page", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, zeroline: false };
  return {
    ...layout,
    font: { color: ink, size: 12, family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: page, bordercolor: line, font: { color: ink }, align: "left" },
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
    annotations: layout.annotations?.map((note) => ({ ...note, bgcolor: page, opacity: 0.85 })),
  };
}

function draw() {
  for (const [name, figure] of Object.entries(figures)) {
    Plotly.react(`plot-${name}`, figure.data, colours(figure.layout), { responsive: true, displayModeBar: false });
  }
}
dark.addEventListener("change", draw);
draw();

// Tables: a click on a heading sorts by it, a second click turns the order round. Empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = head.ariaSort !== "ascending";
    heads.forEach((other) => { other.ariaSort = "none"; });
    head.ariaSort = up ? "ascending" : "descending";
    const body = table.tBodies[0];
    const key = (row) => {
      const text = row.cells[column].dataset.key;
      return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
    };
    const empty = (row) => row.cells[column].textContent === "";
    body.append(...[...body.rows].sort((a, b) => {
      if (empty(a) !== empty(b)) return empty(a) ? 1 : -1;
      const [x, y] = [key(a), key(b)];
      const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      return up ? order : -order;
    }));
  }));
}
