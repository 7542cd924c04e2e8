"use strict";
// Text from a model is only ever set as text: no innerHTML, no attribute that could hold a script.
const data = JSON.parse(document.getElementById("completions-data").textContent);

const make = (tag, text, className) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
};

const button = (text, onClick) => {
  const node = make("button", text);
  node.type = "button";
  node.addEventListener("click", onClick);
  return node;
};

const choice = (label, options, onChange) => {
  const box = make("label", label), select = make("select");
  for (const [value, text] of options) {
    const option = make("option", text);
    option.value = value;
    select.append(option);
  }
  select.addEventListener("change", onChange);
  box.append(select);
  return [box, select];
};

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => {
    const numeric = head.classList.contains("number");
    const before = head.getAttribute("aria-sort");
    const first = numeric ? "descending" : "ascending";
    const order = before === null ? first : before === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[index].dataset.order;
    const missing = (row) => numeric && Number.isNaN(Number.parseFloat(key(row)));
    const rows = [...body.rows].sort((a, b) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      return sign * (numeric ? key(a) - key(b) : key(a).localeCompare(key(b)));
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    body.append(...rows);
  }));
}

function switcher(box) {
  const panes = [...box.querySelectorAll(".pane")];
  if (panes.length < 2) return;
  const controls = make("div", undefined, "controls");
  controls.setAttribute("role", "group");
  controls.setAttribute("aria-label", box.dataset.label);
  const buttons = panes.map((pane) => button(pane.dataset.axis, () => show(pane)));
  const show = (chosen) => panes.forEach((pane, i) => {
    pane.hidden = pane !== chosen;
    buttons[i].setAttribute("aria-pressed", String(pane === chosen));
  });
  controls.append(...buttons);
  box.prepend(controls);
  show(panes[0]);
}

function browser(box) {
  const section = data[Number(box.dataset.section)];
  if (!section || !section.prompts.length) {
    box.replaceChildren(make("p", "No completions were kept."));
    return;
  }
  const trained = section.algorithms.filter((name) => name !== section.baseline);
  const score = (prompt, name) => prompt.completions[name]?.scores[section.primary];
  const gain = (prompt) => {
    const own = score(prompt, focus.value), base = section.baseline ? score(prompt, section.baseline) : 0;
    return own === undefined || base === undefined ? undefined : (section.higher ? 1 : -1) * (own - base);
  };
  const extreme = (sign) => {
    const known = section.prompts.map((prompt, i) => [gain(prompt), i]).filter(([value]) => value !== undefined);
    if (known.length) show(known.reduce((a, b) => (sign * b[0] > sign * a[0] ? b : a))[1]);
  };
  const names = section.prompts.map((prompt, i) => [i, `${prompt.id}: ${prompt.prompt.slice(0, 60)}`]);
  const [promptBox, select] = choice("prompt", names, () => show(Number(select.value)));
  const [focusBox, focus] = choice("algorithm", trained.map((name) => [name, name]), () => extreme(1));
  const against = section.baseline ? ` over ${section.baseline}` : "";
  const controls = make("div", undefined, "controls");
  controls.append(
    focusBox,
    button(`Biggest win${against}`, () => extreme(1)),
    button("Biggest loss", () => extreme(-1)),
    button("Random", () => show(Math.floor(Math.random() * section.prompts.length))),
    promptBox,
  );
  const prompt = make("p", "", "prompt"), cards = make("div", undefined, "cards");
  const card = (name, completion) => {
    const node = make("article", undefined, "card"), head = make("h4", name), scores = make("dl");
    head.append(make("span", `seed ${completion.seed}`));
    for (const [metric, value] of Object.entries(completion.scores)) {
      const shown = Number.isInteger(value) ? String(value) : value.toFixed(3);
      scores.append(make("dt", metric.replaceAll("_", " ").replace("kl", "KL")));
      scores.append(make("dd", shown.replace("-", "−")));
    }
    if (completion.end) scores.append(make("dt", "end"), make("dd", completion.end));
    node.append(head, make("p", completion.text || "(empty)"), scores);
    return node;
  };
  const show = (index) => {
    const chosen = section.prompts[index];
    select.value = String(index);
    prompt.textContent = chosen.prompt;
    const present = section.algorithms.filter((name) => name in chosen.completions);
    cards.replaceChildren(...present.map((name) => card(name, chosen.completions[name])));
  };
  box.replaceChildren(controls, prompt, cards);
  if (trained.length) extreme(1);
  else show(0);
}

function theme(node) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const label = () => { node.textContent = isDark() ? "Light" : "Dark"; };
  node.hidden = false;
  node.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; label(); });
  dark.addEventListener("change", label);
  label();
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".switch").forEach(switcher);
document.querySelectorAll(".browser").forEach(browser);
theme(document.getElementById("theme"));
