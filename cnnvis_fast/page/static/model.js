"use strict";
/* The page's data: layers and units, which units are shown and in what order. */

const cnnvis = { layers: [], byName: new Map(), perSide: 8, photo: null, job: {}, waiting: new Map() };

/* A unit is a layer and the index of its row in the layer's columns. */
cnnvis.value = (layer, row, column) => {
  const values = layer.columns[column];
  return values === undefined ? null : values[row];
};
cnnvis.number = (layer, row) => layer.columns.filter[row];

/* For example #features.28/17. The layer's name is encoded, so that a slash in it does not end it. */
cnnvis.address = (layer, number) =>
  "#" + encodeURIComponent(layer.name) + (number === undefined ? "" : "/" + number);

cnnvis.parseAddress = (hash) => {
  const text = hash.replace(/^#/, "");
  const cut = text.lastIndexOf("/");
  const decode = (part) => {
    try { return decodeURIComponent(part); } catch { return part; }
  };
  if (text === "") return { kind: "all" };
  const name = decode(cut < 0 ? text : text.slice(0, cut));
  const layer = cnnvis.byName.get(name);
  if (!layer) return { kind: "unknown", text: decode(text) };
  if (cut < 0) return { kind: "layer", layer };
  const row = layer.rowOf.get(Number(text.slice(cut + 1)));
  return row === undefined ? { kind: "unknown", text: decode(text) } : { kind: "unit", layer, row };
};

cnnvis.columnNames = () => {
  const numeric = new Set();
  for (const layer of cnnvis.layers)
    for (const [name, values] of Object.entries(layer.columns))
      if (values.some((value) => typeof value === "number")) numeric.add(name);
  return [...numeric];
};

cnnvis.title = (column) =>
  ({ filter: "number", score_start: "score at start" })[column] || column.replaceAll("_", " ");

cnnvis.format = (value) => {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
};

/* Every word of a search must match: a number the unit, other words part of "layer/number", an alias or a status. */
cnnvis.matcher = (query) => {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  return (layer, row) => words.every((word) => {
    const number = cnnvis.number(layer, row);
    if (/^\d+$/.test(word)) return Number(word) === number;
    return `${layer.name}/${number}`.toLowerCase().includes(word)
      || layer.alias.toLowerCase() === word
      || String(cnnvis.value(layer, row, "status")) === word;
  });
};

/* Returns every layer's matching rows, sorted; layers keep the order of the network. */
cnnvis.select = ({ only, query, status, sort, falling }) => {
  const fits = cnnvis.matcher(query);
  const chosen = [];
  for (const layer of cnnvis.layers) {
    if (only && layer !== only) continue;
    let rows = [];
    for (let row = 0; row < layer.size; row++)
      if ((!status || cnnvis.value(layer, row, "status") === status) && fits(layer, row)) rows.push(row);
    const keys = layer.columns[sort] || [];
    const known = rows.filter((row) => typeof keys[row] === "number");
    const rest = rows.filter((row) => typeof keys[row] !== "number");
    known.sort((a, b) => (falling ? keys[b] - keys[a] : keys[a] - keys[b]) || a - b);
    rows = known.concat(rest);  // rows without a number come last in either order
    if (rows.length) chosen.push({ layer, rows });
  }
  return chosen;
};

/* The atlas's units.js calls this. */
cnnvis.atlas = ({ layers, perSide, photo }) => {
  cnnvis.job = JSON.parse(document.getElementById("job").textContent);
  cnnvis.perSide = perSide;
  cnnvis.photo = photo;
  cnnvis.layers = layers;
  for (const layer of layers) {
    layer.size = layer.columns.filter.length;
    layer.rowOf = new Map(layer.columns.filter.map((number, row) => [number, row]));
    cnnvis.byName.set(layer.name, layer);
  }
  cnnvis.start();
};

/* A layer's units.js calls this. */
cnnvis.details = (details) => {
  const layer = cnnvis.byName.get(details.layer);
  layer.details = details;
  const waiting = cnnvis.waiting.get(layer);
  if (waiting) waiting(details);
};

/* Loads a layer's curves, look-alikes and patches when its first unit is shown. */
cnnvis.loadDetails = (layer) => {
  layer.promise ||= new Promise((resolve, reject) => {
    cnnvis.waiting.set(layer, resolve);
    const script = document.createElement("script");
    script.src = `${encodeURIComponent(layer.folder)}/units.js`;
    script.onerror = () => { layer.promise = null; reject(new Error(`${layer.folder}/units.js cannot be loaded`)); };
    document.head.append(script);
  });
  return layer.promise;
};

/* Whether a key press is for the page: without modifiers, and not typed into a field. */
cnnvis.isShortcut = (event) =>
  !(event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName));

/* Makes an element with attributes and children; strings are never parsed as HTML. */
cnnvis.element = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value);
  node.append(...children);
  return node;
};

/* Makes a cell of a layer's sheets of thumbnails ("thumbnails", jpg) or maps ("maps", png). */
cnnvis.thumbnail = (layer, row, stem = "thumbnails", suffix = "jpg") => {
  const side = cnnvis.perSide, place = row % (side * side);
  const sheet = String(Math.floor(row / (side * side))).padStart(2, "0");
  const node = cnnvis.element("span", { class: "thumb", "aria-hidden": "true" });
  if (stem === "thumbnails" && cnnvis.value(layer, row, "status") === "damaged") {
    node.classList.add("damaged");
    return node;
  }
  node.style.backgroundImage = `url("${encodeURIComponent(layer.folder)}/${stem}-${sheet}.${suffix}")`;
  node.style.backgroundSize = `${side * 100}% ${side * 100}%`;
  node.style.backgroundPosition =
    `${(place % side) * 100 / (side - 1)}% ${Math.floor(place / side) * 100 / (side - 1)}%`;
  return node;
};

/* Makes a link to a unit with its thumbnail; the second half of the caption is the value of the sort column. */
cnnvis.tile = (layer, row, column) => {
  const number = cnnvis.number(layer, row), status = cnnvis.value(layer, row, "status");
  const shown = column && column !== "filter" ? column : "score";
  const value = cnnvis.format(cnnvis.value(layer, row, shown));
  const label = `${layer.name} unit ${number}, status ${status}, ${cnnvis.title(shown)} ${value}`;
  const second = status === "ok"
    ? cnnvis.element("span", {}, value)
    : cnnvis.element("span", { class: "bad" }, status);
  return cnnvis.element("a",
    { class: "tile", href: cnnvis.address(layer, number), "aria-label": label, title: label },
    cnnvis.thumbnail(layer, row),
    cnnvis.element("span", { class: "caption", "aria-hidden": "true" }, cnnvis.element("b", {}, String(number)), second));
};
