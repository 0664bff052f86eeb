// Which node is under the pointer: a grid of the screen, made anew after the view has changed.

const CELL = 12; // pixels

/** A grid of the visible dots; `visit(add)` calls add(node, x, y, depth) for each of them. */
function screenGrid(view, visit) {
  const columns = Math.max(1, Math.ceil(view.width / CELL));
  const rows = Math.max(1, Math.ceil(view.height / CELL));
  const [nodes, xs, ys, depths, cells] = [
    new Uint32Array(N), new Float32Array(N), new Float32Array(N), new Float32Array(N), new Uint32Array(N),
  ];
  const starts = new Uint32Array(columns * rows + 1);
  let count = 0;
  visit((node, x, y, depth) => {
    if (x < 0 || y < 0 || x >= view.width || y >= view.height) return;
    const cell = Math.floor(y / CELL) * columns + Math.floor(x / CELL);
    [nodes[count], xs[count], ys[count], depths[count], cells[count]] = [node, x, y, depth, cell];
    starts[cell + 1]++;
    count++;
  });
  for (let i = 1; i < starts.length; i++) starts[i] += starts[i - 1];
  const next = starts.slice();
  const sorted = new Uint32Array(count);
  for (let i = 0; i < count; i++) sorted[next[cells[i]]++] = i;

  /** The nearest node within `radius` pixels, or -1. Of dots that cover the pixel, the foremost is taken. */
  function nearest(x, y, radius, dotRadius) {
    let [best, bestDistance, bestDepth] = [-1, radius, Infinity];
    const reach = (value, size) => [
      Math.max(0, Math.floor((value - radius) / CELL)), Math.min(size - 1, Math.floor((value + radius) / CELL)),
    ];
    const [left, right] = reach(x, columns);
    const [top, bottom] = reach(y, rows);
    for (let row = top; row <= bottom; row++) {
      for (let k = starts[row * columns + left] ?? 0; k < starts[row * columns + right + 1]; k++) {
        const i = sorted[k];
        const distance = Math.max(Math.hypot(xs[i] - x, ys[i] - y), dotRadius);
        if (distance < bestDistance || (distance === bestDistance && depths[i] < bestDepth)) {
          [best, bestDistance, bestDepth] = [nodes[i], distance, depths[i]];
        }
      }
    }
    return best;
  }
  return { nearest, count };
}
