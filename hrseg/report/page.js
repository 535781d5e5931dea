
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

const ONLY_NEW = [204, 121, 167], MENDED = [0, 158, 115], BOTH = [240, 228, 66]; // Okabe and Ito
const VEIL = 0x8cffffff, DARK = 0xa0000000; // over the grey image: right; not counted
const pack = ([r, g, b], alpha = 255) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
const percent = (share, digits = 2) => (share == null ? "–" : (100 * share).toFixed(digits));
const limited = (value, low, high) => Math.min(high, Math.max(low, value));

async function inflate(text, shape) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  const count = shape.reduce((a, b) => a * b, 1);
  return bytes.byteLength === count ? new Uint8Array(bytes) : new Uint16Array(bytes);
}

async function mapsOf(picture) {
  const [target, ...predictions] = await Promise.all(
    [picture.target, ...picture.predictions].map((text) => inflate(text, picture.shape)));
  return { target, predictions };
}

const pictureOf = (data, image) => data.pictures[image.full ?? image.small];

// Where pixels are wrong: orange for what was missed, blue for false alarms, purple where a class is taken for another.
// shown: whether each class counts. Two runs: what is wrong in either, or in both.
function mistakes(data, picture, maps, shown, out) {
  const { target, predictions } = maps, pixels = out.length, several = predictions.length > 1;
  const planes = picture.shape.length === 3 ? picture.shape[0] : 0;
  const { missed, false: added, confused } = data.errors;
  const wrongIn = (map, i) => {
    const truth = target[i], said = map[i];
    if (truth === said || !(shown[truth] || shown[said])) return null;
    const isMissed = truth !== data.background && shown[truth], isAdded = said !== data.background && shown[said] === true;
    return isMissed && isAdded ? confused : isMissed ? missed : added;
  };
  const wrongLabels = (map, i) => {
    let isMissed = false, isAdded = false;
    for (let l = 0; l < planes; l++) {
      const truth = target[l * pixels + i], said = map[l * pixels + i];
      if (truth === data.ignore || !shown[l]) continue;
      isMissed ||= truth === 1 && said !== 1;
      isAdded ||= truth === 0 && said === 1;
    }
    return isMissed && isAdded ? confused : isMissed ? missed : isAdded ? added : null;
  };
  for (let i = 0; i < pixels; i++) {
    let counted = target[i] !== data.ignore;
    for (let l = 1; !counted && l < planes; l++) counted = target[l * pixels + i] !== data.ignore;
    if (!counted) { out[i] = DARK; continue; }
    const wrong = planes ? wrongLabels(predictions[0], i) : wrongIn(predictions[0], i);
    const before = several && (planes ? wrongLabels(predictions[1], i) : wrongIn(predictions[1], i));
    if (several) out[i] = wrong && before ? pack(BOTH, 235) : wrong ? pack(ONLY_NEW, 235) : before ? pack(MENDED, 235) : VEIL;
    else out[i] = wrong ? pack(wrong, 235) : VEIL;
  }
}

