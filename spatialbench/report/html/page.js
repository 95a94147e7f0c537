"use strict";
// Tables that are sorted and filtered, switches and choices.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// A paper's line stays below the line before it; the heading of a section stays above all.
function groups(section) {
  const lines = [];
  for (const line of section.rows) {
    if (line.classList.contains("family")) continue;
    if (line.classList.contains("paper") && lines.length) lines.at(-1).push(line);
    else lines.push([line]);
  }
  return lines;
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null); // without a number: last, either way
  return sign * (typeof a === "string" ? a.localeCompare(b, "en") : a - b);
}

function sort(button) {
  const { kind, sort: place } = button.dataset;
  const head = button.closest("th");
  const table = head.closest("table");
  const [first, second] = kind === "text" ? ["ascending", "descending"] : ["descending", "ascending"];
  const order = head.getAttribute("aria-sort") === first ? second : first;
  for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const key = ([line]) => {
    const cell = line.cells[place];
    if (kind === "text") return cell.textContent.trim().toLowerCase();
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  const sign = order === "ascending" ? 1 : -1;
  for (const section of table.tBodies) {
    section.append(...groups(section).sort((a, b) => compare(key(a), key(b), sign)).flat());
  }
}

function filter(input) {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const lines = [...document.getElementById(input.dataset.filter).tBodies].flatMap(groups);
  let shown = 0;
  for (const group of lines) {
    const names = group.map((line) => line.cells[0].textContent).join(" ").toLowerCase();
    const matches = words.every((word) => names.includes(word));
    for (const line of group) line.hidden = !matches;
    shown += matches;
  }
  const count = document.getElementById(`${input.dataset.filter}-count`);
  count.textContent = words.length ? `${shown} of ${lines.length}` : "";
}

function choose(select) {
  for (const part of document.getElementById(select.dataset.chooses).children) part.hidden = part.dataset.choice !== select.value;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-sort]");
  if (button) sort(button);
});
document.addEventListener("input", ({ target }) => {
  const { dataset, checked } = target;
  if (dataset.filter) filter(target);
  if (dataset.class) document.getElementById(dataset.for).classList.toggle(dataset.class, checked);
  if (dataset.chooses) choose(target);
});
all("select[data-chooses]").forEach(choose);
