"use strict";

const details = JSON.parse(document.getElementById("details").textContent);
const rows = [...document.querySelectorAll(".requirement")];
const cells = document.querySelectorAll("#matrix button");
const form = document.querySelector("form[role=search]");
const dialog = document.querySelector("dialog");

function make(tag, text, ...children) {
  const element = document.createElement(tag);
  element.append(text, ...children);
  return element;
}

// Filters

const haystacks = new Map(rows.map((row) => {
  const name = row.closest("tbody").dataset.chapter + "/" + row.querySelector(".name").textContent.replaceAll("\u200b", "");
  const observations = [...row.querySelectorAll("button")].flatMap((cell) => detailOf(cell).observations);
  const words = [name, row.querySelector(".text").textContent, ...observations.flatMap((one) => [one.case, one.detail])];
  return [row, words.join("\n").toLowerCase()];
}));

function matches(row, { text, chapter, level, outcome }) {
  return haystacks.get(row).includes(text.trim().toLowerCase())
    && ["", row.closest("tbody").dataset.chapter].includes(chapter)
    && ["", row.dataset.level].includes(level)
    && (!outcome || [...row.querySelectorAll("button")].some((cell) => {
      return outcome === "broken" ? cell.className === "broken" : detailOf(cell).outcome === outcome;
    }));
}

function filter() {
  const chosen = Object.fromEntries(new FormData(form));
  for (const row of rows) row.hidden = !matches(row, chosen);
  for (const body of document.querySelectorAll("#matrix tbody")) {
    body.hidden = !body.querySelector(".requirement:not([hidden])");
  }
  const shown = rows.filter((row) => !row.hidden);
  form.querySelector("output").textContent = `${shown.length} of ${rows.length} shown`;
  document.getElementById("none").hidden = shown.length > 0;
  document.getElementById("matrix").parentElement.hidden = shown.length === 0;
  const first = shown.flatMap((row) => [...row.querySelectorAll("button")])[0];
  if (first) stopAt(first);
}

form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(filter)); // after the fields have changed

// Cells: one of them is a tab stop, arrow keys lead to the others

function stopAt(cell) {
  for (const other of cells) other.tabIndex = other === cell ? 0 : -1;
}

function next(cell, key) {
  const row = cell.closest("tr");
  const inRow = [...row.querySelectorAll("button")];
  const inColumn = [...cells].filter((one) => one.dataset.column === cell.dataset.column && !one.closest("[hidden]"));
  switch (key) {
    case "ArrowLeft": return inRow[inRow.indexOf(cell) - 1];
    case "ArrowRight": return inRow[inRow.indexOf(cell) + 1];
    case "ArrowUp": return inColumn[inColumn.indexOf(cell) - 1];
    case "ArrowDown": return inColumn[inColumn.indexOf(cell) + 1];
    case "Home": return inRow[0];
    case "End": return inRow.at(-1);
  }
}

for (const cell of cells) {
  cell.addEventListener("click", () => show(cell));
  cell.addEventListener("focus", () => {
    stopAt(cell);
    cell.scrollIntoView({ block: "nearest", inline: "nearest" }); // out from under the sticky headers
  });
  cell.addEventListener("keydown", (event) => {
    const target = next(cell, event.key);
    if (target) {
      event.preventDefault();
      target.focus({ preventScroll: true });
    }
  });
}

// What was observed

function detailOf(cell) {
  return details[cell.dataset.column][cell.dataset.requirement];
}

function observed({ observations, cases }) {
  if (!observations.length) return [make("p", cases === 1 ? "Its one case conforms." : `All ${cases} cases conform.`)];
  const line = ({ case: name, outcome, detail }) => [make("b", name ? `${outcome}, case ${name}: ` : `${outcome}: `), detail];
  const worst = make("p", "", ...line(observations[0]));
  if (observations.length === 1) return cases === 1 ? [worst] : [worst, make("p", `The other cases, ${cases - 1}, conform.`)];
  const more = make("details", make("summary", `${observations.length - 1} more of ${cases} cases`));
  more.append(make("ul", "", ...observations.slice(1).map((one) => make("li", "", ...line(one)))));
  return [worst, more];
}

function show(cell) {
  const detail = detailOf(cell);
  const part = (name) => dialog.querySelector(name);
  part("h2").textContent = detail.requirement;
  part(".seen").className = `seen ${detail.css}`;
  part(".seen").replaceChildren(
    `${detail.implementation}: `,
    make("b", `${detail.symbol} ${detail.word}`),
    `, a ${detail.level}${detail.expected ? ", listed as an expected failure" : ""}`,
  );
  part(".text").replaceChildren(...cell.closest("tr").querySelector(".text").cloneNode(true).childNodes);
  part(".observations").replaceChildren(...observed(detail));
  part(".command").textContent = detail.command;
  part(".script").textContent = detail.observations[0]?.script ?? "";
  part(".script").hidden = !part(".script").textContent;
  part(".run").textContent = `From ${detail.run}`;
  history.replaceState(null, "", `#${encodeURIComponent(cell.id)}`);
  dialog.showModal();
  dialog.scrollTop = 0;
}

dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // the backdrop
});

// Theme

const theme = document.querySelector("#theme select");
theme.addEventListener("input", () => {
  document.documentElement.style.colorScheme = theme.value;
});

for (const control of [form, theme.parentElement, document.querySelector(".hint")]) control.hidden = false;
filter();
document.getElementById(decodeURIComponent(location.hash.slice(1)))?.click(); // a link to a cell
