"use strict";
// The browser of records: filters, thumbnails, one record with the answers of every row. Text is set as text only.

(() => {
  const island = document.getElementById("records-data");
  if (!island) return;
  const data = JSON.parse(island.textContent);
  const root = document.getElementById("browser");
  const by = (name) => root.querySelector(`[data-part="${name}"]`);
  const SVG = "http://www.w3.org/2000/svg";
  let shown = [];
  let current = null;

  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // a name of words joined by underscores, which may break behind each
  function breakable(name) {
    return name.split(/(?<=_)/).flatMap((word) => [word, make("wbr")]);
  }

  function draw(name, attributes = {}, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // ---- what a row answered: one half for a tie
  const point = (margin) => (margin > 0 ? 1 : margin === 0 ? 0.5 : 0);
  const share = (margins) => margins.reduce((sum, margin) => sum + point(margin), 0) / margins.length;
  const mean = (margins) => margins.reduce((sum, margin) => sum + margin, 0) / margins.length;
  const TESTS = {
    any: () => true,
    right: (margins) => share(margins) > 0.5,
    wrong: (margins) => share(margins) < 0.5,
    split: (margins) => share(margins) > 0 && share(margins) < 1,
  };

  function wanted(record) {
    const relation = by("relation").value;
    const kind = by("kind").value;
    if (relation !== "any" && record.relation !== relation) return false;
    if (kind !== "any" && record.kind !== kind) return false;
    return answered(record, "row", "answer") && answered(record, "and-row", "other-answer");
  }

  function answered(record, which, how) {
    const row = by(which).value;
    const test = TESTS[by(how).value];
    if (row === "none") return true;
    if (row === "any") return record.margins.some(test);
    if (row === "every") return record.margins.every(test);
    return test(record.margins[Number(row)]);
  }

  // ---- thumbnails
  function refresh() {
    by("other-answer").disabled = by("and-row").value === "none";
    shown = data.records.filter(wanted);
    const list = by("list");
    list.replaceChildren(
      ...shown.map((record) =>
        make(
          "div",
          { role: "option", class: "thumb", "aria-selected": "false", "data-record": record.id, id: `record-${record.place}` },
          make("img", { src: record.picture, alt: record.caption, width: 60, height: 60 }),
        ),
      ),
    );
    by("count").textContent = `${shown.length} of ${data.records.length} records`;
    select(Math.max(0, shown.indexOf(current)));
  }

  function select(place) {
    const list = by("list");
    for (const one of list.children) one.setAttribute("aria-selected", "false");
    current = shown[place] || null;
    by("back").disabled = place <= 0;
    by("next").disabled = place >= shown.length - 1;
    if (!current) {
      list.removeAttribute("aria-activedescendant");
      by("record").replaceChildren(make("p", { class: "gone" }, "No record of the sample is like that."));
      return;
    }
    const option = list.children[place];
    option.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", option.id);
    const top = option.offsetTop - list.offsetTop;
    if (top < list.scrollTop || top + option.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - 6;
    by("record").replaceChildren(...record(current, place));
  }

  function step(by) {
    const next = shown.indexOf(current) + by;
    if (next >= 0 && next < shown.length) select(next);
  }

  // ---- one record
  function picture(found) {
    const [width, height] = found.size;
    const label = `Picture of ${found.id}: ${found.boxes.map((box) => box[0]).join(" and ")} in boxes`;
    const boxes = found.boxes.flatMap(([name, x, y, w, h], place) => {
      const over = y > height * 0.09;
      const right = x > width * 0.6; // a name at the right edge ends with its box
      const at = { x: right ? Math.min(width, x + w) : Math.max(0, x), y: over ? y - height * 0.015 : y + h + height * 0.05 };
      const words = draw("text", { ...at, "text-anchor": right ? "end" : "start", class: `boxname box${place}` });
      words.textContent = name;
      words.style.fontSize = `${height * 0.05}px`;
      return [draw("rect", { x, y, width: w, height: h, class: `box box${place}` }), words];
    });
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "picture" });
    svg.append(draw("image", { href: found.picture, width, height }), ...boxes);
    return svg;
  }

  function bar(margins) {
    const largest = current.largest || 1;
    const svg = draw("svg", { viewBox: "-50 0 100 12", width: 100, height: 12, "aria-hidden": "true", class: "margins" });
    svg.append(draw("line", { x1: 0, y1: 0, x2: 0, y2: 12, class: "reference" }));
    const value = (48 * mean(margins)) / largest;
    svg.append(draw("rect", { x: Math.min(0, value), y: 3, width: Math.abs(value), height: 6, class: value < 0 ? "bad" : "good" }));
    for (const margin of margins) svg.append(draw("circle", { cx: (48 * margin) / largest, cy: 6, r: 1.8, class: "seed" }));
    return svg;
  }

  function record(found, place) {
    const lines = found.margins.map((margins, row) => {
      const signs = margins.flatMap((margin) => {
        const [kind, sign] = margin > 0 ? ["right", "✓"] : margin === 0 ? ["tie", "="] : ["wrong", "✗"];
        return [make("span", { class: kind }, sign), " "];
      });
      const right = share(margins);
      const verdict = right > 0.5 ? "right" : right < 0.5 ? "wrong" : "tie";
      const numbers = margins.map((margin) => margin.toPrecision(2)).join(", ");
      return make(
        "tr",
        { "data-tip": `${data.rows[row]}: ${verdict}; by seed ${numbers}` },
        make("th", { scope: "row" }, ...breakable(data.rows[row])),
        make("td", { class: "signs" }, ...signs),
        make("td", { class: "number" }, (1000 * mean(margins)).toFixed(1)),
        make("td", {}, bar(margins)),
      );
    });
    const head = make("tr", {}, ...["row", "by seed", "margin × 1000", "the line is 0, dots are seeds"].map((text) => make("th", { scope: "col" }, text)));
    const wrong = found.margins.filter((margins) => share(margins) < 0.5).length;
    const caption = make("caption", {}, `${wrong} of ${data.rows.length} rows wrong in the mean of their seeds`);
    const facts = `${found.id}, ${found.relation}, scene ${found.scene}, ${data.kinds[found.kind]}`;
    return [
      make(
        "div",
        { class: "seen" },
        picture(found),
        make("p", { class: "true" }, "✓ ", found.caption),
        make("p", { class: "false" }, "✗ ", found.negated),
        make("p", { class: "note" }, `${place + 1} of ${shown.length}: ${facts}`),
      ),
      make("div", { class: "answers" }, make("table", {}, caption, make("thead", {}, head), make("tbody", {}, ...lines))),
    ];
  }

  // ---- events
  for (const name of ["relation", "row", "answer", "and-row", "other-answer", "kind"]) by(name).addEventListener("change", refresh);
  by("back").addEventListener("click", () => step(-1));
  by("next").addEventListener("click", () => step(1));
  by("list").addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) select([...by("list").children].indexOf(option));
  });
  root.addEventListener("keydown", (event) => {
    if (["SELECT", "INPUT"].includes(event.target.tagName) || event.ctrlKey || event.altKey || event.metaKey) return;
    const moves = { ArrowRight: 1, ArrowDown: 1, j: 1, ArrowLeft: -1, ArrowUp: -1, k: -1 };
    if (event.key in moves) step(moves[event.key]);
    else if (event.key === "Home") select(0);
    else if (event.key === "End") select(shown.length - 1);
    else return;
    event.preventDefault();
  });
  root.hidden = false;
  refresh();
})();
