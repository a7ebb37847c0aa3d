// SPDX-License-Identifier: GPL-2.0-only
//
// The page of a run. The fragment of the address says what is open:
//   #/KERNEL/FLAVOUR                    a target
//   #/KERNEL/FLAVOUR/BINDING/PROGRAM    a result
//   #clause/ID                          a clause of the contract
// Every text of the run becomes a text node; nothing of it is ever parsed as HTML.
"use strict";
(() => {
const run = JSON.parse(document.getElementById("data").textContent);
const STATUSES = { // the worst first
  "CRASHED": ["C", "crashed"],
  "FAIL": ["F", "failed"],
  "TIMEOUT": ["T", "timed out"],
  "ERROR": ["E", "errors"],
  "INCONCLUSIVE": ["?", "inconclusive"],
  "NOT RUN": ["\u00b7", "not run"],
  "DEVIATION": ["D", "known deviations"],
  "SKIP": ["\u2013", "skipped"],
  "PASS": ["\u2713", "passed"],
};
const GOOD = new Set(["PASS", "SKIP", "DEVIATION"]);
const CELLS_AT_ONCE = 3000;
const MOST_GROUPS = 200;
const FEW_COLUMNS = 8; // beside as many the promises have room

const $ = (id) => document.getElementById(id);

/** An element; attributes that start with "on" are listeners, false and null ones are left out. */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many || one + "s"}`;
const toneOf = (status) => status.replace(" ", "-");
const mark = (status) => h("span", {class: "mark", "aria-hidden": "true"}, STATUSES[status][0]);
const say = (text) => { $("say").textContent = text; };
const placeOf = (column) => run.targets[run.columns[column].target];
const nameOf = (column) => {
  const target = placeOf(column);
  return `${target.kernel} ${target.flavour}, ${run.columns[column].binding}`;
};
const addressOf = (...words) => "#/" + words.map(encodeURIComponent).join("/");
const addressOfClause = (clause) => `#clause/${encodeURIComponent(clause.id)}`;
const addressOfCell = (row, column) => {
  const target = placeOf(column);
  return addressOf(target.kernel, target.flavour, run.columns[column].binding, run.programs[row].name);
};

function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const hours = Math.floor(whole / 3600);
  return (hours ? `${hours} h ` : "") + `${Math.floor(whole % 3600 / 60)} min ${whole % 60} s`;
}

async function copy(text, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no permission, or not a secure context
    const area = h("textarea", {readonly: true, class: "hidden"});
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const label = button.dataset.label || (button.dataset.label = button.textContent);
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  say(done ? "Copied" : "Could not copy: select the text and copy it");
  if (!done) getSelection().selectAllChildren(button.previousElementSibling);
  setTimeout(() => { button.textContent = label; }, 1600);
}

const copyButton = (text, what) =>
  h("button", {type: "button", class: "copy", "aria-label": what, onclick: (event) => copy(text, event.target)}, "Copy");

// ---- the head

function head() {
  $("heading").textContent = run.heading;
  const facts = [];
  const started = new Date(run.started);
  facts.push(isNaN(started) ? run.started : started.toISOString().slice(0, 16).replace("T", " ") + " UTC");
  if (run.end) facts.push(duration(run.end.seconds));
  const flavours = new Set(run.targets.map((target) => target.flavour));
  facts.push(count(run.programs.length, "program"), count(new Set(run.targets.map((target) => target.kernel)).size, "kernel"));
  if (flavours.size > 1) facts.push(count(flavours.size, "flavour"));
  facts.push(`hmm-harness ${run.version}`);
  if (run.end) facts.push(`exit code ${run.end.exit_code}` + (run.end.meaning && `: ${run.end.meaning}`));
  if (run.timeout) facts.push(`timeout ${run.timeout} s`);
  $("facts").append(...facts.map((fact) => h("span", {}, fact)));
  if (!run.end) $("facts").append(h("span", {class: "alarm"}, "interrupted: not all of it has run"));
  if (run.wrong.length) $("facts").append(h("span", {class: "alarm"}, `wrong on purpose: ${run.wrong.join(", ")}`));
  $("command").textContent = run.command;
  $("command").parentNode.append(copyButton(run.command, "Copy the command of the run"));

  const counts = {};
  for (const result of run.results.flat()) if (result) counts[result.status] = (counts[result.status] || 0) + 1;
  for (const [status, [, words]] of Object.entries(STATUSES)) {
    if (!counts[status]) continue;
    const part = h("span", {class: toneOf(status)});
    part.style.flexGrow = counts[status];
    $("bar").append(part);
    $("tiles").append(h("button", {
      type: "button", class: `tile ${toneOf(status)}`, "aria-pressed": "false", "data-status": status,
      onclick: () => toggle(filter.statuses, status),
    }, mark(status), h("b", {}, counts[status].toLocaleString("en")), h("span", {}, words)));
  }
}

