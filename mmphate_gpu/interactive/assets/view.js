// The state of the picture, and when it is drawn: all dots while it stands still, as many as go in time while it moves.

const state = {
  color: facts.color, epoch: E - 1, trail: E - 1, timestep: -1, highlighted: new Set(), hidden: new Set(),
  flat: facts.components < 3, camera: firstCamera(), theme: "system", playing: false,
};
const canvas = document.getElementById("canvas");
const FRAME = 1000 / 30; // milliseconds
const LEAST = Math.min(N, 20000); // dots of a frame: fewer would hardly take less time
const STILL = 160; // milliseconds after which the picture counts as still

let scene = null; // the renderer with its data
let budget = N; // dots of a picture that moves
let drawn = 0; // dots of the last picture
let lastMove = -Infinity;
let lastFrame = 0;
let requested = false;
let next = 0; // the first dot of the next frame
let grid = null; // of the screen; null after each change
let paths = null; // lines of the highlighted units; null after each change
let table = []; // the color of each code
const listeners = []; // called after each change of the state

function viewSize() {
  const box = canvas.getBoundingClientRect();
  return { width: Math.max(1, box.width), height: Math.max(1, box.height), flat: state.flat };
}

/** Change the state, tell who listens, and draw. */
function update(changes, moving = false) {
  Object.assign(state, changes);
  if (["color", "highlighted", "hidden", "theme"].some((name) => name in changes)) colorAgain();
  grid = null;
  if (["color", "highlighted", "theme", "epoch", "timestep"].some((name) => name in changes)) paths = null;
  if (moving) lastMove = performance.now();
  listeners.forEach((listener) => listener(changes));
  requestDraw();
}

function colorAgain() {
  table = colorTable(colorings[state.color]);
  scene?.gl.setColors(nodeColors(colorings[state.color], scene.order, scene.missing));
}

/** Draw in the next frame: a part of the dots while the picture moves, and then the other dots, a part a frame. */
function requestDraw(first = 0) {
  next = first;
  if (requested || !scene) return;
  requested = true;
  requestAnimationFrame((now) => {
    requested = false;
    if (!scene) return; // the graphics have been lost meanwhile
    const moving = now - lastMove < STILL;
    if (moving && now - lastFrame < 500) adapt(now - lastFrame);
    lastFrame = now;
    drawScene(next, Math.min(N, next + budget));
    if (moving) requestDraw();
    else if (drawn < N) requestDraw(drawn);
  });
}

/** Fewer dots if the last frame came late, more if it came in time. */
function adapt(interval) {
  if (interval > 1.3 * FRAME) budget = Math.max(LEAST, Math.floor(0.7 * budget));
  else if (interval < 0.9 * FRAME && budget < N) budget = Math.min(N, Math.ceil(1.1 * budget));
}

/** The diameter of a dot in pixels: dots without overlap would cover a part of the picture. */
function dotSize(view) {
  const window = Math.min(state.trail, state.epoch) + 1;
  const shown = Math.max(1, (N * window) / E / (state.timestep < 0 ? 1 : T));
  const size = Math.sqrt((0.3 * view.width * view.height) / shown);
  return Math.max(2, Math.min(9, size)) * Math.min(3, Math.max(1, state.camera.zoom) ** 0.4);
}

function groundColor() {
  return rgbOf(isDark() ? facts.ground.dark : facts.ground.light).map((v) => v / 255);
}

/** Draw the dots `first` to `end` of the buffers, from a clear ground if `first` is 0. */
function drawScene(first, end, ratio = Math.min(2, devicePixelRatio || 1)) {
  const view = viewSize();
  const matrix = boxToClip(state.camera, view);
  const ground = groundColor();
  if (first === 0) {
    scene.gl.begin(Math.round(view.width * ratio), Math.round(view.height * ratio), ground);
    const faint = rgbOf(isDark() ? "3a3e45" : "d9dbde").map((v) => v / 255);
    if (!state.flat) scene.gl.drawLines(boxEdges(), matrix, [[ratio, [...faint, 1]]]);
  }
  const settings = {
    matrix: bitsToClip(matrix), ground, epoch: state.epoch, trail: state.trail, timestep: state.timestep,
    fade: state.trail < E - 1 ? 1 : 0, size: dotSize(view) * ratio, flat: state.flat, opacity: state.flat ? 0.85 : 1,
  };
  if (state.highlighted.size) {
    scene.gl.drawDots(first, end, { ...settings, pass: 0 });
    paths ??= pathSegments();
    scene.gl.drawLines(paths, matrix, [[5 * ratio, [...ground, 1]], [2 * ratio, [0, 0, 0, 0]]]);
    scene.gl.drawDots(0, end, { ...settings, pass: 1 });
  } else scene.gl.drawDots(first, end, { ...settings, pass: -1 });
  drawn = end;
  drawCompass();
}

