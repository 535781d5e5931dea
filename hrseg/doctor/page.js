"use strict";
(() => {
  const one = (selector) => document.querySelector(selector);
  const data = JSON.parse(one("#data").textContent);
  const MARKS = { accept: "✓", take: "→", ignore: "∅" };
  const store = `hrseg-doctor-${data.key}`;
  const decisions = new Map();
  let current = -1;

  const make = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  function load() {
    try {
      for (const [id, decision] of Object.entries(JSON.parse(localStorage.getItem(store) || "{}"))) {
        if (decision in MARKS && data.suspects[id]) decisions.set(Number(id), decision);
      }
    } catch { /* no storage: decisions last as long as the page */ }
  }

  function keep() {
    try { localStorage.setItem(store, JSON.stringify(Object.fromEntries(decisions))); } catch { /* as above */ }
  }

  const what = (s) => (s.label === null ? s.kind : `${s.label} → ${s.said}`);
  const rows = data.suspects.map((s, n) => {
    const row = make("li", {}, what(s), make("small", { textContent: `${n + 1}. ${s.kind}, ${s.image}` }));
    row.addEventListener("click", () => show(n));
    return row;
  });

  function mark(n) {
    const decision = decisions.get(n);
    if (decision) { rows[n].dataset.decision = decision; rows[n].dataset.mark = MARKS[decision]; }
    else { delete rows[n].dataset.decision; delete rows[n].dataset.mark; }
  }

  function count() {
    one("#count").textContent = `${decisions.size} of ${data.suspects.length} decided`;
  }

  function wanted(n) {
    const s = data.suspects[n], name = one("#class").value, kind = one("#kind").value, state = one("#state").value;
    return (!name || s.label === name || s.said === name) && (!kind || s.kind === kind)
      && (!state || decisions.has(n) === (state === "done"));
  }

  function filter() {
    rows.forEach((row, n) => { row.hidden = !wanted(n); });
    if (current < 0 || rows[current].hidden) step(1, -1);
  }

  function step(by, from = current) {
    for (let n = from + by; n >= 0 && n < rows.length; n += by) if (!rows[n].hidden) return show(n);
    if (from === -1) show(-1);
    return undefined;
  }

  function stack(place, ...pictures) {
    one(place).replaceChildren(...pictures.map(([source, kind, alt]) => make("img", { src: source, className: kind, alt: alt || "" })));
  }

  function named(place, name) {
    const swatch = make("i", { className: "swatch" });
    if (name in data.colors) swatch.style.background = data.colors[name];
    one(place).replaceChildren(...(name === null ? ["several"] : [swatch, ` ${name}`]));
  }

  function show(n) {
    if (current >= 0) rows[current].removeAttribute("aria-current");
    current = n;
    one("#suspect").hidden = n < 0;
    if (n < 0) return;
    const s = data.suspects[n], outline = [s.outline, "outline"];
    rows[n].setAttribute("aria-current", "true");
    rows[n].scrollIntoView({ block: "nearest" });
    one("#title").textContent = `${n + 1}. ${s.kind}${s.detail ? `, ${s.detail}` : ""}`;
    one("#where").textContent = `${s.image}; rows ${s.box[0]} to ${s.box[2]}, columns ${s.box[1]} to ${s.box[3]}, `
      + `${s.area} pixels; the model is ${Math.round(100 * s.sure)} % sure; score ${s.score.toFixed(2)}`;
    stack("#photo", [s.photo, "", "photo"], outline);
    stack("#label", [s.photo, ""], [s.label_picture, "classes", "classes of the label"], outline);
    stack("#said", [s.photo, ""], [s.said_picture, "classes", "classes of the model"], outline);
    named("#label-name", s.label);
    named("#said-name", s.said);
    fade();
    pressed();
  }

  function pressed() {
    for (const button of document.querySelectorAll("[data-decision]")) {
      if (button.tagName === "BUTTON") button.setAttribute("aria-pressed", String((decisions.get(current) || "leave") === button.dataset.decision));
    }
  }

  function fade() {
    for (const picture of document.querySelectorAll(".classes")) picture.style.opacity = one("#opacity").value / 100;
  }

  function decide(decision) {
    if (current < 0) return;
    const n = current;
    if (decision === "leave") decisions.delete(n); else decisions.set(n, decision);
    mark(n); keep(); count(); pressed();
    step(1, n);
    if (one("#state").value) rows[n].hidden = !wanted(n);
  }

  function save() {
    const listed = [...decisions].sort((a, b) => a[0] - b[0]).map(([n, decision]) => {
      const s = data.suspects[n];
      return { id: s.id, image: s.image, mask_sha256: s.mask_sha256, decision };
    });
    const text = JSON.stringify({ format: data.format, key: data.key, folder: data.folder, decisions: listed }, null, 1);
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: "decisions.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const KEYS = { a: () => decide("accept"), t: () => decide("take"), i: () => decide("ignore"), l: () => decide("leave"),
    j: () => step(1), k: () => step(-1), ArrowDown: () => step(1), ArrowUp: () => step(-1) };
  document.addEventListener("keydown", (event) => {
    const inField = ["SELECT", "INPUT"].includes(event.target.tagName);
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || inField || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });

  for (const button of document.querySelectorAll("button[data-decision]")) button.addEventListener("click", () => decide(button.dataset.decision));
  for (const id of ["#class", "#kind", "#state"]) one(id).addEventListener("change", filter);
  one("#opacity").addEventListener("input", fade);
  one("#save").addEventListener("click", save);
  const classes = new Set(data.suspects.flatMap((s) => [s.label, s.said]).filter((name) => name !== null));
  one("#class").append(...[...classes].sort().map((name) => make("option", { value: name, textContent: name })));
  one("#kind").append(...data.kinds.map((name) => make("option", { value: name, textContent: name })));
  load();
  rows.forEach((_, n) => mark(n));
  one("#list").append(...rows);
  one("main").hidden = false;
  count();
  filter();
})();
