// Begin: unpack, draw the first picture, and set `window.mmphate`, which the tests use.

/** Numbers of the components in the lower left corner; in 3-D they turn with the picture. */
function drawCompass() {
  if (facts.components === 1) return drawTicks(viewSize());
  const compass = $("compass");
  const { right, up } = directions(state.camera, state.flat);
  const length = 30;
  const shapes = [];
  for (let axis = 0; axis < (state.flat ? 2 : 3); axis++) {
    const [x, y] = [right[axis] * length, -up[axis] * length];
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    for (const [name, value] of Object.entries({ x1: 0, y1: 0, x2: x, y2: y })) line.setAttribute(name, value);
    const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
    const far = Math.hypot(x, y) > 8 ? 1.36 : 1.8;
    text.setAttribute("x", x * far);
    text.setAttribute("y", y * far);
    text.textContent = String(axis + 1);
    shapes.push(line, text);
  }
  compass.setAttribute("viewBox", state.flat ? "-12 -50 140 66" : "-50 -50 100 100");
  compass.classList.toggle("flat", state.flat);
  compass.replaceChildren(...shapes);
}

/** Labels of time below a picture of one component, [share of the axis, name] each, and the names of the axes. */
function drawTicks(view) {
  const matrix = boxToClip(state.camera, view);
  const half = facts.extent[0];
  const marks = facts.ticks.map(([share, name]) => {
    const mark = element("span", { textContent: name, dir: "auto" });
    mark.style.left = `${((matrix[0] * (2 * share - 1) * half + matrix[12]) + 1) * 0.5 * view.width}px`;
    return mark;
  });
  const names = facts.names.map((name, axis) => element("b", { textContent: name, className: "xy"[axis] }));
  $("ticks").replaceChildren(...marks, ...names);
}

