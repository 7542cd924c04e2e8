// The page around the completions: sorting, filtering, switches, marks of charts, and what stands behind a number.

function make(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function button(text, onClick) {
  const node = make("button", text);
  node.type = "button";
  node.addEventListener("click", onClick);
  return node;
}

function option(value, text) {
  const node = make("option", text);
  node.value = value;
  return node;
}

function choice(label, options) {
  const box = make("label", label), select = make("select");
  select.append(...options.map(([value, text]) => option(value, text)));
  box.append(select);
  return [box, select];
}

function number(value, signed = false) {
  const shown = Number.isInteger(value) ? String(value) : value.toFixed(3);
  return ((signed && value > 0 ? "+" : "") + shown).replace("-", "−");
}

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const data = JSON.parse(document.getElementById("report-data").textContent);
const view = new URLSearchParams(location.search);
const hidden = new Set(view.getAll("hide"));

// The address holds what the reader has chosen, so that a copied link shows the same.
function remember() {
  const query = view.toString();
  try { history.replaceState(null, "", (query ? `?${query}` : location.pathname) + location.hash); } catch { /* some browsers keep file: addresses as they are */ }
}

// ------------------------------------------------------------------------------------ tables

// A number's unrounded value; of text the text.
const order = (cell) => cell.dataset.order ?? cell.textContent.trim();

function sortable(grid) {
  const table = grid.querySelector("table"), heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => {
    const numeric = head.classList.contains("number");
    const before = head.getAttribute("aria-sort");
    const first = numeric ? "descending" : "ascending";
    const wanted = before === null ? first : before === "ascending" ? "descending" : "ascending";
    const sign = wanted === "ascending" ? 1 : -1;
    const key = (row) => order(row.cells[index]);
    const missing = (row) => numeric && Number.isNaN(Number.parseFloat(key(row)));
    const rows = [...body.rows].sort((a, b) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      return sign * (numeric ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true }));
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", wanted);
    body.append(...rows);
  }));
}

function filterable(grid) {
  const tools = grid.querySelector(".tools"), find = tools.querySelector("input"), rows = [...grid.querySelector("tbody").rows];
  tools.hidden = false;
  find?.addEventListener("input", () => {
    const wanted = find.value.toLowerCase();
    rows.forEach((row) => row.classList.toggle("unmatched", !row.textContent.toLowerCase().includes(wanted)));
    settle(rows);
  });
  const copy = tools.querySelector(".copy-csv");
  copy.addEventListener("click", () => copied(copy, csv(grid)));
}

const settle = (rows) => rows.forEach((row) => {
  row.hidden = row.classList.contains("unmatched") || hidden.has(row.dataset.algorithm);
});

function csv(grid) {
  const guarded = (text) => (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text);
  const field = (text) => `"${guarded(text).replaceAll('"', '""')}"`;
  const table = grid.querySelector("table");
  const head = [...table.tHead.rows[0].cells].map((cell) => field(cell.textContent.trim()));
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => [...row.cells].map((cell) => field(order(cell))));
  return [head, ...rows].map((row) => row.join(",")).join("\n") + "\n";
}

async function copied(node, text) {
  const before = node.textContent;
  try { await navigator.clipboard.writeText(text); node.textContent = "Copied"; } catch { node.textContent = "Not allowed here"; }
  setTimeout(() => { node.textContent = before; }, 1500);
}

// ------------------------------------------------------------------------------------ switches

const switches = [];

const axis = (pane) => pane.dataset.axis ?? pane.querySelector("figure").dataset.axis ?? "";

function switcher(box) {
  const panes = all(":scope > .pane", box);
  if (panes.length < 2) return;
  const controls = make("div", undefined, "chips");
  controls.setAttribute("role", "group");
  controls.setAttribute("aria-label", "read against");
  const title = (pane) => axis(pane).replaceAll("_", " ").replace("flops", "FLOPs").replace("peak bytes", "memory") || "as run";
  const buttons = panes.map((pane) => button(title(pane), () => show(pane)));
  const show = (chosen) => panes.forEach((pane, i) => {
    pane.hidden = pane !== chosen;
    buttons[i].setAttribute("aria-pressed", String(pane === chosen));
  });
  controls.append(...buttons);
  box.prepend(controls);
  const usual = panes.find((pane) => axis(pane) === "") ?? panes.find((pane) => axis(pane) === "flops") ?? panes[0];
  const set = (wanted) => show(panes.find((pane) => axis(pane) === wanted) ?? usual);
  switches.push({ box, set, axes: panes.map(axis), ranked: box.classList.contains("plain") });
  set("");
}

