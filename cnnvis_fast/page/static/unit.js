/* The view of one unit. */

cnnvis.unitView = (() => {
  const el = cnnvis.element;
  const file = (layer, name) => `${encodeURIComponent(layer.folder)}/${name}`;
  const padded = (number) => String(number).padStart(4, "0");

  const link = (text, target, key) => target
    ? el("a", { href: cnnvis.address(target.layer, cnnvis.number(target.layer, target.row)), rel: key }, text)
    : el("a", { "aria-disabled": "true" }, text);

  const picture = (layer, row) => {
    const number = cnnvis.number(layer, row), status = cnnvis.value(layer, row, "status");
    const note = (text) => el("p", { class: "note", role: "alert" }, text);
    if (status === "damaged")
      return note("The file of this tile is damaged or belongs to another job: run the atlas again to remake it.");
    const source = file(layer, `${padded(number)}.png`);
    const image = el("img", { class: "large", src: source, alt: `The picture that maximizes unit ${number} of ${layer.name}` });
    const figure = el("figure", {}, el("a", { href: source }, image));
    image.addEventListener("load", () => { if (image.naturalWidth < 200) image.classList.add("exact"); });
    image.addEventListener("error", () => figure.replaceWith(note(`The picture ${layer.folder}/${padded(number)}.png cannot be shown: it is missing or damaged.`)));
    return figure;
  };

  const table = (layer, row) => {
    const body = el("tbody");
    for (const column of Object.keys(layer.columns)) {
      const value = cnnvis.value(layer, row, column);
      if (column === "filter" || value === null || value === undefined) continue;
      const shown = el("td", { class: column === "status" && value !== "ok" ? "bad" : null }, cnnvis.format(value));
      body.append(el("tr", { "data-column": column }, el("th", { scope: "row" }, cnnvis.title(column)), shown));
    }
    return el("table", {}, el("caption", { hidden: true }, "Scores and diagnostics"), body);
  };

  const provenance = () => {
    const { model, weights, weights_sha256: digest, versions = {}, config = {} } = cnnvis.job;
    const rows = { model, weights, "weights sha256": digest, preset: config.preset, seed: config.seed, ...versions };
    const body = el("tbody");
    for (const [name, value] of Object.entries(rows))
      if (value !== undefined) body.append(el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, String(value))));
    return el("details", { id: "provenance" }, el("summary", {}, "Provenance"), el("table", {}, body),
      el("details", {}, el("summary", {}, "The whole job"), el("pre", { tabindex: 0 }, JSON.stringify(cnnvis.job, null, 2))));
  };

  const photoMap = (layer, row) => {
    if (!cnnvis.photo || !cnnvis.photo.layers.includes(layer.name)) return [];
    const number = cnnvis.number(layer, row);
    const map = cnnvis.thumbnail(layer, row, "maps", "png");
    map.removeAttribute("aria-hidden");
    map.setAttribute("role", "img");
    map.setAttribute("aria-label", `Activation map of unit ${number} on the photo`);
    return [el("h3", {}, "On the photo"), el("div", { class: "pair" },
      el("figure", {}, el("img", { src: "photo.png", alt: "The photo as the network reads it" }), el("figcaption", {}, "as the network reads it")),
      el("figure", {}, map, el("figcaption", {}, "the unit's activation: lowest black, highest white")))];
  };

  const patches = (layer, number, found) => {
    const unit = found && found.units[number];
    if (!unit) return [];
    const list = unit.map((patch) => `${patch.image} (${cnnvis.format(patch.score)})`).join(", ");
    return [el("h3", {}, `Top patches of ${found.images}`),
      el("figure", { class: "patch" },
        el("img", { class: "patches", loading: "lazy", src: file(layer, `patches/${padded(number)}.jpg`), alt: `The ${unit.length} patches that activate unit ${number} most` }),
        el("figcaption", {}, `Best first: ${list}`))];
  };

  const alike = (layer, row, details) => {
    const others = details.alike[row];
    if (!others || !others.length) return [];
    const strip = el("div", { class: "strip", id: "alike" });
    for (const other of others) strip.append(cnnvis.tile(layer, other));
    return [el("h3", {}, "Most similar pictures in this layer"), strip,
      el("p", { class: "about" }, "By the colors and spectra of the pictures, not by the network's weights.")];
  };

  const turn = (rel) => document.querySelector(`#unit a[rel=${rel}]`)?.click();

  const keys = (event) => {
    if (document.getElementById("unit").hidden || event.defaultPrevented || !cnnvis.isShortcut(event)) return;
    if (event.key === "Escape") document.getElementById("back").click();
    if (event.key === "ArrowLeft") turn("prev");
    if (event.key === "ArrowRight") turn("next");
  };

  const swipes = (view) => {
    let touched = null;
    view.addEventListener("touchstart", (event) => {
      touched = event.touches.length === 1 ? event.touches[0] : null;
    }, { passive: true });
    view.addEventListener("touchend", (event) => {
      if (!touched) return;
      const [right, down] = ["clientX", "clientY"].map((axis) => event.changedTouches[0][axis] - touched[axis]);
      if (Math.abs(right) > 60 && Math.abs(right) > 2 * Math.abs(down)) turn(right < 0 ? "next" : "prev");
    }, { passive: true });
  };

  return {
    start() {
      document.addEventListener("keydown", keys);
      swipes(document.getElementById("unit"));
    },
    async show(layer, row, before, after) {
      const view = document.getElementById("unit");
      const number = cnnvis.number(layer, row);
      const late = el("div"), curve = el("div");
      view.replaceChildren(
        el("div", { class: "steps" },
          el("a", { href: cnnvis.back || "#", id: "back", "aria-keyshortcuts": "Escape" }, "Back to the grid"),
          link("← Previous", before, "prev"), link("Next →", after, "next")),
        el("h2", {}, el("a", { href: cnnvis.address(layer) }, layer.name), ` / ${number}`),
        el("div", { class: "columns" },
          el("div", {}, picture(layer, row)),
          el("div", {}, table(layer, row), curve, provenance())),
        late);
      view.scrollTop = 0;
      const fresh = () => late.isConnected;  // the view has not changed meanwhile
      try {
        const details = await cnnvis.loadDetails(layer);
        if (!fresh()) return;
        if (details.alphas.includes(number))
          view.querySelector(".columns > div").append(el("figure", {},
            el("img", { class: "large", src: file(layer, `${padded(number)}.alpha.png`), alt: "Where the picture matters to the unit" }),
            el("figcaption", {}, "where the picture matters: white much, black little")));
        const history = details.histories[row];
        const chart = history && cnnvis.curve(history, cnnvis.value(layer, row, "steps") ?? history.length);
        if (chart) curve.append(el("h3", {}, "Score over the steps"), chart,
          el("p", { class: "about" }, "Under each step's random transform, in the precision of the ascent."));
        late.append(...patches(layer, number, details.patches), ...photoMap(layer, row), ...alike(layer, row, details));
      } catch (error) {
        if (fresh()) late.append(el("p", { class: "note", role: "alert" }, `The curve and the similar pictures are missing: ${error.message}.`));
      }
    },
  };
})();