function view(data) {
  const several = data.names.length > 1;
  const layers = several ? ["image", "ground truth", ...data.names, "change"] : ["image", "ground truth", "prediction", "errors"];
  const errorLayer = layers.length - 1;
  const state = { image: null, left: several ? 2 : 0, right: several ? 3 : 2, hidden: new Set(), opacity: 1, maps: null,
    zoom: 1, x: 0, y: 0 }; // x, y: the left upper corner, in shares of the picture
  if (data.background !== null) state.hidden.add(data.background);
  const stage = one("#stage"), shape = () => pictureOf(data, state.image).shape.slice(-2);

  // The label map that a layer shows: null for the image and the map of mistakes.
  const mapOf = (layer) => layer === 1 ? state.maps.target : layer > 1 && layer < errorLayer ? state.maps.predictions[layer - 2] : null;

  function colours(map, planes, pixels, out) {
    const table = new Uint32Array(65536);
    data.classes.forEach((c, i) => { table[i] = state.hidden.has(i) ? 0 : pack(c.color); });
    table[data.ignore] = pack(data.ignoredColor, 150);
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

  function draw() {
    const picture = pictureOf(data, state.image), [height, width] = shape();
    const planes = picture.shape.length === 3 ? picture.shape[0] : 0;
    // Hidden classes are left out of the mistakes; a background that is only transparent is not.
    const shown = data.classes.map((_, i) => !state.hidden.has(i) || i === data.background);
    for (const side of ["left", "right"]) {
      const layer = state[side], place = one(`#${side}-layer`), canvas = one("canvas", place);
      canvas.width = width;
      canvas.height = height;
      const drawn = new ImageData(width, height), out = new Uint32Array(drawn.data.buffer);
      const map = mapOf(layer);
      if (map) colours(map, planes, width * height, out);
      else if (layer === errorLayer) mistakes(data, picture, state.maps, shown, out);
      canvas.getContext("2d").putImageData(drawn, 0, 0);
      canvas.style.opacity = map ? state.opacity : 1;
      place.classList.toggle("grey", layer === errorLayer);
    }
    const swatch = (color, text) => make("span", {}, Object.assign(make("i", { className: "swatch" }), { style: `background:rgb(${color})` }), text);
    const key = one("#key");
    if (Math.max(state.left, state.right) < errorLayer) key.replaceChildren();
    else if (several) key.replaceChildren(swatch(ONLY_NEW, `wrong only in ${data.names[0]}`), swatch(MENDED, `wrong only in ${data.names[1]}`), swatch(BOTH, "wrong in both"));
    else {
      const colors = { "missed": data.errors.missed, "false alarm": data.errors.false, "right": [205, 205, 205] };
      key.replaceChildren(...data.errorNames.map((name) => swatch(colors[name] ?? data.errors.confused, name)), swatch([40, 40, 40], "not counted"));
    }
  }

  function move(share) {
    share = limited(share, 0, 100);
    one("#wipe").value = share;
    one("#right-layer").style.clipPath = `inset(0 0 0 ${share}%)`;
    one("#divider").style.left = `${share}%`;
  }

  // zoom: over the size at which the picture fits; around a point of the stage, in shares of it.
  function zoom(to, [across, down] = [0.5, 0.5]) {
    to = limited(to, 1, Math.max(8, 4 * wholePixels()));
    const [x, y] = [state.x + across / state.zoom, state.y + down / state.zoom];
    place(to, x - across / to, y - down / to);
  }
  function place(to, x, y) {
    Object.assign(state, { zoom: to, x: limited(x, 0, 1 - 1 / to), y: limited(y, 0, 1 - 1 / to) });
    const scale = to / wholePixels(); // pixels of the screen for a pixel of the picture
    for (const layer of all(".layer")) {
      layer.classList.toggle("large", scale >= 3);
      for (const part of layer.children) part.style.transform = `scale(${to}) translate(${-100 * state.x}%, ${-100 * state.y}%)`;
    }
    stage.classList.toggle("moved", to > 1);
  }
  const wholePixels = () => shape()[1] / Math.max(1, stage.clientWidth); // the zoom at which each pixel has one of the screen's

  async function show(number) {
    const image = data.images[number], picture = pictureOf(data, image);
    if (!picture) return;
    state.image = image;
    const maps = await mapsOf(picture);
    if (state.image !== image) return; // another was chosen meanwhile
    state.maps = maps;
    const [height, width] = shape();
    one("#viewer").classList.toggle("tall", height > width);
    const room = `${Math.round(78 * width / height)}vh`;
    stage.style.aspectRatio = `${width} / ${height}`;
    stage.style.maxWidth = `min(100%, ${room})`;
    one("#viewer").style.setProperty("--width", room);
    all(".layer img").forEach((img) => { img.src = picture.photo; });
    one("#left-layer img").alt = image.name;
    one("#picture-name").textContent = image.name;
    const scores = data.names.map((name, i) => `${several ? name : "mean IoU"} ${percent(image.iou[i])} %`);
    if (!several) scores.push(`costs the score ${image.cost[0] == null ? "–" : image.cost[0].toFixed(2)} points`);
    if (!several && image.false) scores.push(`${image.false.toLocaleString("en")} false pixels on a clean image`);
    if (image.full == null) scores.push("small copy");
    one("#picture-score").textContent = scores.join(", ");
    one("#pixel").textContent = "";
    all("#strip button").forEach((button) => button.setAttribute("aria-pressed", Number(button.dataset.image) === number));
    place(1, 0, 0);
    draw();
  }

  const at = (event) => { // of the pointer in the stage and in the picture, in shares
    const box = stage.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
    return { across, down, x: state.x + across / state.zoom, y: state.y + down / state.zoom };
  };

  function pixel(event) {
    const picture = pictureOf(data, state.image), [height, width] = shape(), pointer = at(event);
    const x = Math.floor(pointer.x * width), y = Math.floor(pointer.y * height);
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

  for (const group of data.groups) {
    if (!several) one("#strip").append(make("h3", { textContent: group.title }));
    for (const number of group.images) {
      const image = data.images[number];
      const change = several ? 100 * (image.iou[0] - image.iou[1]) : null;
      const told = several ? [(change > 0 ? "+" : "") + change.toFixed(1), "change"] : image.false && group.title.startsWith("Clean")
        ? [image.false.toLocaleString("en"), "false pixels"] : [percent(image.iou[0], 1), `costs ${(image.cost[0] ?? 0).toFixed(2)}`];
      const button = make("button", { type: "button", title: image.name },
        make("img", { src: pictureOf(data, image).photo, alt: image.name }),
        make("span", {}, make("span", { textContent: told[1] }), make("b", { textContent: told[0] })));
      button.dataset.image = number;
      button.addEventListener("click", () => show(number));
      one("#strip").append(button);
    }
  }

  const chips = data.classes.map((c, i) => {
    const swatch = make("i", { className: "swatch" });
    swatch.style.background = `rgb(${c.color})`;
    const chip = make("button", { type: "button" }, swatch, c.name);
    chip.setAttribute("aria-pressed", !state.hidden.has(i));
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
  one("#closer").addEventListener("click", () => zoom(1.5 * state.zoom));
  one("#farther").addEventListener("click", () => zoom(state.zoom / 1.5));
  one("#pixels").addEventListener("click", () => zoom(Math.max(1, wholePixels() / devicePixelRatio)));
  one("#fit").addEventListener("click", () => place(1, 0, 0));

  // One pointer moves the divider, or a picture that is zoomed; two zoom.
  const pointers = new Map();
  let dividing = false;
  stage.addEventListener("pointerdown", (event) => {
    if (event.target.closest("#zoom")) return;
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    const { across } = at(event);
    dividing = state.zoom === 1 || event.target.id === "divider" || Math.abs(across - one("#wipe").value / 100) * stage.clientWidth < 14;
    if (dividing && pointers.size === 1) move(100 * across);
    pixel(event);
  });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    pixel(event);
    if (!before) return;
    if (pointers.size === 2) {
      const other = [...pointers.entries()].find(([id]) => id !== event.pointerId)[1];
      const apart = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
      const [a, b] = [at(event), at(other)];
      zoom(state.zoom * apart(event) / Math.max(1, apart(before)), [(a.across + b.across) / 2, (a.down + b.down) / 2]);
    } else if (dividing) move(100 * at(event).across);
    else {
      const [now, then] = [at(event), at(before)];
      place(state.zoom, state.x + then.x - now.x, state.y + then.y - now.y);
    }
    pointers.set(event.pointerId, event);
  });
  for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, (event) => pointers.delete(event.pointerId));
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls; a pinch on a touchpad has ctrlKey
    event.preventDefault();
    const { across, down } = at(event);
    zoom(state.zoom * Math.exp(-event.deltaY / 200), [across, down]);
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => {
    if (event.target.closest("#zoom")) return;
    const { across, down } = at(event);
    if (state.zoom > 1) place(1, 0, 0);
    else zoom(Math.max(2, wholePixels()), [across, down]);
  });
  stage.addEventListener("keydown", (event) => {
    const step = 0.1 / state.zoom;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key === "+" || event.key === "=") zoom(1.5 * state.zoom);
    else if (event.key === "-") zoom(state.zoom / 1.5);
    else if (state.zoom > 1 && moves[event.key]) place(state.zoom, state.x + moves[event.key][0], state.y + moves[event.key][1]);
    else return;
    event.preventDefault();
  });
  stage.addEventListener("dragstart", (event) => event.preventDefault());

  one("#viewer").hidden = false;
  move(50);
  const first = data.groups[0]?.images[0] ?? data.images.findIndex((image) => pictureOf(data, image));
  if (first >= 0) show(first);
  return show;
}

