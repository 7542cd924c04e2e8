"use strict";
// Completions side by side. Text from a model is only ever set as text: no innerHTML, no attribute that could hold a script.

const SIGNED = new Set(["gold_reward", "train_reward"]);
const WORDS = { kl: "KL", length_tokens: "tokens" };

// Words with the space after them: which of `b` are new and which of `a` are gone, by the longest common subsequence.
function difference(a, b) {
  const left = a.match(/\S+\s*|\s+/g) ?? [], right = b.match(/\S+\s*|\s+/g) ?? [], n = left.length, m = right.length;
  const table = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--)
    for (let j = m - 1; j >= 0; j--)
      table[i][j] = left[i] === right[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
  const parts = [];
  const add = (tag, text) => {
    if (parts.length && parts.at(-1)[0] === tag) parts.at(-1)[1] += text;
    else if (text) parts.push([tag, text]);
  };
  let i = 0, j = 0;
  while (i < n || j < m) {
    if (i < n && j < m && left[i] === right[j]) { add("span", right[j]); i++; j++; }
    else if (i < n && (j === m || table[i + 1][j] >= table[i][j + 1])) add("del", left[i++]);
    else add("ins", right[j++]);
  }
  return parts;
}

function browser(box, part) {
  if (!part || !part.prompts.length) {
    box.replaceChildren(make("p", "No completions were kept."));
    return null;
  }
  const trained = part.algorithms.filter((name) => name !== part.baseline);
  const sign = part.higher ? 1 : -1;
  const at = (prompt, name, seed) => prompt.completions[name]?.find((one) => one.seed === seed);
  const base = (prompt, seed) => part.baseline && (at(prompt, part.baseline, seed) ?? prompt.completions[part.baseline]?.[0]);
  const score = (one, metric) => one?.scores[metric];
  // What a preset looks for: a number for one completion, the highest of which is shown; undefined where there is none.
  const minus = (a, b) => (a === undefined || b === undefined ? undefined : a - b);
  const gain = (prompt, one) => part.baseline
    ? minus(score(one, part.primary), score(base(prompt, one.seed), part.primary)) : score(one, part.primary);
  const presets = [
    ["Biggest win", (prompt, one) => { const g = gain(prompt, one); return g === undefined ? g : sign * g; }],
    ["Biggest loss", (prompt, one) => { const g = gain(prompt, one); return g === undefined ? g : -sign * g; }],
    ["Proxy over gold", (_, one) => { const gap = minus(score(one, "train_reward"), score(one, "gold_reward")); return gap > 0 ? gap : undefined; }],
    ["Highest KL", (_, one) => score(one, "kl")],
  ];
  const every = (name) => part.prompts.flatMap((prompt, index) => (prompt.completions[name] ?? []).map((one) => [prompt, index, one]));
  const state = { index: 0, name: trained[0] ?? part.algorithms[0], seed: null };

  const [nameBox, names] = choice("algorithm", (trained.length ? trained : part.algorithms).map((name) => [name, name]));
  const [seedBox, seeds] = choice("seed", []);
  const [promptBox, prompts] = choice("prompt", []);
  const find = make("input");
  find.type = "search";
  find.autocomplete = "off";
  const findBox = make("label", "find in prompts and completions");
  findBox.append(find);
  const diff = make("input");
  diff.type = "checkbox";
  const diffBox = make("label", undefined, "check");
  diffBox.append(diff, part.baseline ? `mark what differs from ${part.baseline}` : "mark what differs from the first");
  const where = make("p", "", "where");
  where.setAttribute("aria-live", "polite");
  const text = make("p", "", "prompt"), cards = make("div", undefined, "cards");
  text.tabIndex = 0;

  const found = () => {
    const wanted = find.value.toLowerCase();
    const holds = (prompt) => [prompt.id, prompt.prompt, ...Object.values(prompt.completions).flat().map((one) => one.text)]
      .some((one) => one.toLowerCase().includes(wanted));
    return part.prompts.map((prompt, i) => i).filter((i) => !wanted || holds(part.prompts[i]));
  };
  const fill = (select, options) => select.replaceChildren(...options.map(([value, shown]) => option(value, shown)));
  const fillPrompts = () => {
    const kept = found();
    fill(prompts, kept.map((i) => [i, `${part.prompts[i].id}: ${part.prompts[i].prompt.slice(0, 60)}`]));
    if (kept.length && !kept.includes(state.index)) show({ index: kept[0] });
    else { prompts.value = String(state.index); tell(); }
  };
  const tell = () => {
    const kept = found();
    where.textContent = kept.length ? `${kept.indexOf(state.index) + 1} of ${kept.length} prompts kept in this page` : "no prompt matches";
  };

  const card = (prompt, name, one, other) => {
    const node = make("article", undefined, name === state.name ? "answer-card focus" : "answer-card");
    const head = make("h3", name), body = make("p"), scores = make("dl");
    node.dataset.algorithm = name;
    head.append(make("span", `seed ${one.seed}`));
    body.tabIndex = 0;
    if (diff.checked && other && other !== one) body.append(...difference(other.text, one.text).map(([tag, piece]) => make(tag, piece)));
    else body.textContent = one.text || "(empty)";
    for (const [metric, value] of Object.entries(one.scores)) {
      // A change against what is shown beside it: of a control with one seed the start of that seed may not be.
      const change = SIGNED.has(metric) && other !== one && other?.seed === one.seed ? minus(value, other.scores[metric]) : undefined;
      const told = change === undefined ? "" : ` (${number(change, true)})`;
      scores.append(make("dt", WORDS[metric] ?? metric.replaceAll("_", " ")), make("dd", number(value) + told));
    }
    if (one.end) scores.append(make("dt", "end"), make("dd", one.end));
    node.append(head, body, scores);
    return node;
  };

  const show = (change) => {
    Object.assign(state, change);
    const prompt = part.prompts[state.index];
    const own = prompt.completions[state.name] ?? [];
    if (!own.some((one) => one.seed === state.seed)) state.seed = own[0]?.seed ?? null;
    names.value = state.name;
    fill(seeds, own.map((one) => [one.seed, String(one.seed)]));
    seeds.value = String(state.seed);
    prompts.value = String(state.index);
    text.textContent = prompt.prompt;
    const present = part.algorithms.filter((name) => prompt.completions[name]?.length);
    // The starting policy first, then the one that is looked at, then the others by rank.
    const order = [part.baseline, state.name, ...present].filter((name, i, all) => present.includes(name) && all.indexOf(name) === i);
    const shown = order.map((name) => [name, at(prompt, name, state.seed) ?? prompt.completions[name][0]]);
    cards.replaceChildren(...shown.map(([name, one]) => card(prompt, name, one, shown[0][1])));
    tell();
    dimHidden(cards);
  };
  const extreme = (measure, name = state.name) => {
    let best = null, most = -Infinity;
    for (const [prompt, index, one] of every(name)) {
      const value = measure(prompt, one);
      if (value !== undefined && value > most) [most, best] = [value, { index, seed: one.seed }];
    }
    return best;
  };
  const preset = (measure) => {
    find.value = "";
    fillPrompts();
    const best = extreme(measure);
    show(best ?? {});
    if (!best) where.textContent = `none of ${state.name} in this page`;
  };
  const step = (by) => {
    const kept = found();
    if (kept.length) show({ index: kept[(kept.indexOf(state.index) + by + kept.length) % kept.length] });
  };
  const random = () => {
    const all = every(state.name), [, index, one] = all[Math.floor(Math.random() * all.length)] ?? [];
    if (one) { find.value = ""; fillPrompts(); show({ index, seed: one.seed }); }
  };
  names.addEventListener("change", () => { state.name = names.value; preset(presets[0][1]); });
  seeds.addEventListener("change", () => show({ seed: Number(seeds.value) }));
  prompts.addEventListener("change", () => show({ index: Number(prompts.value) }));
  find.addEventListener("input", fillPrompts);
  diff.addEventListener("change", () => show({}));

  const first = make("div", undefined, "row"), second = make("div", undefined, "row");
  const offered = presets.filter(([, measure]) => part.algorithms.some((name) => extreme(measure, name)));
  first.append(nameBox, ...offered.map(([title, measure]) => button(title, () => preset(measure))), button("Random", random));
  second.append(promptBox, seedBox, button("Previous", () => step(-1)), button("Next", () => step(1)), findBox, diffBox, where);
  box.replaceChildren(first, second, text, cards);
  fillPrompts();
  preset(presets[0][1]);
  if (state.seed === null) show({ index: 0 });

  // What a chart's mark opens: an algorithm's biggest win, of one seed or on one prompt where the mark names them.
  return (name, seed, prompt) => {
    if (!part.algorithms.includes(name)) return false;
    const index = prompt === undefined ? -1 : part.prompts.findIndex((one) => one.id === prompt);
    if (prompt !== undefined && index < 0) return false;
    find.value = "";
    state.name = name;
    fillPrompts();
    if (index >= 0) show({ index, name, ...(seed === undefined ? {} : { seed }) });
    else {
      const measure = presets[0][1];
      const best = extreme((one, answer) => (seed !== undefined && answer.seed !== seed ? undefined : measure(one, answer)));
      show({ name, ...(best ?? {}) });
    }
    return true;
  };
}