/** What is not good, by what the kernel or the harness said of it. */
function attention() {
  const groups = new Map();
  run.targets.forEach((target, place) => {
    if (target.error) groups.set(`target ${place}`, {status: "NOT RUN", why: `${target.kernel} ${target.flavour}: ${target.error}`,
      cells: [], address: addressOf(target.kernel, target.flavour)});
  });
  run.results.forEach((results, row) => results.forEach((result, column) => {
    if (!result || GOOD.has(result.status)) return;
    const target = run.columns[column].target;
    if (result.status === "NOT RUN" && run.targets[target].error) {
      groups.get(`target ${target}`).cells.push([row, column]);
      return;
    }
    const report = (result.reports || [])[0];
    const why = report ? `${report.kind}: ${report.title}` : result.reason || "";
    const key = JSON.stringify([result.status, why, report || result.status === "NOT RUN" ? "" : row]);
    if (!groups.has(key)) groups.set(key, {status: result.status, why, cells: [], address: addressOfCell(row, column)});
    groups.get(key).cells.push([row, column]);
  }));
  if (!groups.size) return;
  const order = Object.keys(STATUSES);
  const sorted = [...groups.values()].sort((one, other) =>
    order.indexOf(one.status) - order.indexOf(other.status) || other.cells.length - one.cells.length);
  const list = sorted.slice(0, MOST_GROUPS).map((group) => {
    const programs = new Set(group.cells.map(([row]) => row));
    const columns = new Set(group.cells.map(([, column]) => column));
    const what = programs.size === 1 ? run.programs[[...programs][0]].name : count(programs.size, "program");
    const where = columns.size === 1 ? nameOf([...columns][0]) : `${columns.size} of ${run.columns.length} columns`;
    return h("li", {}, h("button", {
      type: "button", class: toneOf(group.status), title: group.why, onclick: () => { location.hash = group.address; },
    }, mark(group.status), h("span", {class: "hidden"}, group.status), h("span", {class: "what"}, what),
    h("span", {class: "why"}, group.why), h("span", {class: "where"}, where)));
  });
  if (sorted.length > MOST_GROUPS) list.push(h("li", {class: "empty"}, `and ${sorted.length - MOST_GROUPS} more`));
  $("attention").append(h("details", {open: true},
    h("summary", {}, "Needs attention ", h("span", {}, `${count(sorted.length, "finding")}, alike ones together`)),
    h("ul", {}, list)));
  $("attention").hidden = false;
}

// ---- clauses of the contract

const STANDINGS = { // the worst first; each with a letter, and the status whose colour it has
  "broken": ["B", "FAIL"],
  "no verdict": ["?", "ERROR"],
  "deviating": ["D", "DEVIATION"],
  "not run": ["\u00b7", "NOT-RUN"],
  "no program": ["0", "NOT-RUN"],
  "not applicable": ["\u2013", "SKIP"],
  "proven": ["\u2713", "PASS"],
};
const standingMark = (standing) => h("span", {class: "mark", "aria-hidden": "true"}, STANDINGS[standing][0]);
const areaOf = (clause) => clause.id.slice(0, clause.id.indexOf("-"));
const chosen = {standings: new Set(), from: null, to: null}; // of clauses; kernels by their place in run.targets

const contractual = run.columns.map((_, column) => column).filter((column) => run.columns[column].binding !== run.peer);

/** The columns of `to` beside which `from` has one of the same binding: pairs of columns. */
const pairs = () => contractual.flatMap((after) => run.columns[after].target !== chosen.to ? [] : contractual
  .map((column) => [column, after]).filter(([column]) =>
    run.columns[column].target === chosen.from && run.columns[column].binding === run.columns[after].binding));
const comparing = () => chosen.from !== null && chosen.to !== null && chosen.from !== chosen.to;

function contract() {
  if (!run.clauses.length) return;
  const counts = {};
  for (const clause of run.clauses) for (const [standing] of clause.stands.filter(Boolean)) counts[standing] = (counts[standing] || 0) + 1;
  const words = Object.keys(STANDINGS).filter((standing) => counts[standing]).map((standing) => `${counts[standing]} ${standing}`);
  const times = [count(run.clauses.length, "clause"), run.targets.length > 1 && count(run.targets.length, "kernel"),
    contractual.length > run.targets.length && count(contractual.length / run.targets.length, "binding")].filter(Boolean);
  const details = h("details", {ontoggle: () => { if (details.open && !$("contract")) contractTools(details, counts); }},
    h("summary", {}, "Contract ", h("span", {}, `${times.join(" \u00d7 ")}: ${words.join(", ")}`)));
  $("clauses").append(details);
  $("clauses").hidden = false;
  if (run.asked.length) details.open = true;
}

