/* The score over the steps as a small line chart. */

cnnvis.curve = (history, steps) => {
  const known = history.map((value, index) => [index, value]).filter(([, value]) => typeof value === "number");
  if (known.length < 2) return null;
  const values = known.map(([, value]) => value);
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const width = 480, height = 180, left = 56, right = 12, top = 14, bottom = 30;
  const x = (index) => left + index / Math.max(history.length - 1, 1) * (width - left - right);
  const y = (value) => top + (high - value) / span * (height - top - bottom);
  const make = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const chart = make("svg", {
    class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Score over ${steps} steps: from ${cnnvis.format(values[0])} to ${cnnvis.format(values.at(-1))}, `
      + `lowest ${cnnvis.format(low)}, highest ${cnnvis.format(high)}`,
  });
  const axis = (x1, y1, x2, y2) => chart.append(make("line", { class: "axis", x1, y1, x2, y2 }));
  axis(left, top, left, height - bottom);
  axis(left, height - bottom, width - right, height - bottom);
  if (low < 0 && high > 0) axis(left, y(0), width - right, y(0));
  const write = (text, x, y, anchor) => chart.append(make("text", { x, y, "text-anchor": anchor }, text));
  write(cnnvis.format(high), left - 6, top + 4, "end");
  write(cnnvis.format(low), left - 6, height - bottom + 4, "end");
  write("1", left, height - 12, "middle");
  write(`step ${steps}`, width - right, height - 12, "end");
  const points = known.map(([index, value]) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  chart.append(make("polyline", { points, fill: "none", stroke: "currentColor", "stroke-width": 2 }));
  return chart;
};
