// WebGL2: dots in one call, and lines as thin rectangles.

const DOT_VERTEX = `#version 300 es
in vec3 position;
in uvec2 place;  // epoch and time step
in vec4 color;
uniform mat4 matrix;
uniform vec3 ground;
uniform float epoch, trail, timestep, size, fade, pass, flatten;
flat out vec4 ink;
flat out float diameter;
void main() {
  float age = epoch - float(place.x);
  bool pale = color.a < 0.75;
  bool seen = color.a > 0.25 && age >= 0.0 && age <= trail && (timestep < 0.0 || timestep == float(place.y))
    && (pass < 0.0 || pale == (pass < 0.5));
  gl_Position = seen ? matrix * vec4(position, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
  if (seen && flatten > 0.5) gl_Position.z = 2.0 * age / (trail + 1.0) - 1.0;  // newer dots lie above older ones
  float fresh = fade > 0.5 ? 1.0 - age / (trail + 1.0) : 1.0;
  diameter = size * (0.65 + 0.35 * fresh) * (pale ? 0.8 : pass > 0.5 ? 1.2 : 1.0) / gl_Position.w;
  gl_PointSize = diameter + 1.0;
  ink = vec4(mix(ground, color.rgb, pale ? 0.16 : 0.2 + 0.8 * fresh), 1.0);
}`;
const DOT_FRAGMENT = `#version 300 es
precision mediump float;
flat in vec4 ink;
flat in float diameter;
uniform float opacity, blended, least;
out vec4 result;
void main() {
  float edge = (diameter + 1.0) * (0.5 - length(gl_PointCoord - 0.5));
  float alpha = min(edge, 1.0);
  if (alpha < least) discard;
  result = blended > 0.5 ? vec4(ink.rgb, 1.0) * alpha * opacity : vec4(ink.rgb, alpha);
}`;
const LINE_VERTEX = `#version 300 es
in vec3 start, end;
in vec4 startColor, endColor;
uniform mat4 matrix;
uniform vec2 view;
uniform highp float width;
uniform vec4 paint;  // its fourth number is the share of it in the color
out vec3 ink;
out float across;  // pixels from the middle of the line
void main() {
  vec4 a = matrix * vec4(start, 1.0), b = matrix * vec4(end, 1.0);
  vec2 along = (b.xy / b.w - a.xy / a.w) * view;
  vec2 normal = length(along) > 0.0 ? normalize(vec2(-along.y, along.x)) : vec2(0.0, 1.0);
  bool last = gl_VertexID > 1;
  float side = gl_VertexID % 2 == 0 ? 1.0 : -1.0;
  gl_Position = last ? b : a;
  across = side * (width + 1.0) / 2.0;
  gl_Position.xy += normal * across * 2.0 / view * gl_Position.w;
  ink = mix(last ? endColor.rgb : startColor.rgb, paint.rgb, paint.a);
}`;
const LINE_FRAGMENT = `#version 300 es
precision mediump float;
in vec3 ink;
in float across;
uniform highp float width;
out vec4 result;
void main() { result = vec4(ink, 1.0) * clamp((width + 1.0) / 2.0 - abs(across), 0.0, 1.0); }`;