function contractTools(details, counts) {
  const standings = Object.keys(STANDINGS).filter((standing) => counts[standing]).map((standing) => h("button", {
    type: "button", class: "chip", "aria-pressed": "false", "data-standing": standing,
    onclick: () => {
      if (!chosen.standings.delete(standing)) chosen.standings.add(standing);
      showContract();
    },
  }, standing));
  const kernel = (which, title) => h("select", {id: `clauses-${which}`, "aria-label": title, onchange: (event) => {
    chosen[which] = event.target.value === "" ? null : Number(event.target.value);
    showContract();
  }}, h("option", {value: ""}, title), run.targets.map((target, place) =>
    h("option", {value: place}, `${target.kernel} ${target.flavour}`)));
  details.append(h("div", {class: "tools"},
    h("div", {class: "facet", role: "group", "aria-label": "Standings"}, standings),
    run.targets.length > 1 && h("div", {class: "facet"}, h("span", {}, "What changed "), kernel("from", "from ..."), kernel("to", "to ...")),
    h("p", {class: "shown", id: "clauses-shown", role: "status"})),
  h("div", {class: "matrix contract", id: "contract"}));
  showContract();
}

function showContract() {
  for (const button of document.querySelectorAll("[data-standing]"))
    button.setAttribute("aria-pressed", chosen.standings.has(button.dataset.standing));
  const compared = comparing() ? pairs() : [];
  const columns = comparing() ? [...new Set([...compared.map(([column]) => column), ...compared.map(([, column]) => column)])]
    : contractual;
  const found = run.clauses.filter((clause) =>
    (!chosen.standings.size || columns.some((column) => chosen.standings.has(clause.stands[column][0]))) &&
    (!comparing() || compared.some(([one, other]) => clause.stands[one][0] !== clause.stands[other][0])));
  $("clauses-shown").textContent = comparing() ? `${found.length} of ${run.clauses.length} stand differently`
    : `${found.length} of ${run.clauses.length}`;
  let area = null;
  const lines = [];
  for (const clause of found) {
    if (areaOf(clause) !== area) {
      area = areaOf(clause);
      lines.push(h("tr", {class: "room"}, h("th", {scope: "rowgroup", colspan: columns.length + 2}, area)));
    }
    lines.push(h("tr", {}, h("th", {scope: "row"}, h("a", {href: addressOfClause(clause)}, clause.id)),
      columns.map((column) => {
        const [standing, reason] = clause.stands[column];
        return h("td", {class: STANDINGS[standing][1], title: run.reasons[reason] || standing},
          h("a", {href: addressOfClause(clause), "aria-label": `${standing} ${clause.id}, ${nameOf(column)}`}, standingMark(standing)));
      }), h("td", {class: "promise", title: clause.says}, clause.says)));
  }
  $("contract").replaceChildren(found.length ? h("table", {},
    h("thead", {}, h("tr", {}, h("th", {scope: "col"}, "Clause"), columns.map((column) => {
      const target = placeOf(column);
      return h("th", {scope: "col", title: nameOf(column)}, `${target.kernel} ${target.flavour}`, h("small", {}, run.columns[column].binding));
    }), h("th", {scope: "col", class: "promise"}, "Promise"))),
    h("tbody", {}, lines)) : h("p", {class: "empty"}, comparing() ? "Every clause stands alike on both." : "No clause stands like that."));
}

/** Where a clause stands, and what shows it: each program on each column, a link to its result. */
function clausePanel(clause) {
  const worst = Object.keys(STANDINGS).find((standing) => contractual.some((column) => clause.stands[column][0] === standing));
  const evidence = (clause.programs || []).map((name) => {
    const row = run.programs.findIndex((program) => program.name === name);
    return h("li", {}, h("b", {}, name), row < 0 ? h("span", {}, " was not chosen") : [
      run.programs[row].title && h("p", {class: "note"}, run.programs[row].title),
      h("div", {class: "across"}, contractual.map((column) => {
        const status = run.results[row][column].status;
        return h("a", {class: toneOf(status), href: addressOfCell(row, column)},
          mark(status), h("span", {class: "hidden"}, status), nameOf(column));
      }))]);
  });
  return [
    barTop(h("span", {class: `badge ${STANDINGS[worst][1]}`}, standingMark(worst), worst)),
    h("div", {class: `body ${STANDINGS[worst][1]}`},
      h("h2", {id: "panel-title", tabindex: -1}, clause.id),
      h("p", {class: "promise"}, clause.says),
      clause.duty && h("p", {class: "where"}, "A duty of the driver"),
      section("Source", null, ...clause.source.map((each) => h("p", {class: "mono"}, each))),
      section("Where it stands", null, h("ul", {class: "stands"}, contractual.map((column) => {
        const [standing, reason] = clause.stands[column];
        return h("li", {class: STANDINGS[standing][1]}, standingMark(standing), h("span", {}, nameOf(column), ": ", h("b", {}, standing),
          run.reasons[reason] && h("span", {class: "note"}, ` ${run.reasons[reason]}`)));
      }))),
      clause.lacks && section("Not shown", null, h("p", {}, clause.lacks)),
      clause.unproven && section("No program", null, h("p", {}, clause.unproven)),
      evidence.length ? section("What shows it", count(evidence.length, "program"), h("ul", {class: "evidence"}, evidence)) : null),
  ];
}

// ---- filters