/** Write the picture with its title and key as a PNG file. */
function savePicture() {
  if (!scene) return;
  const ratio = 2;
  drawScene(0, N, ratio);
  const legend = legendLines();
  const view = viewSize();
  const side = legend.length ? 190 : 0;
  const paper = element("canvas", { width: (view.width + side) * ratio, height: view.height * ratio });
  const pen = paper.getContext("2d");
  pen.scale(ratio, ratio);
  pen.fillStyle = css(groundColor().map((v) => Math.round(v * 255)));
  pen.fillRect(0, 0, view.width + side, view.height);
  pen.drawImage(canvas, 0, 0, view.width, view.height);
  requestDraw();
  pen.textBaseline = "middle";
  writeTicks(pen);
  pen.font = "600 15px system-ui, sans-serif";
  pen.fillStyle = isDark() ? "#e8eaed" : "#262626";
  pen.fillText(facts.title, 16, 22, view.width - 32);
  pen.font = "12px system-ui, sans-serif";
  legend.forEach(([color, name], i) => {
    const y = 54 + 20 * i;
    if (color) {
      pen.fillStyle = css(color);
      pen.fillRect(view.width + 8, y - 6, 12, 12);
    }
    pen.fillStyle = isDark() ? "#e8eaed" : "#262626";
    pen.fillText(name, view.width + (color ? 28 : 8), y, side - 40);
  });
  paper.toBlob((blob) => {
    const link = element("a", { download: "mmphate.png", href: URL.createObjectURL(blob) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
}

/** The labels of the axes of one component, where the page has them. */
function writeTicks(pen) {
  const from = canvas.getBoundingClientRect();
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = isDark() ? "#a2a8b0" : "#5f6368";
  for (const mark of $("ticks").querySelectorAll("span, .x")) {
    const box = mark.getBoundingClientRect();
    pen.fillText(mark.textContent, box.left - from.left, (box.top + box.bottom) / 2 - from.top, box.width);
  }
}

/** [color, name] of the key in a PNG file, as many as have room. */
function legendLines() {
  const coloring = colorings[state.color];
  const lines = [[null, coloring.name]];
  const table = colorTable(coloring);
  const room = Math.max(2, Math.floor((viewSize().height - 80) / 20));
  if (coloring.categories) {
    const shown = table.map((color, code) => [color, nameOf(coloring.names, code), code]).filter(([, , code]) => !state.hidden.has(code));
    if (coloring.missing && !state.hidden.has(MISSING)) shown.push([missingColor(), "missing"]);
    lines.push(...shown.slice(0, room));
    if (shown.length > room) lines.push([null, `and ${shown.length - room} more`]);
  } else {
    lines.push(...ticks(coloring).map(([share, name]) => [mapColor(coloring.map, share), name]));
  }
  return lines;
}

/** The arrays of the buffers: positions and places, slice by slice in the order `order`. */
function buffersOf(bits, order) {
  const positions = new Uint16Array(4 * N);
  const places = new Uint32Array(2 * N);
  let b = 0;
  for (let k = 0; k < S; k++) {
    const [epoch, timestep] = [Math.floor(order[k] / T), order[k] % T];
    for (let node = order[k] * M; node < (order[k] + 1) * M; node++, b++) {
      for (let axis = 0; axis < 3; axis++) positions[4 * b + axis] = bits[axis] ? bits[axis][node] : 32767;
      places[2 * b] = epoch;
      places[2 * b + 1] = timestep;
    }
  }
  return [positions, places];
}

function fail(text) {
  $("failure").textContent = text;
  $("failure").hidden = false;
  canvas.hidden = true;
}

function publicState() {
  const { color, epoch, trail, timestep, highlighted, hidden, flat, camera, theme, playing } = state;
  return {
    color: colorings[color].name, epoch, trail, timestep, highlighted: [...highlighted], hidden: [...hidden],
    dimension: flat ? 2 : 3, camera: { ...camera, center: [...camera.center] }, theme, dark: isDark(), playing, drawn, total: N,
  };
}

async function begin() {
  fillControls();
  if (!("DecompressionStream" in window)) return fail("This browser is too old for the picture: it cannot unpack its data.");
  const blocks = blocksOf(await unpacked());
  const bits = blocks.slice(0, facts.positions);
  colorings.forEach((coloring) => {
    if (Number.isInteger(coloring.block)) coloring.codes = blocks[coloring.block];
  });
  const order = sliceOrder();
  const buffers = buffersOf(bits, order);
  const software = isSoftware();
  if (software === null) {
    return fail("This browser does not offer WebGL2, which draws the picture. Try another browser, or turn on graphics acceleration in its settings.");
  }
  const restart = () => {
    scene = { gl: renderer(canvas, ...buffers, software), bits, order, missing: (node) => bits[0][node] === MISSING };
    colorAgain();
    requestDraw();
  };
  restart();
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault(); // so that the browser restores it
    scene = null;
  });
  canvas.addEventListener("webglcontextrestored", restart);
  watchPointers();
  watchKeys();
  new ResizeObserver(() => update({})).observe(canvas);
  return firstPicture(software);
}

/** All dots, but 40,000 of them where the processor draws; the other dots follow, a part a frame. */
async function firstPicture(software) {
  if (software) budget = Math.min(N, 40000);
  const start = performance.now();
  drawScene(0, budget);
  await pictureDone();
  const first = { milliseconds: performance.now(), drawn: budget };
  budget = Math.max(LEAST, Math.min(N, Math.floor((budget * FRAME) / Math.max(1, first.milliseconds - start))));
  if (drawn < N) requestDraw(drawn);
  return first;
}

/** Waits for the graphics. Reading a pixel would do so too, but some drivers then warn in the console. */
async function pictureDone() {
  const gl = canvas.getContext("webgl2");
  const sync = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
  gl.flush();
  while (!gl.isContextLost() && gl.getSyncParameter(sync, gl.SYNC_STATUS) === gl.UNSIGNALED) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

function timed(work) {
  const start = performance.now();
  work();
  scene.gl.finish();
  return performance.now() - start;
}

window.mmphate = {
  ready: begin().catch((error) => {
    fail(`The picture cannot be drawn: ${error.message}`);
    throw error;
  }),
  state: publicState,
  draw: () => timed(() => drawScene(0, N)),
  pick: (x, y) => {
    const node = pick(x, y);
    return node < 0 ? -1 : rowOf(node);
  },
  project: (row) => {
    const node = nodeOf(row);
    const view = viewSize();
    return !scene || node < 0 || !isVisible(node) ? null : projected(node, boxToClip(state.camera, view), view).slice(0, 2);
  },
};
