"use strict";
// The record browser: filters, thumbnails, one record with the answers of every row. Text is set as text only.

(() => {
  const island = document.getElementById("records-data");
  if (!island) return;
  const data = JSON.parse(island.textContent);
  const root = document.getElementById("browser");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const list = part("list");
  let shown = [];
  let current = null;

  function fill(element, attributes, children) {
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }
  const make = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
  const draw = (name, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
  const breakable = (name) => name.split(/(?<=_)/).flatMap((word) => [word, make("wbr")]);

  // What a row answered: one half for a tie.
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const share = (margins) => mean(margins.map((margin) => (Math.sign(margin) + 1) / 2));
  const TESTS = {
    any: () => true,
    right: (margins) => share(margins) > 0.5,
    wrong: (margins) => share(margins) < 0.5,
    split: (margins) => share(margins) > 0 && share(margins) < 1,
  };

  function answered(record, row, answer) {
    const test = TESTS[part(answer).value];
    const chosen = part(row).value;
    if (chosen === "none") return true;
    if (chosen === "any") return record.margins.some(test);
    if (chosen === "every") return record.margins.every(test);
    return test(record.margins[chosen]);
  }

  function wanted(record) {
    const alike = (name) => ["any", record[name]].includes(part(name).value);
    return alike("relation") && alike("kind") && answered(record, "row", "answer") && answered(record, "and-row", "other-answer");
  }

  function thumbnail(record) {
    const image = make("img", { src: record.picture, alt: record.caption, width: 60, height: 60 });
    return make("div", { role: "option", class: "thumb", "data-record": record.id, id: `record-${record.place}` }, image);
  }

  function refresh() {
    part("other-answer").disabled = part("and-row").value === "none";
    shown = data.records.filter(wanted);
    list.replaceChildren(...shown.map(thumbnail));
    part("count").textContent = `${shown.length} of ${data.records.length} records`;
    select(Math.max(0, shown.indexOf(current)));
  }

  function select(place) {
    current = shown[place] || null;
    [...list.children].forEach((option, k) => option.setAttribute("aria-selected", k === place));
    part("back").disabled = place <= 0;
    part("next").disabled = place >= shown.length - 1;
    list.setAttribute("aria-activedescendant", current ? list.children[place].id : "");
    if (!current) {
      part("record").replaceChildren(make("p", { class: "gone" }, "No record of the sample is like that."));
      return;
    }
    const option = list.children[place];
    const below = option.offsetTop + option.offsetHeight > list.scrollTop + list.clientHeight;
    if (option.offsetTop < list.scrollTop || below) list.scrollTop = option.offsetTop - 6;
    part("record").replaceChildren(seen(current, place), answers(current));
  }

  function step(by) {
    const next = shown.indexOf(current) + by;
    if (next >= 0 && next < shown.length) select(next);
  }

  function picture({ id, size, boxes, picture }) {
    const [width, height] = size;
    const label = `Image of ${id}: ${boxes.map((box) => box[0]).join(" and ")} in boxes`;
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "picture" });
    svg.append(draw("image", { href: picture, width, height }));
    boxes.forEach(([name, x, y, w, h], k) => {
      const right = x > width * 0.6; // a name at the right edge ends with its box
      const at = {
        x: right ? Math.min(width, x + w) : Math.max(0, x),
        y: y > height * 0.09 ? y - height * 0.015 : y + h + height * 0.05,
        "text-anchor": right ? "end" : "start",
        "font-size": height * 0.05,
      };
      svg.append(draw("rect", { x, y, width: w, height: h, class: `box box${k}` }));
      svg.append(draw("text", { ...at, class: `boxname box${k}` }, name));
    });
    return svg;
  }

  function seen(record, place) {
    const facts = `${record.id}, ${record.relation}, scene ${record.scene}, ${data.kinds[record.kind]}`;
    return make(
      "div",
      {},
      picture(record),
      make("p", { class: "true" }, "✓ ", record.caption),
      make("p", { class: "false" }, "✗ ", record.negated),
      make("p", { class: "note" }, `${place + 1} of ${shown.length}: ${facts}`),
    );
  }

  function answers(record) {
    const lines = record.margins.map((margins, row) => {
      const seeds = margins.flatMap((margin) => {
        const [kind, sign] = [["wrong", "✗"], ["tie", "="], ["right", "✓"]][Math.sign(margin) + 1];
        return [make("span", { class: kind }, `${sign} ${(1000 * margin).toFixed(1)}`), " "];
      });
      const name = make("th", { scope: "row" }, ...breakable(data.rows[row]));
      return make("tr", {}, name, make("td", {}, ...seeds), make("td", {}, (1000 * mean(margins)).toFixed(1)));
    });
    const heads = ["row", "margin × 1000 by seed", "mean"];
    const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
    const wrong = record.margins.filter(TESTS.wrong).length;
    const caption = make("caption", {}, `${wrong} of ${data.rows.length} rows wrong in the mean of their seeds`);
    return make("div", { class: "answers" }, make("table", {}, caption, make("thead", {}, head), make("tbody", {}, ...lines)));
  }

  root.addEventListener("change", refresh);
  part("back").addEventListener("click", () => step(-1));
  part("next").addEventListener("click", () => step(1));
  list.addEventListener("click", ({ target }) => {
    const option = target.closest("[role=option]");
    if (option) select([...list.children].indexOf(option));
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
