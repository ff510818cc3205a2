"use strict";
// Everything that is shown is in the page already; this sorts tables, picks methods out and switches pictures.
document.documentElement.classList.add("js");
const COLOURS = 8;

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    return column && !table.dataset.words ? null : cell.textContent;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // Numbers begin with the greatest, names with A.
      const first = column ? "descending" : "ascending";
      const other = column ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      // What is not known stays at the end in both orders.
      rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * compare(a, b)));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function picking(section) {
  const boxes = [...section.querySelectorAll(".picker input")];
  const first = boxes.filter((box) => box.checked).map((box) => box.value);
  const slots = new Map(first.map((value, slot) => [value, slot]));
  const members = [...section.querySelectorAll("[data-m]")];
  const output = section.querySelector(".picker output");

  const update = () => {
    const picked = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    // A method keeps its colour while it is picked.
    for (const value of slots.keys()) if (!picked.has(value)) slots.delete(value);
    for (const value of picked) {
      if (slots.has(value)) continue;
      const taken = new Set(slots.values());
      let slot = 0;
      while (taken.has(slot)) slot += 1;
      slots.set(value, slot);
    }
    for (const member of members) {
      const slot = slots.get(member.dataset.m);
      const kept = [...member.classList].filter((name) => !/^([cd]\d|off)$/.test(name));
      const own = slot === undefined ? ["off"] : [`c${slot % COLOURS}`, `d${Math.min(2, Math.floor(slot / COLOURS))}`];
      member.setAttribute("class", [...kept, ...own].join(" "));
      // SVG has no z-index: what comes last lies above.
      if (slot !== undefined && member.matches("svg > .point, svg > .line")) member.parentNode.append(member);
    }
    output.textContent = `${picked.size} of ${boxes.length}`;
    section.querySelectorAll(".settings tbody tr").forEach((row) => {
      const shown = [...row.cells].slice(1).filter((cell) => !cell.classList.contains("off"));
      row.hidden = shown.length > 1 && new Set(shown.map((cell) => cell.textContent)).size < 2;
    });
    section.querySelectorAll("svg:has(.point)").forEach(spaced);
  };

  section.querySelectorAll("[data-pick]").forEach((button) =>
    button.addEventListener("click", () => {
      const want = button.dataset.pick;
      for (const box of boxes) box.checked = want === "all" || (want === "default" && first.includes(box.value));
      update();
    }),
  );
  boxes.forEach((box) => box.addEventListener("change", update));
  // A browser may bring back what was ticked before a reload.
  update();
}

// Puts the name of each picked point where it covers neither a point nor another name: on one of its sides, if need be
// higher or lower, and then with a line to it.
function spaced(picture) {
  const points = [...picture.querySelectorAll(".point:not(.off)")];
  const taken = points.map((point) => point.querySelector("circle").getBBox());
  const free = (box) =>
    taken.every((t) => box.x >= t.x + t.width || t.x >= box.x + box.width || box.y >= t.y + t.height || t.y >= box.y + box.height);
  points.forEach((point) => point.classList.remove("crowded"));
  picture.querySelectorAll(".leader").forEach((line) => line.remove());
  for (const point of points) {
    const name = point.querySelector(".beside");
    const circle = point.querySelector("circle");
    const [x, y] = [Number(circle.getAttribute("cx")), Number(circle.getAttribute("cy"))];
    const { width, height } = name.getBBox();
    const sides = name.getAttribute("text-anchor") === "end" ? [-1, 1] : [1, -1];
    const places = [0, -13, 13, -26, 26, -39, 39, -52, 52].flatMap((dy) => sides.map((side) => [side, dy]));
    const boxed = ([side, dy]) => ({ x: side > 0 ? x + 9 : x - 9 - width, y: y + dy - height / 2, width, height });
    const fits = (box) => box.x >= 52 && box.x + width <= 480 && box.y >= 18 && box.y + height <= 270 && free(box);
    const place = places.find((each) => fits(boxed(each)));
    // Where there is no room the name comes with the pointer only; the legend and the title have it too.
    if (!place) {
      point.classList.add("crowded");
      continue;
    }
    const [side, dy] = place;
    taken.push(boxed(place));
    name.setAttribute("x", x + 9 * side);
    name.setAttribute("y", y + dy + 4);
    name.setAttribute("text-anchor", side > 0 ? "start" : "end");
    if (Math.abs(dy) > 15) {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
      line.setAttribute("class", "leader");
      line.setAttribute("d", `M${x} ${y}L${x + 8 * side} ${y + dy}`);
      point.prepend(line);
    }
  }
}

function switching(place) {
  const select = place.querySelector("select");
  const panels = [...place.children].filter((child) => child.matches(".panel"));
  const update = () => panels.forEach((panel) => panel.classList.toggle("current", panel.dataset.panel === select.value));
  select.addEventListener("change", update);
  update();
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".comparison").forEach(picking);
document.querySelectorAll(".switch").forEach(switching);
let waiting = 0;
addEventListener("resize", () => {
  cancelAnimationFrame(waiting);
  // The size of the letters in the pictures depends on the width.
  waiting = requestAnimationFrame(() => document.querySelectorAll("svg:has(.point)").forEach(spaced));
});
