// The camera turns around a center. Its perspective is weak and the same at every zoom, so that turning tells front from
// back, dots far away are nearly as large as near ones, and zooming never passes through dots.

const DISTANCE = 6; // from the center to the eye, in half sides of the box
const DEPTH = 3.5; // no dot is farther from the center
const VIEW = { azimuth: (-58 * Math.PI) / 180, elevation: (24 * Math.PI) / 180 };

function firstCamera() {
  return { ...VIEW, zoom: 1, center: [0, 0, 0] };
}

/** Directions to the right, up and toward the eye. */
function directions(camera, flat) {
  if (flat) return { right: [1, 0, 0], up: [0, 1, 0], toward: [0, 0, 0] };
  const [c, s] = [Math.cos(camera.azimuth), Math.sin(camera.azimuth)];
  const [ce, se] = [Math.cos(camera.elevation), Math.sin(camera.elevation)];
  return { right: [-s, c, 0], up: [-se * c, -se * s, ce], toward: [ce * c, ce * s, se] };
}

function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/** Pixels of a half side of the box, such that the box fills `view` in the first view. */
function fittingScale(view) {
  const { right, up, toward } = directions(VIEW, view.flat);
  let [x, y] = [1e-6, 1e-6];
  for (let corner = 0; corner < 8; corner++) {
    const p = facts.extent.map((half, axis) => ((corner >> axis) & 1 ? half : -half));
    const near = 1 - dot(toward, p) / DISTANCE;
    x = Math.max(x, Math.abs(dot(right, p)) / near);
    y = Math.max(y, Math.abs(dot(up, p)) / near);
  }
  // The corners of a box in space have no dots; below a picture of one component are labels of time.
  const room = facts.components === 1 ? 0.42 : view.flat ? 0.46 : 0.49;
  return Math.min((room * view.width) / x, (room * view.height) / y);
}

/** From the box to clip space, by columns. */
function boxToClip(camera, view) {
  const { right, up, toward } = directions(camera, view.flat);
  const scale = fittingScale(view) * camera.zoom;
  const rows = [
    right.map((v) => (v * 2 * scale) / view.width),
    up.map((v) => (v * 2 * scale) / view.height),
    toward.map((v) => -v / DEPTH),
    toward.map((v) => -v / DISTANCE),
  ];
  const shift = [0, 0, DEPTH / DISTANCE, 1];
  const matrix = new Float64Array(16);
  rows.forEach((row, i) => {
    row.forEach((v, axis) => (matrix[4 * axis + i] = v));
    matrix[12 + i] = shift[i] - dot(row, camera.center);
  });
  return matrix;
}

/** The same from the 16 bits of the file, as numbers from 0 to 1. */
function bitsToClip(matrix) {
  const scale = (2 * 65535) / 65534;
  const result = new Float64Array(16);
  for (let i = 0; i < 4; i++) {
    for (let axis = 0; axis < 3; axis++) result[4 * axis + i] = matrix[4 * axis + i] * scale;
    result[12 + i] = matrix[12 + i] - matrix[i] - matrix[4 + i] - matrix[8 + i];
  }
  return result;
}

/** Move the picture by (dx, dy) pixels. */
function pan(camera, view, dx, dy) {
  const { right, up } = directions(camera, view.flat);
  const scale = fittingScale(view) * camera.zoom;
  const moved = camera.center.map((c, axis) => c + (-dx * right[axis] + dy * up[axis]) / scale);
  return { ...camera, center: moved.map((c) => Math.max(-1, Math.min(1, c))) };
}

/** Zoom by `factor`, so that what is at the pixel (x, y) stays there. */
function zoomAt(camera, view, factor, x = view.width / 2, y = view.height / 2) {
  const zoom = Math.max(0.2, Math.min(200, camera.zoom * factor));
  const still = 1 - zoom / camera.zoom;
  return { ...pan({ ...camera, zoom }, view, (x - view.width / 2) * still, (y - view.height / 2) * still) };
}

function turn(camera, dx, dy) {
  const elevation = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, camera.elevation + dy));
  return { ...camera, azimuth: camera.azimuth - dx, elevation };
}
