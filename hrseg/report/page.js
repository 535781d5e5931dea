
"use strict";
const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// What stands in attributes and text is set by the DOM, never parsed as HTML.
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

one("#theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

for (const table of all("table.sortable")) {
  all("thead th", table).forEach((head, column) => {
    const button = make("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") === "descending" || (column === 0 && !head.hasAttribute("aria-sort"));
      all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const compare = (a, b) => (column ? value(a) - value(b) : value(a).localeCompare(value(b)));
      const rows = all("tbody tr", table).sort((a, b) => (rising ? compare(a, b) : compare(b, a)));
      one("tbody", table).append(...rows);
    });
  });
}

const WRONG = [213, 94, 0], MENDED = [0, 114, 178], BOTH = [240, 228, 66]; // Okabe and Ito
const VEIL = 0x8cffffff, DARK = 0xa0000000; // over the grey image: right; not counted
const pack = ([r, g, b], alpha = 255) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;

async function inflate(text, shape) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  const count = shape.reduce((a, b) => a * b, 1);
  return bytes.byteLength === count ? new Uint8Array(bytes) : new Uint16Array(bytes);
}

function view(data) {
  const several = data.names.length > 1;
  const layers = ["image", "ground truth"];
  if (several) {
    layers.push(data.names[1], data.names[0], "change");
  } else {
    layers.push("prediction", "errors");
  }
  const state = { picture: 0, left: several ? 2 : 0, right: several ? 3 : 2, hidden: new Set(), opacity: 1, maps: null };

  // The label map that a layer shows: null for the image and the maps of mistakes.
  const mapOf = (layer) => {
    if (layer === 1) return state.maps.target;
    if (several) return layer === 2 ? state.maps.predictions[1] : layer === 3 ? state.maps.predictions[0] : null;
    return layer === 2 ? state.maps.predictions[0] : null;
  };

  function colours(map, planes, pixels, out) {
    const table = new Uint32Array(65536);
    data.classes.forEach((c, i) => { table[i] = state.hidden.has(i) ? 0 : pack(c.color); });
    table[data.ignore] = pack([0, 0, 0], 150);
    if (!planes) {
      for (let i = 0; i < pixels; i++) out[i] = table[map[i]];
      return;
    }
    for (let i = 0; i < pixels; i++) { // labels that overlap: their mean colour
      let r = 0, g = 0, b = 0, n = 0;
      for (let l = 0; l < planes; l++) {
        if (map[l * pixels + i] === 1 && !state.hidden.has(l)) {
          const c = data.classes[l].color;
          r += c[0]; g += c[1]; b += c[2]; n++;
        }
      }
      out[i] = n ? pack([r / n, g / n, b / n]) : 0;
    }
  }

  function mistakes(planes, pixels, out) {
    const { target, predictions } = state.maps;
    const shown = data.classes.map((_, i) => !state.hidden.has(i));
    const right = (map, i) => map[i] === target[i] || !(shown[target[i]] || shown[map[i]]);
    for (let i = 0; i < pixels; i++) {
      let counted = false, wrong = false, before = false;
      for (let l = 0; l < (planes || 1); l++) {
        const at = l * pixels + i;
        if (target[at] === data.ignore) continue;
        counted = true;
        if (planes && !shown[l]) continue;
        wrong ||= planes ? predictions[0][at] !== target[at] : !right(predictions[0], at);
        before ||= several && (planes ? predictions[1][at] !== target[at] : !right(predictions[1], at));
      }
      if (!counted) out[i] = DARK;
      else if (wrong) out[i] = pack(before ? BOTH : WRONG, 235);
      else out[i] = before ? pack(MENDED, 235) : VEIL;
    }
  }

  function draw() {
    const picture = data.pictures[state.picture];
    const [height, width] = picture.shape.slice(-2);
    const planes = picture.shape.length === 3 ? picture.shape[0] : 0;
    for (const side of ["left", "right"]) {
      const layer = state[side], place = one(`#${side}-layer`), canvas = one("canvas", place);
      canvas.width = width;
      canvas.height = height;
      const drawn = new ImageData(width, height), out = new Uint32Array(drawn.data.buffer);
      const map = mapOf(layer);
      if (map) colours(map, planes, width * height, out);
      else if (layer > 1) mistakes(planes, width * height, out);
      canvas.getContext("2d").putImageData(drawn, 0, 0);
      canvas.style.opacity = map ? state.opacity : 1;
      place.classList.toggle("grey", layer === 4 || (layer === 3 && !several));
    }
    const swatch = (color, text) => make("span", {}, Object.assign(make("i", { className: "swatch" }), { style: `background:rgb(${color})` }), text);
    const seen = Math.max(state.left, state.right);
    const key = one("#key");
    if (several && seen === 4) key.replaceChildren(swatch(WRONG, `wrong only in ${data.names[0]}`), swatch(MENDED, `wrong only in ${data.names[1]}`), swatch(BOTH, "wrong in both"));
    else if (!several && seen === 3) key.replaceChildren(swatch(WRONG, "wrong"), swatch([205, 205, 205], "right"), swatch([40, 40, 40], "not counted"));
    else key.replaceChildren();
  }

  function move(share) {
    share = Math.min(100, Math.max(0, share));
    one("#wipe").value = share;
    one("#right-layer").style.clipPath = `inset(0 0 0 ${share}%)`;
    one("#divider").style.left = `${share}%`;
  }

  async function show(number) {
    state.picture = number;
    const picture = data.pictures[number];
    const maps = await Promise.all([picture.target, ...picture.predictions].map((text) => inflate(text, picture.shape)));
    if (state.picture !== number) return; // another was chosen meanwhile
    state.maps = { target: maps[0], predictions: maps.slice(1) };
    const [height, width] = picture.shape.slice(-2);
    one("#stage").style.aspectRatio = `${width} / ${height}`;
    one("#stage").style.maxWidth = `min(100%, ${Math.round(78 * width / height)}vh)`;
    all(".layer img").forEach((img) => { img.src = picture.photo; });
    one("#left-layer img").alt = picture.name;
    one("#picture-name").textContent = picture.name;
    one("#picture-score").textContent = data.names.map((name, i) => `${several ? name : "mean IoU"} ${percent(picture.ious[i])} %`).join(", ");
    one("#pixel").textContent = "";
    all("#strip button").forEach((button, i) => button.setAttribute("aria-pressed", i === number));
    draw();
  }

  const percent = (share) => (share == null ? "–" : (100 * share).toFixed(2));

  function pixel(event) {
    const box = one("#stage").getBoundingClientRect();
    const picture = data.pictures[state.picture], [height, width] = picture.shape.slice(-2);
    const x = Math.floor((event.clientX - box.left) / box.width * width), y = Math.floor((event.clientY - box.top) / box.height * height);
    if (!state.maps || x < 0 || y < 0 || x >= width || y >= height) return;
    const named = (map) => {
      if (picture.shape.length === 2) return data.classes[map[y * width + x]]?.name ?? "not counted";
      return data.classes.filter((_, l) => map[(l * height + y) * width + x] === 1).map((c) => c.name).join(" + ") || "nothing";
    };
    const told = state.maps.predictions.map((map, i) => `${several ? data.names[i] : "prediction"}: ${named(map)}`);
    one("#pixel").textContent = [`ground truth: ${named(state.maps.target)}`, ...told].join(" · ");
  }

  for (const side of ["left", "right"]) {
    const choices = make("div", { className: "choices" });
    layers.forEach((name, i) => {
      const input = make("input", { type: "radio", name: side, checked: state[side] === i });
      input.addEventListener("change", () => { state[side] = i; draw(); });
      choices.append(make("label", {}, input, make("span", { textContent: name })));
    });
    one(`#${side}`).append(choices);
  }

  data.pictures.forEach((picture, i) => {
    const change = several && picture.ious[0] != null && picture.ious[1] != null ? 100 * (picture.ious[0] - picture.ious[1]) : null;
    const told = several ? (change === null ? "–" : (change > 0 ? "+" : "") + change.toFixed(1)) : percent(picture.ious[0]);
    const button = make("button", { type: "button", title: picture.name },
      make("img", { src: picture.photo, alt: picture.name }),
      make("span", {}, make("span", { textContent: picture.kind ?? "change" }), make("b", { textContent: told })));
    button.addEventListener("click", () => show(i));
    one("#strip").append(button);
  });

  const chips = data.classes.map((c, i) => {
    const swatch = make("i", { className: "swatch" });
    swatch.style.background = `rgb(${c.color})`;
    const chip = make("button", { type: "button" }, swatch, c.name);
    chip.setAttribute("aria-pressed", "true");
    chip.addEventListener("click", () => { set(i, state.hidden.has(i)); draw(); });
    return chip;
  });
  one("#legend").append(...chips.filter((_, i) => data.classes[i].there));
  function set(i, visible) {
    state.hidden[visible ? "delete" : "add"](i);
    chips[i].setAttribute("aria-pressed", visible);
  }
  for (const [id, visible] of [["#all", true], ["#none", false]]) {
    one(id).addEventListener("click", () => { chips.forEach((_, i) => set(i, visible)); draw(); });
  }

  one("#wipe").addEventListener("input", (event) => move(Number(event.target.value)));
  one("#opacity").addEventListener("input", (event) => { state.opacity = event.target.value / 100; draw(); });
  const stage = one("#stage");
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    move((event.clientX - box.left) / box.width * 100);
  };
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); follow(event); pixel(event); });
  stage.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); pixel(event); });
  stage.addEventListener("dragstart", (event) => event.preventDefault());

  one("#viewer").hidden = false;
  move(50);
  show(0);
}

const data = one("#data");
if (data) view(JSON.parse(data.textContent));
