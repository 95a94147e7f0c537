"use strict";
// Tables that are sorted and filtered, boxes and choices, the text that appears on hover and focus, the theme.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// ---- sorting: a paper's line stays below the line before it
function groups(body) {
  const found = [];
  for (const line of body.rows) {
    if (line.classList.contains("paper") && found.length) found.at(-1).push(line);
    else found.push([line]);
  }
  return found;
}

function key(line, place, kind) {
  const cell = line.cells[place];
  if (kind === "text") return cell.textContent.trim().toLowerCase();
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null); // what has no number is last, either way
  return sign * (typeof a === "string" ? a.localeCompare(b, "en") : a - b);
}

function sort(button) {
  const head = button.closest("th");
  const table = head.closest("table");
  const { kind, sort: place } = button.dataset;
  const before = head.getAttribute("aria-sort");
  const first = kind === "text" ? "ascending" : "descending";
  const other = kind === "text" ? "descending" : "ascending";
  const order = before === first ? other : first;
  for (const one of all("thead th", table)) one.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const keyed = groups(body).map((lines) => [key(lines[0], Number(place), kind), lines]);
  keyed.sort((a, b) => compare(a[0], b[0], sign));
  body.append(...keyed.flatMap(([, lines]) => lines));
}

// ---- filtering
function filter(input) {
  const table = document.getElementById(input.dataset.filter);
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const lines of groups(table.tBodies[0])) {
    const names = lines.map((line) => line.cells[0].textContent).join(" ").toLowerCase();
    const hidden = !words.every((word) => names.includes(word));
    for (const line of lines) line.hidden = hidden;
    shown += hidden ? 0 : 1;
  }
  const count = groups(table.tBodies[0]).length;
  document.getElementById(`${input.dataset.filter}-count`).textContent = words.length ? `${shown} of ${count}` : "";
}

// ---- moving about in a table by the arrow keys: one stop of the tab key a table
function place(cell) {
  return [cell.parentElement.rowIndex, cell.cellIndex];
}

function move(event) {
  const cell = event.target.closest("[tabindex='-1'], [data-tip]");
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!steps || !cell || !["TD", "TH"].includes(event.target.tagName)) return;
  const table = cell.closest("table");
  let [row, column] = place(cell);
  for (;;) {
    row += steps[0];
    column += steps[1];
    const line = table.rows[row];
    const next = line && line.cells[column];
    if (!next) return;
    if (line.hidden || !next.offsetParent || !next.hasAttribute("tabindex")) continue;
    event.preventDefault();
    for (const one of all("tbody [tabindex='0']", table)) one.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    return;
  }
}

// ---- the text on hover and focus
const tip = document.getElementById("tip");

function show(target) {
  tip.textContent = target.dataset.tip;
  tip.hidden = false;
  const box = target.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const left = Math.max(6, Math.min(box.left + box.width / 2 - own.width / 2, innerWidth - own.width - 6));
  const above = box.top - own.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : Math.min(box.bottom + 8, innerHeight - own.height - 4)}px`;
}

function hide() {
  tip.hidden = true;
}

function follow() {
  const target = document.activeElement.closest("[data-tip]"); // moving the focus may scroll, too
  const box = target ? target.getBoundingClientRect() : null;
  if (box && box.bottom > 0 && box.top < innerHeight) show(target);
  else hide();
}

function highlight(name) {
  for (const one of all("[data-row]")) one.classList.toggle("lit", name !== null && one.dataset.row === name);
}

for (const kind of ["pointerover", "focusin"]) {
  document.addEventListener(kind, (event) => {
    const target = event.target.closest("[data-tip]");
    if (target) show(target);
    else hide();
    const row = event.target.closest("[data-row]");
    highlight(row ? row.dataset.row : null);
  });
}
document.addEventListener("focusout", hide);
document.addEventListener("scroll", follow, true);

// ---- events
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-sort]");
  if (button) sort(button);
});
document.addEventListener("input", (event) => {
  const { dataset, checked } = event.target;
  if (dataset.filter) filter(event.target);
  if (dataset.class) document.getElementById(dataset.for).classList.toggle(dataset.class, checked);
});
document.addEventListener("change", (event) => {
  const { dataset, value } = event.target;
  if (dataset.chooses) choose(dataset.chooses, value);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
  if (event.target.closest && event.target.closest("table.grid")) move(event);
});

function choose(name, value) {
  for (const part of document.getElementById(name).children) part.hidden = part.dataset.choice !== value;
}

for (const select of all("select[data-chooses]")) choose(select.dataset.chooses, select.value);
for (const table of all("table.grid")) {
  const first = table.querySelector("tbody [tabindex]");
  if (first) first.tabIndex = 0;
}

// ---- light and dark
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

// ---- on paper nothing stays folded
let folded = [];
addEventListener("beforeprint", () => {
  folded = all("details:not([open])");
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});
