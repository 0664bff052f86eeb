// Mouse, pen, fingers and keys on the picture.

const pointers = new Map(); // pointer id -> [x, y]
let travelled = 0; // pixels since the first finger went down

/** Whether the pointer has moved less than a hand trembles. */
function rests(event) {
  return travelled <= (event.pointerType === "touch" ? 10 : 3);
}

function local(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function watchPointers() {
  listeners.push(hideTooltip);
  canvas.addEventListener("pointerdown", (event) => {
    if (!pointers.size) travelled = 0;
    pointers.set(event.pointerId, local(event));
    canvas.setPointerCapture(event.pointerId);
    hideTooltip();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) {
      hover(local(event));
      return;
    }
    const before = [...pointers.values()];
    const [x, y] = local(event);
    const [px, py] = pointers.get(event.pointerId);
    travelled += Math.hypot(x - px, y - py);
    pointers.set(event.pointerId, [x, y]);
    if (pointers.size > 1) pinch(before.slice(0, 2), [...pointers.values()].slice(0, 2));
    else if (!rests(event)) drag(x - px, y - py, state.flat || event.shiftKey || event.buttons === 2);
  });
  canvas.addEventListener("pointerup", (event) => {
    const single = pointers.size === 1;
    pointers.delete(event.pointerId);
    if (single && rests(event)) choose(local(event));
  });
  canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
  // A finger leaves when it is lifted; what it has asked for stays.
  canvas.addEventListener("pointerleave", (event) => event.pointerType === "touch" || hideTooltip());
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    // In a frame, such as that of a notebook, the wheel scrolls the page around it until the picture has been clicked.
    if (window.top !== window && document.activeElement !== canvas) return;
    event.preventDefault();
    const pixels = event.deltaMode === 1 ? 20 * event.deltaY : event.deltaY;
    move(zoomAt(state.camera, viewSize(), Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0015)), ...local(event)));
  }, { passive: false });
}

function move(camera) {
  update({ camera }, true);
}

function drag(dx, dy, moves) {
  move(moves ? pan(state.camera, viewSize(), dx, dy) : turn(state.camera, dx * 0.008, dy * 0.008));
}

function pinch([a, b], [c, d]) {
  const middle = (p, q) => [(p[0] + q[0]) / 2, (p[1] + q[1]) / 2];
  const apart = (p, q) => Math.max(10, Math.hypot(p[0] - q[0], p[1] - q[1]));
  const [from, to] = [middle(a, b), middle(c, d)];
  const moved = pan(state.camera, viewSize(), to[0] - from[0], to[1] - from[1]);
  move(zoomAt(moved, viewSize(), apart(c, d) / apart(a, b), ...to));
}

/** A click or a tap highlights the unit under it, or shows all again. */
function choose([x, y]) {
  const node = pick(x, y);
  if (node < 0) {
    update({ highlighted: new Set() });
    return;
  }
  toggleUnit(node % M);
  showTooltip(node);
}

let hoverTimer = 0;

/** The tooltip follows at once where the grid of the screen stands, and after a pause where it has to be made. */
function hover([x, y]) {
  clearTimeout(hoverTimer);
  const show = () => {
    const node = pick(x, y);
    canvas.classList.toggle("over", node >= 0);
    if (node < 0) hideTooltip();
    else showTooltip(node);
  };
  if (grid) show();
  else if (!state.playing) hoverTimer = setTimeout(show, 60);
}

function hideTooltip() {
  $("tooltip").hidden = $("marker").hidden = true;
}

function showTooltip(node) {
  const tooltip = $("tooltip");
  const rows = colorings.flatMap((coloring) => [
    element("dt", { textContent: coloring.name, dir: "auto" }),
    element("dd", { textContent: textOf(coloring, node) || "(empty)", dir: "auto" }),
  ]);
  tooltip.replaceChildren(element("dl", {}, ...rows));
  tooltip.hidden = $("marker").hidden = false;
  const view = viewSize();
  const [x, y] = projected(node, boxToClip(state.camera, view), view);
  const [width, height] = [tooltip.offsetWidth, tooltip.offsetHeight];
  const left = x + 14 + width > view.width ? x - 14 - width : x + 14;
  $("marker").style.translate = `${x}px ${y}px`;
  tooltip.style.left = `${Math.max(4, Math.min(view.width - width - 4, left))}px`;
  tooltip.style.top = `${Math.max(4, Math.min(view.height - height - 4, y - height / 2))}px`;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function watchKeys() {
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) drag(20 * arrow[0], 20 * arrow[1], state.flat || event.shiftKey);
    else if (event.key === "+" || event.key === "=") move(zoomAt(state.camera, viewSize(), 1.25));
    else if (event.key === "-") move(zoomAt(state.camera, viewSize(), 0.8));
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      update({ highlighted: new Set() });
      return;
    }
    // Controls have keys of their own: a button takes the space bar, and a slider Home.
    if (event.target.closest(event.key === " " ? "input, select, button" : "input, select")) return;
    const actions = { " ": togglePlay, Home: reset, "/": () => $("search").focus(), "?": toggleHelp, ",": () => step(-1), ".": () => step(1) };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });
}

function step(epochs) {
  update({ epoch: Math.max(0, Math.min(E - 1, state.epoch + epochs)), playing: false }, true);
}
