// SPDX-License-Identifier: GPL-2.0-only
//
// The rows of a picture can be gone through by keys: one of them takes part in Tab, the one that was last.
"use strict";
(() => {
for (const figure of document.querySelectorAll("figure")) {
  const rows = [...figure.querySelectorAll(".row")];
  let at = 0;
  const go = (to) => {
    if (to < 0 || to >= rows.length) return;
    rows[at].setAttribute("tabindex", "-1");
    at = to;
    rows[at].setAttribute("tabindex", "0");
    rows[at].focus();
    rows[at].scrollIntoView({block: "nearest"});
  };
  const isBroken = (row) => row.classList.contains("broken");
  const next = () => rows.findIndex((row, number) => number > at && isBroken(row));
  const previous = () => rows.findLastIndex((row, number) => number < at && isBroken(row));
  const keys = {
    ArrowDown: () => at + 1,
    ArrowUp: () => at - 1,
    Home: () => 0,
    End: () => rows.length - 1,
    n: next,
    p: previous,
  };
  figure.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in keys)) return;
    event.preventDefault();
    go(keys[event.key]());
  });
  rows.forEach((row, number) => row.addEventListener("click", () => go(number)));
}

const themes = [["", "as the system"], ["dark", "dark"], ["light", "light"]];
const button = document.getElementById("theme");
let theme = 0;
button.hidden = false;
button.addEventListener("click", () => {
  theme = (theme + 1) % themes.length;
  document.documentElement.dataset.theme = themes[theme][0];
  button.textContent = `Colours: ${themes[theme][1]}`;
});
})();
