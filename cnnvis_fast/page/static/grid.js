/* The grid: the document holds only the visible rows. */

cnnvis.grid = (() => {
  const HEADING = 44, CAPTION = 26, GAP = 8, OVERSCAN = 3;
  let box, canvas, lines = [], tops = [], total = 0, columns = 1, sort = "filter";
  let groups = [], drawn = new Map(), pending = false, width = 0, place = { line: 0, cell: 0 };

  const cell = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--cell"));

  const layOut = () => {
    const side = cell();
    width = box.clientWidth;
    const style = getComputedStyle(document.documentElement);
    const room = box.clientWidth - 2 * 0.9 * parseFloat(style.fontSize) + GAP;
    columns = Math.max(1, Math.floor(room / (side + GAP)));
    lines = [];
    tops = [];
    total = 0;
    const add = (line, height) => { lines.push(line); tops.push(total); total += height; };
    for (const { layer, rows } of groups) {
      add({ layer, count: rows.length }, HEADING);
      for (let first = 0; first < rows.length; first += columns)
        add({ layer, rows: rows.slice(first, first + columns) }, side + CAPTION);
    }
    canvas.style.height = `${total}px`;
    box.setAttribute("aria-rowcount", lines.length);
    for (const node of drawn.values()) node.remove();
    drawn.clear();
    draw();
  };

  const at = (y) => {
    let low = 0, high = lines.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (tops[middle] <= y) low = middle; else high = middle - 1;
    }
    return low;
  };

  const make = (index) => {
    const line = lines[index];
    const node = cnnvis.element("div", { class: "row", role: "row", "aria-rowindex": index + 1 });
    node.style.transform = `translateY(${tops[index]}px)`;
    if (line.rows === undefined) {
      const { layer } = line;
      const about = [layer.alias, layer.kind, `${line.count} shown`].filter(Boolean).join(" · ");
      node.append(cnnvis.element("div", { role: "rowheader" },
        cnnvis.element("h2", {}, layer.name + " ", cnnvis.element("span", {}, about))));
      return node;
    }
    line.rows.forEach((row, column) => {
      const tile = cnnvis.tile(line.layer, row, sort);
      tile.tabIndex = place.line === index && place.cell === column ? 0 : -1;
      node.append(cnnvis.element("div", { role: "gridcell", "aria-colindex": column + 1 }, tile));
    });
    return node;
  };

  const draw = () => {
    pending = false;
    if (!lines.length || box.hidden) return;
    const first = Math.max(0, at(box.scrollTop) - OVERSCAN);
    const last = Math.min(lines.length - 1, at(box.scrollTop + box.clientHeight) + OVERSCAN);
    for (const [index, node] of drawn) {
      if ((index < first || index > last) && !node.contains(document.activeElement)) {
        node.remove();
        drawn.delete(index);
      }
    }
    const fresh = document.createDocumentFragment();
    for (let index = first; index <= last; index++) {
      if (drawn.has(index)) continue;
      const node = make(index);
      drawn.set(index, node);
      fresh.append(node);
    }
    canvas.append(fresh);
  };

  const ask = () => {
    if (!pending) { pending = true; requestAnimationFrame(draw); }
  };

  const firstTiles = () => Math.max(0, lines.findIndex((line) => line.rows));

  const focus = (line, column) => {
    if (!lines[line] || !lines[line].rows) return;
    const before = drawn.get(place.line)?.querySelectorAll(".tile")[place.cell];
    if (before) before.tabIndex = -1;
    place = { line, cell: Math.min(column, lines[line].rows.length - 1) };
    const top = tops[line], bottom = top + cell() + CAPTION;
    if (top < box.scrollTop) box.scrollTop = top;
    if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
    draw();
    const tile = drawn.get(line).querySelectorAll(".tile")[place.cell];
    tile.tabIndex = 0;
    tile.focus({ preventScroll: true });
  };

  /* Returns the next line of tiles, skipping headings. */
  const beside = (line, step) => {
    let next = line + step;
    while (lines[next] && !lines[next].rows) next += step;
    return lines[next] ? next : line;
  };

  const keys = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !event.target.closest(".tile")) return;
    const { line, cell: column } = place;
    const last = lines[line].rows.length - 1;
    const page = Math.max(1, Math.floor(box.clientHeight / (cell() + CAPTION)) - 1);
    const far = (step) => { let next = line; for (let n = 0; n < page; n++) next = beside(next, step); return next; };
    const moves = {
      ArrowLeft: () => column > 0 ? [line, column - 1] : beside(line, -1) < line ? [beside(line, -1), Infinity] : [line, 0],
      ArrowRight: () => column < last ? [line, column + 1] : beside(line, 1) > line ? [beside(line, 1), 0] : [line, last],
      ArrowUp: () => [beside(line, -1), column],
      ArrowDown: () => [beside(line, 1), column],
      PageUp: () => [far(-1), column],
      PageDown: () => [far(1), column],
      Home: () => [firstTiles(), 0],
      End: () => [lines.length - 1, Infinity],
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    focus(...moves[event.key]());
  };

  return {
    start() {
      box = document.getElementById("grid");
      canvas = document.getElementById("rows");
      box.addEventListener("scroll", ask, { passive: true });
      box.addEventListener("keydown", keys);
      box.addEventListener("focusin", (event) => {
        const row = event.target.closest(".row"), tile = event.target.closest(".tile");
        if (!row || !tile) return;
        place = { line: row.getAttribute("aria-rowindex") - 1, cell: [...row.querySelectorAll(".tile")].indexOf(tile) };
      });
      new ResizeObserver(() => {
        if (box.hidden || !box.clientWidth) return;
        if (box.clientWidth === width) { draw(); return; }  // the grid was hidden, or only its height changed
        const held = box.contains(document.activeElement) && lines[place.line]?.rows?.[place.cell];
        const { layer } = lines[place.line] || {};
        layOut();
        if (typeof held === "number") this.focusUnit(layer, held);
      }).observe(box);
    },
    show(chosen, column, keep) {
      groups = chosen;
      sort = column;
      if (!keep) box.scrollTop = 0;
      layOut();
      place = { line: firstTiles(), cell: 0 };
      const tile = drawn.get(place.line)?.querySelector(".tile");
      if (tile) tile.tabIndex = 0;
    },
    /* Scrolls to a unit and focuses it; focuses the first tile if the unit is not shown. */
    focusUnit(layer, row) {
      let line = lines.findIndex((candidate) => candidate.layer === layer && candidate.rows?.includes(row));
      if (line < 0) line = firstTiles();
      focus(line, Math.max(0, lines[line]?.rows?.indexOf(row) ?? 0));
    },
    focusFirst() { focus(firstTiles(), 0); },
  };
})();