const filter = {statuses: new Set(), kernel: new Set(), flavour: new Set(), binding: new Set(), text: ""};
const FACETS = [
  ["kernel", "Kernels", (column) => placeOf(column).kernel],
  ["flavour", "Flavours", (column) => placeOf(column).flavour],
  ["binding", "Bindings", (column) => run.columns[column].binding],
];

function facets() {
  for (const [name, title, valueOf] of FACETS) {
    const values = [...new Set(run.columns.map((_, column) => valueOf(column)))];
    if (values.length < 2) continue;
    $("facets").append(h("div", {class: "facet", role: "group", "aria-label": title}, values.map((value) => h("button", {
      type: "button", class: "chip", "aria-pressed": "false", "data-facet": name, "data-value": value,
      onclick: () => toggle(filter[name], value),
    }, value))));
  }
}

function toggle(set, value) {
  if (!set.delete(value)) set.add(value);
  show();
}

function clear() {
  for (const value of Object.values(filter)) if (value instanceof Set) value.clear();
  filter.text = $("search").value = "";
  show();
}

/** What the text filter looks at: of the whole row, or of one result. */
const rowText = run.programs.map((program) => `${program.name}\n${program.title}`.toLowerCase());
const cellText = (result) => [result.status, result.reason || "", ...(result.reports || []).map((each) => `${each.kind} ${each.title}`)]
  .join("\n").toLowerCase();

function matches(row, column) {
  const result = run.results[row][column];
  if (!result) return false;
  if (filter.statuses.size && !filter.statuses.has(result.status)) return false;
  return !filter.text || rowText[row].includes(filter.text) || cellText(result).includes(filter.text);
}

// ---- the matrix

let columns = []; // that are shown
let leading = new Set(); // of these, the first of each kernel
let rows = []; // that are shown, in order
let matching = new Set(); // row * run.columns.length + column, of those shown
let drawn = 0; // rows in the document
let body = null; // the tbody
let room = null; // the last heading among the rows in the document
let active = null; // [row, column] that has the focus, or had it
let cells = new Map(); // by row * run.columns.length + column
const keyOf = (row, column) => row * run.columns.length + column;
const roomOf = (row) => {
  const name = run.programs[row].name;
  return name.includes("/") ? name.slice(0, name.indexOf("/")) : "";
};

function show() {
  columns = run.columns.map((_, column) => column).filter((column) =>
    FACETS.every(([name, , valueOf]) => !filter[name].size || filter[name].has(valueOf(column))));
  matching = new Set();
  rows = [];
  run.programs.forEach((_, row) => {
    const found = columns.filter((column) => matches(row, column));
    if (!found.length) return;
    rows.push(row);
    for (const column of found) matching.add(keyOf(row, column));
  });
  for (const button of document.querySelectorAll("[data-status]"))
    button.setAttribute("aria-pressed", filter.statuses.has(button.dataset.status));
  for (const button of document.querySelectorAll("[data-facet]"))
    button.setAttribute("aria-pressed", filter[button.dataset.facet].has(button.dataset.value));
  const total = run.results.flat().filter(Boolean).length;
  const all = matching.size === total;
  $("shown").replaceChildren(all ? count(matching.size, "result")
    : `${count(matching.size, "result")} of ${total.toLocaleString("en")} `,
  all ? "" : h("button", {type: "button", id: "clear", onclick: () => { clear(); $("search").focus(); }}, "Clear filters"));
  draw();
}

function draw() {
  cells = new Map();
  drawn = 0;
  room = null;
  if (!rows.length) {
    body = null;
    $("matrix").replaceChildren(h("p", {class: "empty"}, "Nothing matches these filters."));
    return;
  }
  const kernels = [];
  for (const column of columns) {
    const target = run.columns[column].target;
    if (kernels.length && kernels[kernels.length - 1][0] === target) kernels[kernels.length - 1][1].push(column);
    else kernels.push([target, [column]]);
  }
  leading = new Set(kernels.map(([, below]) => below[0]));
  body = h("tbody");
  const table = h("table", {role: "grid", "aria-label": "Results: a row for each program, a column for each binding of each kernel",
    "aria-rowcount": rows.length + 2, "aria-colcount": columns.length + 1, onclick: clicked, onkeydown: keyed, onfocusin: focused},
  h("thead", {}, h("tr", {}, h("th", {scope: "col", rowspan: 2}, "Program"), kernels.map(([place, below]) => {
    const target = run.targets[place];
    return h("th", {scope: "colgroup", colspan: below.length, class: `kernel first${target.error ? " broken" : ""}`},
      h("button", {type: "button", title: target.banner || target.error || "",
        onclick: () => { location.hash = addressOf(target.kernel, target.flavour); }},
      target.kernel, h("small", {}, target.error ? `${target.flavour}: no kernel` : target.flavour)));
  }), columns.length <= FEW_COLUMNS && h("th", {scope: "col", rowspan: 2, class: "promise"}, "Promise")), h("tr", {}, columns.map((column) =>
    h("th", {scope: "col", class: leading.has(column) ? "first" : null}, run.columns[column].binding)))), body);
  $("matrix").replaceChildren(table);
  $("matrix").scrollTop = 0;
  if (!active || !rows.includes(active[0]) || !columns.includes(active[1])) active = [rows[0], nearest(rows[0], columns[0])];
  drawMore();
  fit();
  markOpen();
}