function gallery(data, show) {
  const PER_PAGE = 24, several = data.names.length > 1;
  const state = { sorted: [], page: 0, down: true, drawing: 0 };
  const keys = [
    several ? ["change of mean IoU", (image) => image.iou[0] == null || image.iou[1] == null ? null : image.iou[0] - image.iou[1]]
      : ["cost, points of mean IoU", (image) => image.cost[0]],
    ["mean IoU", (image) => image.iou[0]],
    ...(data.images.some((image) => image.false) ? [["false pixels on clean images", (image) => image.false]] : []),
    ["name", (image) => image.name],
    ...data.classes.map((c, k) => [`IoU of ${c.name}`, (image) => ofClass(image, k), c.there]).filter((key) => key[2]),
  ];
  const ofClass = (image, k, run = 0) => { const found = image.of[run].find((pair) => pair[0] === k); return found ? found[1] / 1000 : null; };
  keys.forEach(([name], i) => one("#sort").append(make("option", { value: i, textContent: name })));

  function sort() {
    const value = keys[one("#sort").value][1], sign = state.down ? -1 : 1;
    const part = one("#filter").value.toLowerCase();
    state.sorted = data.images.map((image, number) => ({ image, number, value: value(image) }))
      .filter(({ image }) => image.name.toLowerCase().includes(part))
      .sort((a, b) => a.value == null || b.value == null ? (a.value == null) - (b.value == null)
        : sign * (typeof a.value === "string" ? a.value.localeCompare(b.value) : a.value - b.value));
    state.page = 0;
    draw();
  }

  async function draw() {
    const turn = ++state.drawing, pages = Math.max(1, Math.ceil(state.sorted.length / PER_PAGE));
    const shown = state.sorted.slice(state.page * PER_PAGE, (state.page + 1) * PER_PAGE);
    const chosen = Number(one("#sort").value), isClass = keys[chosen][0].startsWith("IoU of ");
    one("#cells").replaceChildren(...shown.map(({ image, number, value }) => {
      const picture = pictureOf(data, image);
      const thumb = picture ? make("canvas", { className: "thumb" }) : make("span", { className: "thumb" });
      const iou = several ? `${percent(image.iou[0], 1)} / ${percent(image.iou[1], 1)}` : `${percent(image.iou[0], 1)} %`;
      const lines = [make("span", {}, "mean IoU", make("span", { textContent: iou }))];
      if (isClass) lines.push(make("span", {}, keys[chosen][0].slice(7), make("span", { textContent: `${percent(value, 1)} %` })));
      else if (image.false) lines.push(make("span", {}, "false pixels", make("span", { textContent: image.false.toLocaleString("en") })));
      else lines.push(make("span", {}, "costs", make("span", { textContent: image.cost[0] == null ? "–" : image.cost[0].toFixed(3) })));
      const button = make("button", { type: "button", title: image.name, disabled: !picture }, thumb,
        make("span", { className: "about" }, make("b", { textContent: image.name }), ...lines));
      button.addEventListener("click", () => { show(number); one("#pictures").scrollIntoView(); });
      return make("li", {}, button);
    }));
    const of = data.all > data.images.length ? `; of ${data.all} images those that cost most` : "";
    one("#found").textContent = `${state.sorted.length} images${of}. Errors are drawn as in the picture above.`;
    one("#page").textContent = `${state.page + 1} of ${pages}`;
    one("#before").disabled = state.page === 0;
    one("#after").disabled = state.page >= pages - 1;
    one("#order").textContent = state.down ? "↓" : "↑";
    const canvases = all("#cells .thumb");
    for (const [i, { image }] of shown.entries()) {
      const picture = data.pictures[image.small ?? image.full];
      if (!picture) continue;
      const maps = await mapsOf(picture), photo = Object.assign(new Image(), { src: picture.photo });
      await photo.decode();
      if (turn !== state.drawing) return; // another page was chosen meanwhile
      const [height, width] = picture.shape.slice(-2), canvas = Object.assign(canvases[i], { width, height });
      const context = canvas.getContext("2d"), drawn = new ImageData(width, height);
      mistakes(data, picture, maps, data.classes.map(() => true), new Uint32Array(drawn.data.buffer));
      const veil = new Uint32Array(drawn.data.buffer);
      for (let p = 0; p < veil.length; p++) if (veil[p] === VEIL) veil[p] = 0; // the photo as it is where all is right
      context.drawImage(photo, 0, 0, width, height);
      context.drawImage(await createImageBitmap(drawn), 0, 0);
    }
  }

  // Text in quotes; one that a spreadsheet would compute gets an apostrophe in front.
  const cell = (value) => value == null ? "" : typeof value === "number" ? String(value)
    : `"${(/^[=+\-@\t\r]/.test(value) ? `'${value}` : value).replaceAll('"', '""')}"`;
  function csv() {
    const runs = data.names.map((name, i) => several ? `${name}: ` : "");
    const head = ["image", ...runs.flatMap((run) => [`${run}mean IoU`, `${run}cost in points`]), "false pixels on a clean image",
      ...runs.flatMap((run) => data.classes.map((c) => `${run}IoU ${c.name}`))];
    const rows = state.sorted.map(({ image }) => [image.name, ...data.names.flatMap((_, i) => [image.iou[i], image.cost[i]]), image.false,
      ...data.names.flatMap((_, i) => data.classes.map((_, k) => ofClass(image, k, i)))]);
    const text = [head, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
    const link = make("a", { href: URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" })), download: "images.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  one("#sort").addEventListener("change", () => { state.down = keys[one("#sort").value][0].startsWith("cost") || keys[one("#sort").value][0].startsWith("false"); sort(); });
  one("#order").addEventListener("click", () => { state.down = !state.down; sort(); });
  one("#filter").addEventListener("input", sort);
  one("#csv").addEventListener("click", csv);
  one("#before").addEventListener("click", () => { state.page--; draw(); });
  one("#after").addEventListener("click", () => { state.page++; draw(); });
  one("#gallery").hidden = false;
  sort();
}

const data = JSON.parse(one("#data").textContent);
gallery(data, data.pictures.length ? view(data) : () => {});

// A page of a training that goes on loads itself again, but not while somebody works with it.
const live = one("#live");
if (live) {
  let touched = 0;
  for (const kind of ["pointerdown", "keydown", "wheel"]) addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
  setInterval(() => { if (Date.now() - touched > 60000) location.reload(); }, 1000 * live.dataset.every);
}
