"use strict";

// Before/after sliders: the range input carries the value (keyboard, screen readers), the pointer moves it directly.
for (const box of document.querySelectorAll(".compare")) {
  const range = box.querySelector("input");
  const show = () => box.style.setProperty("--split", range.value + "%");
  const follow = (event) => {
    const frame = box.getBoundingClientRect();
    range.value = Math.min(100, Math.max(0, ((event.clientX - frame.left) / frame.width) * 100));
    show();
  };
  range.addEventListener("input", show);
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    box.setPointerCapture(event.pointerId);
    range.focus({ preventScroll: true });
    follow(event);
  });
  // The press itself would take the focus away again, and with it the arrow keys.
  box.addEventListener("mousedown", (event) => event.preventDefault());
  box.addEventListener("pointermove", (event) => {
    if (box.hasPointerCapture(event.pointerId)) follow(event);
  });
  show();
}

for (const button of document.querySelectorAll("button.mask")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    button.closest("article").querySelector("img.mask").hidden = !on;
  });
}

// Search and filters work on every card, failure and table row alike.
const items = [...document.querySelectorAll("[data-status]")];
const form = document.querySelector("form.filters");
const filter = () => {
  const words = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const status = form.elements.status.value;
  const collection = form.elements.collection.value;
  const method = form.elements.method.value;
  let visible = 0;
  for (const item of items) {
    const data = item.dataset;
    const keep =
      (!status || data.status === status) &&
      (!collection || data.collection === collection) &&
      (!method || data.methods.split(" ").includes(method)) &&
      words.every((word) => data.text.includes(word));
    item.hidden = !keep;
    visible += keep ? 1 : 0;
  }
  form.querySelector("output").textContent = visible === items.length ? "" : `${visible} of ${items.length}`;
  for (const group of document.querySelectorAll("[data-group]")) {
    group.hidden = !group.querySelector("[data-status]:not([hidden])");
  }
};
if (form) {
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
}

// The compact table sorts by a click on its column heads.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[head.cellIndex].dataset.key ?? row.cells[head.cellIndex].textContent;
    const compare = (a, b) => (a !== "" && b !== "" && !isNaN(a) && !isNaN(b) ? a - b : a.localeCompare(b));
    const rows = [...body.rows].sort((a, b) => compare(key(a), key(b)));
    body.append(...(up ? rows : rows.reverse()));
  });
}