/** Adds rows; the others follow when they are scrolled to, or moved to. */
function drawMore(until = 0) {
  const fragment = document.createDocumentFragment();
  const end = Math.min(rows.length, Math.max(until + 1, drawn + Math.ceil(CELLS_AT_ONCE / columns.length)));
  for (; drawn < end; drawn++) {
    const row = rows[drawn];
    const name = run.programs[row].name;
    if (roomOf(row) !== room) {
      room = roomOf(row);
      if (room) fragment.append(h("tr", {class: "room", role: "row"}, h("th", {colspan: columns.length + 2, scope: "rowgroup"}, room)));
    }
    const short = room ? name.slice(room.length + 1) : name;
    fragment.append(h("tr", {"aria-rowindex": drawn + 3}, h("th", {scope: "row", title: `${name}\n${run.programs[row].title}`}, short),
      columns.map((column) => {
        if (!run.results[row][column]) return h("td", {role: "gridcell", class: leading.has(column) ? "first" : null});
        const status = run.results[row][column].status;
        const key = keyOf(row, column);
        const cell = h("td", {role: "gridcell", "data-key": key, "aria-label": `${status} ${name}, ${nameOf(column)}`,
          tabindex: active[0] === row && active[1] === column ? 0 : -1,
          class: `${toneOf(status)}${leading.has(column) ? " first" : ""}${matching.has(key) ? "" : " other"}`}, mark(status));
        cells.set(key, cell);
        return cell;
      }), columns.length <= FEW_COLUMNS && h("td", {role: "gridcell", class: "promise"}, run.programs[row].title)));
  }
  body.append(fragment);
}

const scrolled = () => {
  if (body && drawn < rows.length && body.getBoundingClientRect().bottom < 3 * innerHeight) drawMore();
};
for (const box of [$("matrix"), window]) box.addEventListener("scroll", scrolled, {passive: true});

/** The matrix scrolls by itself only if it is too wide for the page. */
function fit() {
  const table = $("matrix").querySelector("table");
  $("matrix").classList.toggle("wide", table !== null && table.offsetWidth > $("matrix").offsetWidth - 2); // but its borders
  scrolled();
}
new ResizeObserver(fit).observe($("matrix"));
const isWide = () => $("matrix").classList.contains("wide");

const parse = (key) => [Math.floor(key / run.columns.length), key % run.columns.length];

function clicked(event) {
  const cell = event.target.closest("td[data-key]");
  if (cell) location.hash = addressOfCell(...parse(Number(cell.dataset.key)));
}

function focused(event) {
  const cell = event.target.closest("td[data-key]");
  if (!cell) return;
  const old = cells.get(keyOf(...active));
  if (old) old.tabIndex = -1;
  active = parse(Number(cell.dataset.key));
  cell.tabIndex = 0;
}

/** The column that is shown, has a result in `row` and is nearest to `column`: programs and hmm-tests have no column in common. */
function nearest(row, column) {
  const far = (other) => Math.abs(columns.indexOf(other) - columns.indexOf(column));
  return columns.filter((other) => run.results[row][other]).sort((one, other) => far(one) - far(other))[0];
}

/** Puts the focus on a cell that is shown; draws the rows up to it. */
function focusCell(row, column) {
  const place = rows.indexOf(row);
  if (place < 0 || !columns.includes(column)) return false;
  if (place >= drawn) drawMore(place);
  const cell = cells.get(keyOf(row, column));
  cell.focus({preventScroll: true});
  reveal(cell);
  const now = cell.getBoundingClientRect();
  if (now.bottom > innerHeight || now.top < 0) cell.scrollIntoView({block: "nearest"});
  return true;
}

/** Scrolls the matrix, or the page, until `cell` is beside its headings, not below them. */
function reveal(cell) {
  const matrix = $("matrix");
  const box = matrix.getBoundingClientRect();
  const its = cell.getBoundingClientRect();
  const [top, height] = isWide() ? [box.top, matrix.clientHeight] : [0, innerHeight];
  const up = its.top - (top + matrix.querySelector("thead").offsetHeight + 4);
  const down = its.bottom - (top + height - 4);
  const west = its.left - (box.left + cell.parentNode.firstChild.offsetWidth + 4);
  const east = its.right - (box.left + matrix.clientWidth - 4);
  (isWide() ? matrix : window).scrollBy(isWide() ? west < 0 ? west : Math.max(0, east) : 0, up < 0 ? up : Math.max(0, down));
}