function equalBy(wanted) {
  switches.forEach((one) => one.set(wanted));
  for (const input of all("#basis input")) input.checked = input.value === wanted;
  // What has no answer to the question stays as run, and says so.
  document.body.classList.toggle("equal-by", wanted !== "");
  for (const box of all(".panel, .switch.plain").filter((one) => !one.parentElement.closest(".panel"))) {
    const answers = all(".pane, figure", box).some((one) => one.dataset.axis === wanted);
    box.classList.toggle("as-run", !answers);
  }
  if (wanted) view.set("by", wanted);
  else view.delete("by");
  remember();
}

// A link may lead to what another choice shows.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const pane = target?.closest(".pane[hidden]");
  if (!pane) return;
  const one = switches.find((each) => each.box === pane.parentElement);
  if (one.ranked) equalBy(axis(pane));
  else one.set(axis(pane));
  target.scrollIntoView();
}

// ------------------------------------------------------------------------------------ algorithms

function dimHidden(root = document) {
  all("svg [data-algorithm]", root).forEach((node) => node.classList.toggle("off", hidden.has(node.dataset.algorithm)));
  all(".answer-card", root).forEach((node) => { node.hidden = hidden.has(node.dataset.algorithm); });
  settle(all("tr[data-algorithm]", root));
}

function algorithms(box) {
  for (const input of all("input", box)) {
    input.checked = !hidden.has(input.value);
    input.addEventListener("change", () => {
      if (input.checked) hidden.delete(input.value);
      else hidden.add(input.value);
      view.delete("hide");
      hidden.forEach((name) => view.append("hide", name));
      dimHidden();
      remember();
    });
  }
}

// ------------------------------------------------------------------------------------ charts

const tip = document.getElementById("tip");

function tell(mark) {
  tip.textContent = mark.getAttribute("aria-label");
  tip.hidden = false;
  const at = mark.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left + at.width / 2 - own.width / 2), innerWidth - own.width - 8);
  tip.style.left = `${left}px`;
  tip.style.top = `${at.top > own.height + 16 ? at.top - own.height - 8 : at.bottom + 8}px`;
}

