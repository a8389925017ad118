"use strict";
// Draws the charts, and shows the documents. Texts are only ever set as text, never as markup.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // --- Charts: those in sight first, one at a time, so that the page answers meanwhile ---
  // The interpreter (ast) evaluates expressions without eval, which the page's policy forbids.
  const options = { mode: "vega", renderer: "svg", actions: false, ast: true };
  const waiting = read("specs");
  const isShown = (chart) => document.getElementById(chart.id).parentElement.offsetParent !== null;
  const draw = async (wanted) => {
    for (const chart of waiting.filter(wanted)) {
      waiting.splice(waiting.indexOf(chart), 1);
      await vegaEmbed("#" + chart.id, chart.spec, options);
      await new Promise((resolve) => setTimeout(resolve));
    }
  };
  const ready = draw(isShown).then(() => { document.body.dataset.ready = "yes"; });
  for (const input of document.querySelectorAll("input[name=axis]")) {
    input.addEventListener("change", () => {
      document.body.dataset.axis = input.value;
      ready.then(() => draw(isShown));
    });
  }

  // --- Documents ---
  const list = document.getElementById("documents");
  if (!list) return;
  const search = document.getElementById("search");
  const place = document.getElementById("place");
  const group = document.getElementById("group");
  const matches = document.getElementById("matches");
  const texts = read("texts");
  const addChoices = (select, values) => {
    for (const value of new Set(values)) select.append(new Option(value, value));
  };
  addChoices(place, texts.map((each) => each.place));
  addChoices(group, texts.map((each) => each.group).filter((name) => name !== null));

  const spelled = (value) => (value === null || value === undefined ? "none" : Number(value.toPrecision(4)).toString());
  const shown = texts.map((each) => {
    const made = element("details");
    const summary = element("summary");
    const [first, score] = Object.entries(each.scores)[0] || ["", null];
    const start = element("span", "start", each.text.slice(0, 200).replace(/\s+/g, " ") || "(no text)");
    start.dir = "auto";
    summary.append(start, element("span", "value", `${first} ${spelled(score)}`));
    const scores = Object.entries(each.scores).slice(1).map(([name, value]) => `, ${name} ${spelled(value)}`).join("");
    const tokens = each.tokens ? `, ${each.tokens.toLocaleString("en")} tokens` : "";
    summary.append(element("span", "about", `${each.place} · ${each.group === null ? "" : each.group + " · "}${each.name}${tokens}${scores}`));
    made.append(summary);
    made.addEventListener("toggle", () => {
      if (!made.open || made.querySelector("pre")) return;
      const body = element("pre", "", each.text);
      body.dir = "auto";
      body.tabIndex = 0;
      made.append(body);
      if (each.length > each.text.length) {
        made.append(element("p", "lead", `The first ${each.text.length.toLocaleString("en")} of ${each.length.toLocaleString("en")} characters.`));
      }
    });
    list.append(made);
    return { each, made, words: (each.text + "\n" + each.name).toLowerCase() };
  });

  // A list of 200 would hide what comes after it: it is opened by a button.
  const FIRST = 20;
  const more = element("button", "more");
  more.type = "button";
  list.after(more);
  let most = FIRST;
  more.addEventListener("click", () => { most = Infinity; filter(); });

  const filter = () => {
    const words = search.value.toLowerCase();
    let count = 0;
    for (const { each, made, words: all } of shown) {
      const fits = (!place.value || each.place === place.value) && (!group.value || each.group === group.value) && all.includes(words);
      count += fits;
      made.hidden = !fits || count > most;
    }
    more.hidden = count <= most;
    more.textContent = `Show all ${count}`;
    matches.textContent = `${count} of ${shown.length} documents`;
  };
  for (const input of [search, place, group]) input.addEventListener("input", () => { most = FIRST; filter(); });
  filter();
})();
