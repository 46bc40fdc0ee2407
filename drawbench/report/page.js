"use strict";

// Tables sort by a click on a column's name: numbers as numbers, missing values ("-") last in both directions.
function keyOf(cell) {
  const text = cell.textContent.trim();
  if (text === "-") return null;
  const number = parseFloat(text.replaceAll(",", ""));
  return cell.classList.contains("number") && !Number.isNaN(number) ? number : text.toLowerCase();
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(table, heading) {
  const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => ({ row, key: keyOf(row.cells[heading.cellIndex]) }));
  rows.sort((a, b) => (a.key === null || b.key === null ? (a.key === null) - (b.key === null) : direction * compare(a.key, b.key)));
  body.append(...rows.map((item) => item.row));
}

for (const table of document.querySelectorAll("table")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sortBy(table, heading));
    heading.replaceChildren(button);
  }
}

// Animations: all pictures are in the page; one is shown, at first the last.
const animations = Array.from(document.querySelectorAll(".animation"));
const pauses = animations.map(function prepare(animation) {
  const controls = animation.querySelector(".controls");
  if (!controls) return () => {};
  const pictures = Array.from(animation.querySelectorAll(".frames img"));
  const slider = controls.querySelector("input");
  const output = controls.querySelector("output");
  const play = controls.querySelector(".play");
  let timer = null;

  const show = (number) => {
    slider.value = (number - 1 + pictures.length) % pictures.length + 1;
    pictures.forEach((picture, k) => { picture.hidden = k + 1 !== Number(slider.value); });
    output.textContent = `${slider.value} of ${pictures.length}`;
    slider.setAttribute("aria-valuetext", `step ${output.textContent}`);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  const step = () => {
    show(Number(slider.value) + 1);
    if (Number(slider.value) === pictures.length) stop();
  };
  const start = () => {
    if (Number(slider.value) === pictures.length) show(1);
    timer = setInterval(step, 400);
    play.textContent = "Stop";
    play.setAttribute("aria-pressed", "true");
  };

  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  controls.querySelector(".back").addEventListener("click", () => { stop(); show(Number(slider.value) - 1); });
  controls.querySelector(".on").addEventListener("click", () => { stop(); show(Number(slider.value) + 1); });
  play.addEventListener("click", () => (timer === null ? start() : stop()));
  controls.hidden = false;
  return stop;
});

const choice = document.getElementById("choice");
if (choice) {
  const choose = () => {
    pauses.forEach((stop) => stop());
    animations.forEach((animation, k) => { animation.hidden = k !== choice.selectedIndex; });
  };
  choice.addEventListener("change", choose);
  choice.closest(".chooser").hidden = false;
  choose();
}

// Hints and buttons that need this script.
for (const hint of document.querySelectorAll(".hint")) hint.hidden = false;
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