function chart(figure, open) {
  const svg = figure.querySelector(".drawing > svg"), marks = all('[role="img"]', svg);
  const light = (name) => {
    svg.classList.toggle("lit", name !== undefined);
    all("[data-algorithm]", svg).forEach((node) => node.classList.toggle("lit", node.dataset.algorithm === name));
  };
  const leave = () => { tip.hidden = true; light(undefined); };
  const enter = (mark) => { tell(mark); light(mark.dataset.algorithm); };
  const follow = (mark) => {
    const { algorithm, seed, prompt } = mark.dataset;
    leave();
    open(algorithm, seed === undefined ? undefined : Number(seed), prompt);
  };
  for (const mark of marks) {
    mark.addEventListener("pointerenter", () => enter(mark));
    mark.addEventListener("pointerleave", leave);
    mark.addEventListener("focus", () => enter(mark));
    mark.addEventListener("blur", leave);
    mark.addEventListener("click", () => follow(mark));
  }
  if (marks.length) marks[0].tabIndex = 0; // one stop of Tab a chart; arrows go on from there
  svg.addEventListener("keydown", (event) => {
    const now = document.activeElement, shown = marks.filter((mark) => !mark.classList.contains("off"));
    if (!marks.includes(now)) return;
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (by && shown.length) {
      const next = shown[(shown.indexOf(now) + by + shown.length) % shown.length];
      now.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else if (event.key === "Enter" || event.key === " ") follow(now);
    else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
  });
  const save = figure.querySelector(".save");
  save.hidden = false;
  save.addEventListener("click", () => {
    const copy = svg.cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("font-family", "sans-serif");
    all("[tabindex]", copy).forEach((node) => node.removeAttribute("tabindex"));
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
    link.download = `${figure.id}.svg`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

// ------------------------------------------------------------------------------------ behind a number

const explain = document.getElementById("explain");

function explained(link, event) {
  if (!explain.showPopover || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const cell = link.closest("td"), row = cell.parentElement, table = cell.closest("table");
  const title = table.tHead.rows[0].cells[cell.cellIndex].textContent, detail = cell.querySelector("small");
  const method = document.querySelector(link.hash), value = make("p", link.textContent, "value");
  if (detail) value.append(" ", make("small", detail.textContent));
  const exact = cell.dataset.order ? Number(cell.dataset.order) : NaN, { table: file, currency } = cell.closest(".grid").dataset;
  const line = Number.isFinite(exact) ? `Unrounded: ${exact}. ` : "";
  const more = make("a", "All methods");
  more.href = link.hash;
  more.addEventListener("click", () => explain.hidePopover());
  const help = table.tHead.rows[0].cells[cell.cellIndex].title;
  explain.replaceChildren(
    make("h4", `${row.cells[0].textContent.trim()} · ${title.trim()}`), value, ...(help ? [make("p", help)] : []),
    make("strong", method.querySelector("dt").textContent),
    ...[...method.querySelector("dd").children].map((node) => node.cloneNode(true)),
    ...(currency && link.hash !== "#how-equal" ? [document.querySelector("#how-equal dd p").cloneNode(true)] : []),
    make("p", `${line}In tables/${file}.csv, column ${cell.dataset.column}; this cell is ${cell.id}.`, "small"), more,
  );
  const at = link.getBoundingClientRect();
  explain.showPopover();
  const own = explain.getBoundingClientRect();
  explain.style.left = `${Math.min(Math.max(8, at.left), innerWidth - own.width - 8)}px`;
  explain.style.top = `${Math.max(8, at.bottom + own.height + 12 < innerHeight ? at.bottom + 8 : at.top - own.height - 8)}px`;
  more.focus({ preventScroll: true });
}

// ------------------------------------------------------------------------------------ start

function theme(node) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const label = () => { node.textContent = isDark() ? "Light" : "Dark"; };
  node.hidden = false;
  node.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; label(); });
  dark.addEventListener("change", label);
  label();
}

function start() {
  theme(document.getElementById("theme"));
  const print = document.getElementById("print");
  print.hidden = false;
  print.addEventListener("click", () => window.print());
  all(".grid").filter((grid) => grid.querySelector("table.sortable")).forEach((grid) => { sortable(grid); filterable(grid); });
  all(".switch").forEach(switcher);
  document.getElementById("controls").hidden = false;
  const basis = document.getElementById("basis"), ranked = new Set(switches.filter((one) => one.ranked).flatMap((one) => one.axes));
  for (const input of all("input", basis)) {
    input.disabled = input.value !== "" && !ranked.has(input.value);
    if (input.value === view.get("by") && !input.disabled) input.checked = true;
    input.addEventListener("change", () => equalBy(input.value));
  }
  algorithms(document.getElementById("algorithms"));
  for (const section of all("section.part")) {
    const box = section.querySelector(".browser");
    const go = box ? browser(box, data.parts[Number(box.dataset.section)]) : null;
    const open = (name, seed, prompt) => {
      if (go && go(name, seed, prompt)) box.scrollIntoView({ block: "start" });
      else if (prompt !== undefined) { tip.textContent = "This prompt's completions are not kept in the page; samples.parquet has them."; tip.hidden = false; }
    };
    all("figure", section).forEach((figure) => chart(figure, open));
  }
  all(".copy").forEach((node) => { node.hidden = false; node.addEventListener("click", () => copied(node, node.dataset.copy)); });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.how");
    if (link && link.closest("td")) explained(link, event);
  });
  equalBy(basis.querySelector("input:checked").value);
  dimHidden();
  reveal();
  window.addEventListener("hashchange", reveal);
}

start();