/** The twelve edges of the box around all dots. */
function boxEdges() {
  const edges = [];
  for (let axis = 0; axis < 3; axis++) {
    for (let other = 0; other < 4; other++) {
      const corner = [0, 0, 0];
      corner[(axis + 1) % 3] = other & 1 ? 1 : -1;
      corner[(axis + 2) % 3] = other & 2 ? 1 : -1;
      const end = (sign) => corner.map((c, i) => (i === axis ? sign : c) * Math.max(facts.extent[i], 0.02));
      edges.push(...end(-1), ...end(1), 0, 0, 0, 0, 0, 0);
    }
  }
  return new Float32Array(edges);
}

/** Lines of the highlighted units: through the epochs at a time step, and through the time steps of the epoch. */
function pathSegments() {
  const timestep = state.timestep < 0 ? T - 1 : state.timestep;
  const segments = [];
  for (const unit of state.highlighted) {
    const through = (count, slice) => path(segments, Array.from({ length: count }, (_, i) => slice(i) * M + unit));
    through(E, (e) => e * T + timestep);
    if (state.timestep < 0) through(T, (t) => state.epoch * T + t);
  }
  return new Float32Array(segments);
}

function path(segments, nodes) {
  const placed = nodes.filter((node) => !scene.missing(node));
  for (let i = 1; i < placed.length; i++) {
    const [a, b] = [placed[i - 1], placed[i]];
    segments.push(...boxPoint(a), ...boxPoint(b), ...nodeColor(a), ...nodeColor(b));
  }
}

function nodeColor(node) {
  const coloring = colorings[state.color];
  const code = codeOf(coloring, node);
  if (coloring.codes && code === MISSING) return missingColor().map((v) => v / 255);
  return table[coloring.names ? code : Math.floor((code * 255) / 65534)].map((v) => v / 255);
}

/** A node in the box, each coordinate from -1 to 1. */
function boxPoint(node) {
  return [0, 1, 2].map((axis) => (scene.bits[axis] ? (scene.bits[axis][node] / 65534) * 2 - 1 : 0));
}

function isVisible(node) {
  const { epoch, timestep } = placeOf(node);
  const age = state.epoch - epoch;
  if (age < 0 || age > state.trail || (state.timestep >= 0 && timestep !== state.timestep)) return false;
  if (scene.missing(node)) return false;
  const coloring = colorings[state.color];
  return !state.hidden.size || !state.hidden.has(codeOf(coloring, node));
}

/** [x, y, depth] of a node on the canvas in CSS pixels. */
function projected(node, matrix, view) {
  const [x, y, z] = boxPoint(node);
  const row = (i) => matrix[i] * x + matrix[4 + i] * y + matrix[8 + i] * z + matrix[12 + i];
  const w = row(3);
  return [(row(0) / w + 1) * 0.5 * view.width, (1 - row(1) / w) * 0.5 * view.height, row(2) / w];
}

/** The node at the pixel, or -1. */
function pick(x, y) {
  if (!scene) return -1;
  const view = viewSize();
  grid ??= screenGrid(view, (add) => visitVisible(boxToClip(state.camera, view), view, add));
  const radius = dotSize(view) / 2;
  return grid.nearest(x, y, Math.max(10, radius + 4), radius);
}

/**
 * Call add(node, x, y, depth) for each node that is drawn. The depth says what covers what: in the plane, newer epochs
 * while a trail fades, else what is drawn later; highlighted units lie above pale ones. It makes no objects, since this
 * runs for all nodes.
 */
function visitVisible(matrix, view, add) {
  const [bx, by, bz] = scene.bits;
  const m = bitsToClip(matrix).map((v, i) => (i < 12 ? v / 65535 : v));
  const coloring = colorings[state.color];
  const someHighlighted = state.highlighted.size > 0;
  for (let k = 0; k < S; k++) {
    const slice = scene.order[k];
    const age = state.epoch - Math.floor(slice / T);
    if (age < 0 || age > state.trail || (state.timestep >= 0 && slice % T !== state.timestep)) continue;
    const flatDepth = state.trail < E - 1 ? age / E : -k / S;
    for (let node = slice * M; node < (slice + 1) * M; node++) {
      if (bx[node] === MISSING || (state.hidden.size && state.hidden.has(codeOf(coloring, node)))) continue;
      const [x, y, z] = [bx[node], by[node], bz ? bz[node] : 32767];
      const w = m[3] * x + m[7] * y + m[11] * z + m[15];
      const across = (m[0] * x + m[4] * y + m[8] * z + m[12]) / w;
      const upward = (m[1] * x + m[5] * y + m[9] * z + m[13]) / w;
      const depth = state.flat ? flatDepth : (m[2] * x + m[6] * y + m[10] * z + m[14]) / w;
      const behind = someHighlighted && !state.highlighted.has(node - slice * M) ? 4 : 0;
      add(node, (across + 1) * 0.5 * view.width, (1 - upward) * 0.5 * view.height, depth + behind);
    }
  }
}