function program(gl, vertex, fragment, attributes) {
  const result = gl.createProgram();
  for (const [type, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(result, shader);
  }
  attributes.forEach((name, i) => gl.bindAttribLocation(result, i, name));
  gl.linkProgram(result);
  if (!gl.getProgramParameter(result, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(result));
  const uniforms = {};
  for (let i = 0; i < gl.getProgramParameter(result, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(result, i);
    uniforms[name] = gl.getUniformLocation(result, name);
  }
  return { result, uniforms };
}

const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render/i;

/** Whether WebGL2 is drawn by the processor, where several samples a pixel cost too much. Null without WebGL2. */
function isSoftware() {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) return null;
  const info = gl.getExtension("WEBGL_debug_renderer_info");
  const name = gl.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  gl.getExtension("WEBGL_lose_context")?.loseContext(); // browsers allow few contexts at a time
  return SOFTWARE.test(name);
}

/**
 * Buffers and draw calls of one canvas. `positions` has four numbers of 16 bits a node, `places` two of 32. The canvas
 * keeps its pixels, since the dots of a picture may come in several frames.
 */
function renderer(canvas, positions, places, software) {
  const gl = canvas.getContext("webgl2", {
    antialias: !software, preserveDrawingBuffer: true, alpha: false, powerPreference: "high-performance",
  });
  const dots = program(gl, DOT_VERTEX, DOT_FRAGMENT, ["position", "place", "color"]);
  const lines = program(gl, LINE_VERTEX, LINE_FRAGMENT, ["start", "end", "startColor", "endColor"]);
  const dotArrays = gl.createVertexArray();
  const colorBuffer = gl.createBuffer();
  gl.bindVertexArray(dotArrays);
  const attribute = (buffer, data, set) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    if (data) gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    set();
  };
  attribute(gl.createBuffer(), positions, () => gl.vertexAttribPointer(0, 3, gl.UNSIGNED_SHORT, true, 8, 0));
  attribute(gl.createBuffer(), places, () => gl.vertexAttribIPointer(1, 2, gl.UNSIGNED_INT, 8, 0));
  attribute(colorBuffer, null, () => gl.vertexAttribPointer(2, 4, gl.UNSIGNED_BYTE, true, 4, 0));
  [0, 1, 2].forEach((i) => gl.enableVertexAttribArray(i));

  const lineArrays = gl.createVertexArray();
  const lineBuffer = gl.createBuffer();
  gl.bindVertexArray(lineArrays);
  gl.bindBuffer(gl.ARRAY_BUFFER, lineBuffer);
  for (let i = 0; i < 4; i++) {
    gl.enableVertexAttribArray(i);
    gl.vertexAttribPointer(i, 3, gl.FLOAT, false, 48, 12 * i);
    gl.vertexAttribDivisor(i, 1);
  }

  function setColors(bytes) {
    gl.bindBuffer(gl.ARRAY_BUFFER, colorBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, bytes, gl.DYNAMIC_DRAW);
  }

  /** Begin a picture: the ground, and what every call needs. */
  function begin(width, height, ground) {
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.viewport(0, 0, width, height);
    gl.clearColor(...ground, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  }

  /** The dots `first` to `end` of the buffers; pass 0 has the pale ones, 1 the others, and -1 all. */
  function drawDots(first, end, settings) {
    gl.useProgram(dots.result);
    gl.bindVertexArray(dotArrays);
    gl.uniformMatrix4fv(dots.uniforms.matrix, false, new Float32Array(settings.matrix));
    gl.uniform3fv(dots.uniforms.ground, settings.ground);
    if (settings.pass === 1) gl.clear(gl.DEPTH_BUFFER_BIT); // what is highlighted lies above the pale dots
    for (const name of ["epoch", "trail", "timestep", "size", "fade", "opacity", "pass"]) {
      gl.uniform1f(dots.uniforms[name], settings[name]);
    }
    // Several samples a pixel smooth the edges in any order, which blending cannot do with a depth test.
    const deep = !settings.flat || settings.fade > 0;
    const blended = !deep || software;
    gl.uniform1f(dots.uniforms.flatten, settings.flat && deep ? 1 : 0);
    gl.uniform1f(dots.uniforms.blended, blended ? 1 : 0);
    gl.uniform1f(dots.uniforms.least, deep && software ? 0.4 : 0.01);
    const set = (capability, on) => (on ? gl.enable(capability) : gl.disable(capability));
    set(gl.DEPTH_TEST, deep);
    set(gl.SAMPLE_ALPHA_TO_COVERAGE, !blended);
    set(gl.BLEND, blended);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawArrays(gl.POINTS, first, end - first);
    [gl.DEPTH_TEST, gl.SAMPLE_ALPHA_TO_COVERAGE, gl.BLEND].forEach((capability) => gl.disable(capability));
  }

  /** Segments of twelve numbers: start, end and their colors; `paints` are [width in pixels, color with share]. */
  function drawLines(segments, matrix, paints) {
    if (!segments.length) return;
    gl.useProgram(lines.result);
    gl.bindVertexArray(lineArrays);
    gl.bindBuffer(gl.ARRAY_BUFFER, lineBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, segments, gl.DYNAMIC_DRAW);
    gl.uniformMatrix4fv(lines.uniforms.matrix, false, new Float32Array(matrix));
    gl.uniform2f(lines.uniforms.view, canvas.width, canvas.height);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    for (const [width, paint] of paints) {
      gl.uniform1f(lines.uniforms.width, width);
      gl.uniform4fv(lines.uniforms.paint, paint);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, segments.length / 12);
    }
    gl.disable(gl.BLEND);
  }

  /** Wait until the picture is done. */
  function finish() {
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); // gl.finish does not wait in Chromium
  }

  return { setColors, begin, drawDots, drawLines, finish };
}
