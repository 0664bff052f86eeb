// The color of every node, by what the menu says.

/** What nodes can be colored by: the axes, the most active class and the columns. */
const colorings = facts.colorings;

function isDark() {
  return state.theme === "system" ? matchMedia("(prefers-color-scheme: dark)").matches : state.theme === "dark";
}

function rgbOf(hex) {
  const number = parseInt(hex.slice(-6), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

/** A color of a map, `share` of the way along the part that is clear on the ground. */
function mapColor(map, share) {
  const hexes = facts.maps[map].match(/.{6}/g);
  const [low, high] = isDark() ? facts.parts[map].dark : facts.parts[map].light;
  const place = (low + share * (high - low)) * (hexes.length - 1);
  const i = Math.min(Math.floor(place), hexes.length - 2);
  const [a, b] = [rgbOf(hexes[i]), rgbOf(hexes[i + 1])];
  return a.map((v, axis) => Math.round(v + (place - i) * (b[axis] - v)));
}

function missingColor() {
  return rgbOf(isDark() ? facts.missing.dark : facts.missing.light);
}

/** A color for each code of a coloring. */
function colorTable(coloring) {
  const palette = isDark() ? facts.palette.dark : facts.palette.light;
  const count = coloring.names ? countOf(coloring) : 256;
  const few = coloring.categories && count <= palette.length;
  const color = (i) => {
    if (few) return rgbOf(palette[i]);
    const share = coloring.values ? shareOf(coloring, coloring.values[i]) : count > 1 ? i / (count - 1) : 0.5;
    return mapColor(coloring.map, share);
  };
  return Array.from({ length: count }, (_, i) => color(i));
}

function countOf(coloring) {
  return Array.isArray(coloring.names) ? coloring.names.length : coloring.names.count;
}

function shareOf(coloring, value) {
  const half = coloring.high / 2 - coloring.low / 2; // the difference of two huge numbers is infinite, and its half not
  return half > 0 ? (value / 2 - coloring.low / 2) / half : 0.5;
}

/** The code of a node: an index of its names, or 16 bits of its number. */
function codeOf(coloring, node) {
  const item = coloring.of === "node" ? node : placeOf(node)[coloring.of];
  return coloring.codes ? coloring.codes[item] : item;
}

/** What a tooltip says of a node. */
function textOf(coloring, node) {
  const code = codeOf(coloring, node);
  if (code === MISSING && coloring.codes) return "missing";
  if (coloring.names) return nameOf(coloring.names, code);
  const share = code / 65534;
  return shortNumber(coloring.low * (1 - share) + coloring.high * share, 5);
}

function shortNumber(value, digits) {
  return String(Number(value.toPrecision(digits)));
}

/** Four bytes for each node in the order of the buffers. The fourth is 255; 128 for a pale node, and 0 for a hidden one. */
function nodeColors(coloring, order, missingPlace) {
  const table = colorTable(coloring);
  const bytes = new Uint8Array(4 * N);
  const gray = missingColor();
  const quantized = !coloring.names;
  const some = state.highlighted.size > 0;
  const pale = Uint8Array.from({ length: M }, (_, m) => (some && !state.highlighted.has(m) ? 128 : 255));
  let b = 0;
  for (let k = 0; k < S; k++) {
    const [epoch, timestep] = [Math.floor(order[k] / T), order[k] % T];
    const item = coloring.of === "epoch" ? epoch : coloring.of === "timestep" ? timestep : -1;
    for (let m = 0; m < M; m++, b += 4) {
      const node = order[k] * M + m;
      const place = item >= 0 ? item : coloring.of === "unit" ? m : node;
      const code = coloring.codes ? coloring.codes[place] : place;
      const known = !coloring.codes || code !== MISSING;
      const color = known ? table[quantized ? (code * 255 / 65534) | 0 : code] : gray;
      bytes[b] = color[0];
      bytes[b + 1] = color[1];
      bytes[b + 2] = color[2];
      bytes[b + 3] = missingPlace(node) || state.hidden.has(known ? code : MISSING) ? 0 : pale[m];
    }
  }
  return bytes;
}
