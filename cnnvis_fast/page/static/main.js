/* Controls, addresses and keys. */

cnnvis.start = () => {
  const byId = (id) => document.getElementById(id);
  const [search, sort, direction, status, theme, menu, nav, count] =
    ["search", "sort", "direction", "status", "theme", "menu", "layers", "count"].map(byId);
  let falling = false, chosen = [], current = null, shownKey = null;

  const option = (value, text) => cnnvis.element("option", { value }, text);
  for (const column of cnnvis.columnNames()) sort.append(option(column, cnnvis.title(column)));
  sort.value = "filter";
  const statuses = new Map();
  for (const layer of cnnvis.layers)
    for (const word of layer.columns.status) statuses.set(word, (statuses.get(word) || 0) + 1);
  status.append(option("", "all"));
  for (const [word, number] of [...statuses].sort()) status.append(option(word, `${word} (${number})`));

  const total = cnnvis.layers.reduce((sum, layer) => sum + layer.size, 0);
  const say = (text) => { if (count.textContent !== text) count.textContent = text; };

  /* Updates what the grid shows, and with it the order of previous and next. */
  const refresh = (only, keep = false) => {
    const key = JSON.stringify([only?.name ?? "", search.value, status.value, sort.value, falling]);
    if (key === shownKey) return;
    shownKey = key;
    chosen = cnnvis.select({ only, query: search.value, status: status.value, sort: sort.value, falling });
    cnnvis.grid.show(chosen, sort.value, keep);
    const shown = chosen.reduce((sum, group) => sum + group.rows.length, 0);
    say(total === 0 ? "No tiles yet: run the atlas." : `${shown} of ${only ? only.size : total} units`
      + (shown ? "" : ": nothing matches, clear the search or the status"));
  };

  const beside = (layer, row, step) => {
    const flat = chosen.flatMap((group) => group.rows.map((r) => ({ layer: group.layer, row: r })));
    const index = flat.findIndex((unit) => unit.layer === layer && unit.row === row);
    return index < 0 ? null : flat[index + step] ?? null;
  };

  const view = (unit) => {
    byId("grid").hidden = count.hidden = unit;
    byId("unit").hidden = !unit;
  };

  const route = () => {
    const before = current;
    current = cnnvis.parseAddress(location.hash);
    nav.classList.remove("open");
    menu.setAttribute("aria-expanded", "false");
    const only = current.kind === "layer" ? current.layer : null;
    for (const link of nav.querySelectorAll("[data-layer]")) {
      const here = current.layer ? link.dataset.layer === current.layer.name : link.dataset.layer === "" && current.kind === "all";
      here ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
    }
    if (current.kind === "unit") {
      if (!before || !chosen.some((group) => group.layer === current.layer)) refresh(current.layer);
      cnnvis.back ||= cnnvis.address(current.layer);
      view(true);
      cnnvis.unitView.show(current.layer, current.row, beside(current.layer, current.row, -1), beside(current.layer, current.row, 1));
      byId("unit").focus({ preventScroll: true });
      document.title = `${current.layer.name}/${cnnvis.number(current.layer, current.row)}`;
      return;
    }
    cnnvis.back = current.kind === "unknown" ? "#" : location.hash || "#";
    view(false);
    if (current.kind === "unknown") {
      refresh(null);
      say(`There is no ${current.text} in this atlas.`);
    } else {
      refresh(only);
    }
    document.title = only ? only.name : `${cnnvis.job.model}: what its filters look for`;
    if (before?.kind === "unit") cnnvis.grid.focusUnit(before.layer, before.row);
  };

  const again = () => {
    if (current.kind === "unit") location.hash = cnnvis.back;
    else refresh(current.kind === "layer" ? current.layer : null);
  };
  search.addEventListener("input", again);
  sort.addEventListener("change", again);
  status.addEventListener("change", again);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      const target = cnnvis.parseAddress("#" + search.value.trim());
      if (target.kind === "unit") {
        search.value = "";
        refresh(target.layer);
        cnnvis.back = cnnvis.address(target.layer);
        location.hash = cnnvis.address(target.layer, cnnvis.number(target.layer, target.row));
      }
      else cnnvis.grid.focusFirst();
    }
    if (event.key === "Escape") { search.value = ""; again(); }
  });
  direction.addEventListener("click", () => {
    falling = !falling;
    direction.textContent = falling ? "↓" : "↑";
    direction.setAttribute("aria-label", `Order: ${falling ? "descending" : "ascending"}`);
    again();
  });
  menu.addEventListener("click", () => menu.setAttribute("aria-expanded", nav.classList.toggle("open")));
  document.querySelector("[data-skip]").addEventListener("click", (event) => {
    event.preventDefault();
    current.kind === "unit" ? byId("unit").focus() : cnnvis.grid.focusFirst();
  });

  const themes = { "": ["Auto", "as the system"], light: ["Light", "light"], dark: ["Dark", "dark"] };
  const store = (value) => {  // browsers may deny storage to a page opened as a file
    try { return value === undefined ? localStorage.getItem("cnnvis-theme") : localStorage.setItem("cnnvis-theme", value); } catch { return null; }
  };
  const paint = (name) => {
    document.documentElement.dataset.theme = name;
    theme.textContent = themes[name][0];
    theme.setAttribute("aria-label", `Colors: ${themes[name][1]}`);
  };
  paint(store() in themes ? store() : "");
  theme.addEventListener("click", () => {
    const names = Object.keys(themes);
    const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
    store(next);
    paint(next);
  });

  document.addEventListener("keydown", (event) => {
    if (!cnnvis.isShortcut(event)) return;
    if (event.key === "/") { event.preventDefault(); search.focus(); }
    if (event.key === "Escape" && nav.classList.contains("open")) { event.preventDefault(); menu.click(); }
  });

  cnnvis.grid.start();
  cnnvis.unitView.start();
  addEventListener("hashchange", route);
  route();
};