function keyed(event) {
  if (!event.target.closest("td") || event.altKey || event.metaKey) return;
  const row = rows.indexOf(active[0]), column = columns.indexOf(active[1]);
  const last = [rows.length - 1, columns.length - 1];
  const page = Math.max(1, Math.floor(Math.min($("matrix").clientHeight, innerHeight) / 28) - 4);
  const to = {
    ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
    PageUp: [row - page, column], PageDown: [row + page, column],
    Home: event.ctrlKey ? [0, 0] : [row, 0], End: event.ctrlKey ? last : [row, last[1]],
  }[event.key];
  if (to) {
    event.preventDefault();
    const clamp = (value, most) => Math.min(Math.max(value, 0), most);
    const next = rows[clamp(to[0], last[0])];
    focusCell(next, nearest(next, columns[clamp(to[1], last[1])]));
  } else if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    location.hash = addressOfCell(...active);
  }
}

// ---- the panel

let open = null; // {row, column}, {target} or {clause}
let before = null; // what had the focus when the panel opened
const narrow = matchMedia("(max-width: 900px)"); // the panel covers the page, as in page.css
const cover = () => { $("page").inert = open !== null && narrow.matches; };

/** Reads the address: what is to be open, or null. */
function wanted() {
  let words;
  try {
    words = location.hash.slice(2).split("/").map(decodeURIComponent);
  } catch {
    return null;
  }
  if (location.hash.startsWith("#clause/")) {
    const clause = run.clauses.find((each) => each.id === words[1]);
    return clause ? {clause} : null;
  }
  const target = run.targets.findIndex((each) => each.kernel === words[0] && each.flavour === words[1]);
  if (target < 0) return null;
  if (words.length === 2) return {target};
  const column = run.columns.findIndex((each) => each.target === target && each.binding === words[2]);
  const row = run.programs.findIndex((each) => each.name === words[3]);
  return words.length === 4 && column >= 0 && row >= 0 && run.results[row][column] ? {row, column} : null;
}

function follow() {
  const next = wanted();
  const was = open;
  open = next;
  cover();
  if (next) {
    if (!was) before = document.activeElement;
    $("panel").replaceChildren(...(next.clause ? clausePanel(next.clause)
      : next.row === undefined ? targetPanel(next.target) : resultPanel(next.row, next.column)));
    $("panel").hidden = false;
    $("panel").scrollTop = 0;
    $("page").classList.add("beside");
    if (next.row !== undefined) setActive(next.row, next.column);
    $("panel-title").focus();
  } else if (was) {
    $("panel").hidden = true;
    $("panel").replaceChildren();
    $("page").classList.remove("beside");
    if (!(was.row !== undefined && focusCell(was.row, was.column)) && before) before.focus();
  }
  markOpen();
}

/** The cell that the keyboard goes on from; it is brought into sight if it is among those shown. */
function setActive(row, column) {
  const old = active && cells.get(keyOf(...active));
  if (old) old.tabIndex = -1;
  active = [row, column];
  const place = rows.indexOf(row);
  if (place < 0 || !columns.includes(column)) return;
  if (place >= drawn) drawMore(place);
  const cell = cells.get(keyOf(row, column));
  cell.tabIndex = 0;
  if (isWide() || !document.activeElement.closest(".attention")) reveal(cell); // a list that is gone through stays
}

function markOpen() {
  for (const cell of document.querySelectorAll("td.open")) cell.classList.remove("open");
  const cell = open && open.row !== undefined && cells.get(keyOf(open.row, open.column));
  if (cell) cell.classList.add("open");
}

const close = () => { location.hash = "#/"; };

/** Opens the next (1) or previous (-1) result that needs attention, or that the status filter asks for. */
function step(direction) {
  const list = [];
  for (const row of rows) for (const column of columns)
    if (matching.has(keyOf(row, column)) && (filter.statuses.size || !GOOD.has(run.results[row][column].status)))
      list.push([row, column]);
  if (!list.length) return say("There is no other");
  const from = wanted(); // not `open`: two keys can come before the address is followed
  const place = ([row, column]) => rows.indexOf(row) * run.columns.length + column;
  const here = from && from.row !== undefined ? place([from.row, from.column]) : direction > 0 ? -1 : Infinity;
  const next = direction > 0 ? list.find((each) => place(each) > here) || list[0]
    : list.filter((each) => place(each) < here).pop() || list[list.length - 1];
  location.hash = addressOfCell(...next);
}

function barTop(...children) {
  return h("div", {class: "bar-top"}, ...children, h("span", {class: "spacer"}),
    h("button", {type: "button", class: "quiet", title: "Previous that needs attention (p)", "aria-label": "Previous that needs attention", onclick: () => step(-1)}, "\u2191 Previous"),
    h("button", {type: "button", class: "quiet", title: "Next that needs attention (n)", "aria-label": "Next that needs attention", onclick: () => step(1)}, "\u2193 Next"),
    h("button", {type: "button", class: "quiet", id: "close", title: "Close (Esc)", onclick: close}, "Close"));
}

const section = (title, remark, ...children) => [h("h3", {}, title, remark && h("span", {}, remark)), ...children];

