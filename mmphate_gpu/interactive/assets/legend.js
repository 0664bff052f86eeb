// The key of the colors: buttons that hide and show, or a bar with numbers.

const MOST = 2000; // entries of a legend

function element(name, properties = {}, ...children) {
  const result = Object.assign(document.createElement(name), properties);
  result.append(...children);
  return result;
}

function css(rgb) {
  return `rgb(${rgb.join(" ")})`;
}

function drawLegend() {
  const legend = document.getElementById("legend");
  const coloring = colorings[state.color];
  legend.replaceChildren(...(coloring.categories ? entries(coloring) : bar(coloring)));
  if (coloring.missing) legend.append(entry("missing", missingColor(), MISSING));
}

function entries(coloring) {
  const table = colorTable(coloring);
  const list = table.slice(0, MOST).map((color, code) => entry(nameOf(coloring.names, code), color, code));
  const rest = table.length - list.length;
  if (rest > 0) list.push(element("p", { textContent: `and ${rest.toLocaleString("en")} more` }));
  return list;
}

/** A button of one class; a press hides or shows it, and a press with shift shows it alone among classes. */
function entry(name, color, code) {
  const swatch = element("span", { className: "swatch" });
  swatch.style.background = css(color);
  const text = element("span", { className: "name", dir: "auto", textContent: name || "(empty)", title: name });
  const button = element("button", { type: "button", className: "entry" }, swatch, text);
  button.setAttribute("aria-pressed", String(!state.hidden.has(code)));
  button.addEventListener("click", (event) => update({ hidden: toggled(code, event.shiftKey) }));
  button.dataset.code = code;
  return button;
}

function toggled(code, alone) {
  const hidden = new Set(state.hidden);
  const coloring = colorings[state.color];
  if (alone && coloring.categories) {
    const all = Array.from({ length: countOf(coloring) }, (_, i) => i);
    const others = [...all, ...(coloring.missing ? [MISSING] : [])].filter((i) => i !== code);
    return others.every((i) => hidden.has(i)) ? new Set() : new Set(others);
  }
  if (!hidden.delete(code)) hidden.add(code);
  return hidden;
}

function bar(coloring) {
  const steps = Array.from({ length: 24 }, (_, i) => css(mapColor(coloring.map, i / 23)));
  const strip = element("div", { className: "bar" });
  strip.style.background = `linear-gradient(to right, ${steps.join(", ")})`;
  const marks = element("div", { className: "marks" });
  for (const [share, name] of ticks(coloring)) {
    const mark = element("span", { textContent: name, dir: "auto", title: name });
    if (share < 0.02) mark.className = "first";
    else if (share > 0.98) mark.className = "last";
    else mark.style.left = `${100 * share}%`;
    marks.append(mark);
  }
  return [strip, marks];
}

/** [share of the way, name] of the ticks of a bar. */
function ticks(coloring) {
  if (coloring.names && !countOf(coloring)) return []; // all values are missing
  if (!coloring.names || coloring.values) {
    const [low, high] = [coloring.low, coloring.high];
    if (!(high > low)) return [[0.5, shortNumber(low, 5)]];
    if (high - low === Infinity) return [low, high].map((v, i) => [i, shortNumber(v, 4)]);
    const step = roundStep((high - low) / 3);
    const inner = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) inner.push(k * step);
    const clear = inner.filter((v) => v - low > 0.2 * (high - low) && high - v > 0.2 * (high - low));
    return [low, ...clear, high].map((v) => [(v - low) / (high - low), shortNumber(v, 4)]);
  }
  const last = countOf(coloring) - 1;
  if (last < 1) return [[0, nameOf(coloring.names, 0)]];
  const names = [0, last].map((i) => nameOf(coloring.names, i));
  const few = names.some((name) => name.length > 8) ? 1 : 4;
  const step = Math.max(1, roundStep(last / few));
  const inner = [];
  for (let i = step; i < last - 0.5 * step; i += step) inner.push(i);
  return [0, ...(few > 1 ? inner : []), last].map((i) => [i / last, nameOf(coloring.names, i)]);
}

function roundStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((digit) => digit * power >= rough * 0.999);
}