function resultPanel(row, column) {
  const result = run.results[row][column];
  const program = run.programs[row];
  const target = placeOf(column);
  const tone = toneOf(result.status);
  const where = [`${target.kernel} ${target.flavour}`, target.release && `Linux ${target.release}`, run.columns[column].binding,
    result.seconds && duration(result.seconds), result.left_out && `${count(result.left_out, "query", "queries")} left out`];
  const parts = [
    h("h2", {id: "panel-title", tabindex: -1}, program.name),
    program.title && h("p", {class: "promise"}, program.title),
    h("p", {class: "where"}, where.filter(Boolean).join(" \u00b7 ")),
    result.reason && h("p", {class: "reason"}, result.reason),
  ];
  if (result.replay) parts.push(...section("Replay", null,
    h("div", {class: "command"}, h("code", {}, result.replay), copyButton(result.replay, "Copy the replay command"))));
  if (run.columns[column].binding === run.peer) {
    if (result.details) parts.push(...section("What it showed", null, h("pre", {tabindex: 0}, result.details.join("\n"))));
    if (program.text) parts.push(...section("Source", null, h("pre", {tabindex: 0}, program.text)));
  } else if (program.text) parts.push(...section("Program", result.step == null ? null : `diverged at step ${result.step + 1}`,
    listing(program, result)));
  if (result.tables) parts.push(...section("Page tables", "after the step, in a second run",
    result.tables.map((each) => pages(each, result.details || []))));
  if (result.reports) parts.push(...section("Kernel reports", count(result.reports.length, "report"), result.reports.map((each) =>
    h("details", {class: "report", open: result.reports.length === 1}, h("summary", {}, h("b", {}, each.kind), " ", each.title),
      each.lines.length ? h("pre", {tabindex: 0}, each.lines.join("\n")) : null))));
  if (result.log) parts.push(...section("Kernel log",
    count(result.log.length, "line") + (result.cut ? `, and ${result.cut} more that are not on this page` : ""), log(result)));
  parts.push(...section("Same program elsewhere", null, h("div", {class: "across"}, run.columns.map((_, other) => {
    if (!run.results[row][other]) return null;
    const status = run.results[row][other].status;
    return h("a", {class: toneOf(status), href: addressOfCell(row, other), "aria-current": other === column ? "true" : null},
      mark(status), h("span", {class: "hidden"}, status), nameOf(other));
  }))));
  const proves = run.clauses.filter((clause) => (clause.programs || []).includes(program.name));
  if (proves.length) parts.push(...section("Clauses that it proves", null, h("div", {class: "across"}, proves.map((clause) => {
    const [standing] = clause.stands[column];
    return h("a", {class: STANDINGS[standing][1], href: addressOfClause(clause), title: clause.says},
      standingMark(standing), h("span", {class: "hidden"}, standing), clause.id);
  }))));
  parts.push(...section("Kernel and machine", null, provenance(target)));
  return [
    barTop(h("span", {class: `badge ${tone}`}, mark(result.status), result.status),
      result.explanation && h("button", {type: "button", class: "quiet", title: "Copy all of it as text, for a mail or a bug report",
        onclick: (event) => copy(result.explanation.join("\n") + "\n", event.target)}, "Copy as text")),
    h("div", {class: `body ${tone}`}, ...parts),
  ];
}

function targetPanel(place) {
  const target = run.targets[place];
  const counts = new Map();
  run.columns.forEach((each, column) => {
    if (each.target !== place) return;
    for (const results of run.results)
      if (results[column]) counts.set(results[column].status, (counts.get(results[column].status) || 0) + 1);
  });
  return [
    barTop(h("span", {class: "badge"}, "Kernel")),
    h("div", {class: "body NOT-RUN"},
      h("h2", {id: "panel-title", tabindex: -1}, `${target.kernel} ${target.flavour}`),
      target.banner && h("p", {class: "where"}, target.banner),
      target.error && h("p", {class: "reason"}, target.error),
      section("Results", null, h("div", {class: "across"}, Object.keys(STATUSES).filter((status) => counts.has(status)).map((status) =>
        h("a", {class: toneOf(status), href: "#matrix", onclick: (event) => {
          event.preventDefault();
          clear();
          filter.kernel.add(target.kernel);
          filter.flavour.add(target.flavour);
          filter.statuses.add(status);
          show();
        }}, mark(status), `${counts.get(status)} ${STATUSES[status][1]}`)))),
      section("Kernel and machine", null, provenance(target))),
  ];
}

function listing(program, result) {
  let number = 0;
  const lines = [];
  for (const line of program.text.replace(/\n$/, "").split("\n")) {
    if (!number && line === `# ${program.title}`) continue; // it is above already
    const [code, ...comment] = line.split(/(?=#)/);
    const isStep = !line.startsWith("#") && code.trim() !== "";
    if (!isStep) {
      lines.push(h("li", {}, h("span"), h("span"), h("span", {class: "comment"}, line)));
      continue;
    }
    const here = number === result.step;
    const later = result.step != null && number > result.step;
    number += 1;
    const colon = code.indexOf(":");
    lines.push(h("li", {class: here ? "diverged" : later ? "after" : null, "aria-current": here ? "step" : null},
      h("span", {class: "pointer"}, here ? "\u25b6" : ""), h("span", {class: "number"}, String(number)),
      h("span", {}, h("span", {class: "actor"}, code.slice(0, colon + 1)), code.slice(colon + 1),
        comment.length ? h("span", {class: "comment"}, comment.join("")) : null)));
    if (here) for (const detail of result.details || []) lines.push(h("li", {class: "saw"}, h("span"), h("span"), h("span", {}, detail)));
  }
  return h("ol", {class: "program", tabindex: 0, "aria-label": "The program"}, lines);
}

/**
 * A region's page tables. Rows that the details name diverge. A cell differs if no entry of the model's beside it is in
 * it: the kernel may show more than what matters ("r zero"), but not in a row that diverges.
 */
function pages(tables, details) {
  const named = new Set();
  for (const detail of details) {
    const found = /^(\w+)\[(\d+)\]:/.exec(detail);
    if (found && found[1] === tables.region) named.add(Number(found[2]));
  }
  const rowOf = (cellsOfRow) => {
    const found = /^\[(\d+)(?::(\d+))?\]$/.exec(cellsOfRow[0]);
    const start = found ? Number(found[1]) : 0, stop = found ? Number(found[2] || start + 1) : 0;
    const diverging = [...named].some((page) => start <= page && page < stop);
    return h("tr", {class: diverging ? "diverging" : null}, cellsOfRow.map((cell, index) => {
      if (!index) return h("th", {scope: "row"}, cell);
      const words = cell.split(" ");
      const differs = index % 2 === 0 && !cellsOfRow[index - 1].split(" or ").some((each) =>
        each === cell || !diverging && each.split(" ").every((word) => words.includes(word)));
      return h("td", {class: [index % 2 ? "split" : "", differs ? "differs" : ""].join(" ").trim() || null}, cell);
    }));
  };
  return h("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": `Page tables of ${tables.region}`}, h("table", {class: "pages"},
    h("caption", {}, `${tables.region}, seen by ${tables.device}`),
    h("thead", {}, h("tr", {}, tables.heads.map((each, index) => h("th", {scope: "col", class: index % 2 ? "split" : null}, each)))),
    h("tbody", {}, tables.rows.map(rowOf))));
}

function log(result) {
  const stamp = /^\[\s*\d+\.\d+\]/;
  const bare = (line) => line.replace(stamp, "").trim();
  const complaints = new Set((result.reports || []).flatMap((each) => each.lines).map(bare).filter(Boolean));
  return h("pre", {tabindex: 0, "aria-label": "Kernel log"}, h("code", {class: "lines"}, result.log.map((line) => {
    const time = stamp.exec(line);
    return h("span", {class: complaints.has(bare(line)) ? "complaint" : null},
      time ? h("span", {class: "time"}, time[0]) : "", time ? line.slice(time[0].length) : line);
  })));
}

function provenance(target) {
  const machine = [target.cpus && count(target.cpus, "CPU"), target.memory_mib && `${target.memory_mib} MiB`].filter(Boolean).join(", ");
  const pairs = [
    ["Release", target.release], ["Origin", target.origin], ["Flavour", target.flavour], ["Key", target.key],
    ["QEMU", target.qemu], ["Accelerator", target.accelerator], ["Machine", machine],
    ["Features", (target.features || []).join(" ")],
  ];
  return h("dl", {}, pairs.filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

// ---- colours, keys, start

const THEMES = ["auto", "dark", "light"];
let theme = "auto";

function setTheme(name) {
  theme = THEMES.includes(name) ? name : "auto";
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Colours: ${theme}`;
  try {
    localStorage.setItem("hmm-harness-theme", theme);
  } catch { /* a page that may keep nothing forgets the choice, and that is all */ }
}

$("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]));

let typing = 0;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    filter.text = $("search").value.trim().toLowerCase();
    show();
  }, 120);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const writing = event.target.closest("input, textarea");
  if (event.key === "Escape") {
    if (writing && $("search").value) clear();
    else if (open) close();
    else if (writing && active) focusCell(...active);
  } else if (writing) {
    if (event.key === "ArrowDown" && rows.length) {
      event.preventDefault();
      focusCell(rows[0], columns[0]);
    }
  } else if (event.key === "/") {
    event.preventDefault();
    $("search").focus();
    $("search").select();
  } else if (event.key === "n" || event.key === "p") {
    step(event.key === "n" ? 1 : -1);
  }
});

addEventListener("hashchange", follow);
narrow.addEventListener("change", cover);

let kept = null;
try {
  kept = localStorage.getItem("hmm-harness-theme");
} catch { /* as above */ }
setTheme(kept);
$("page").hidden = false;
head();
attention();
contract();
facets();
show();
follow();
})();
