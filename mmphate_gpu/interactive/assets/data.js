// What Python wrote into the page: facts as JSON, and numbers as compressed bytes.

const facts = JSON.parse(document.getElementById("facts").textContent);
const [E, T, M] = facts.shape; // epochs, time steps and units that the page has
const S = E * T; // slices
const N = S * M; // nodes
const MISSING = 65535;

/** The bytes of the page, uncompressed. */
async function unpacked() {
  const text = atob(document.getElementById("data").textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** One block of numbers, a node each, in the order of the nodes. The file has them unit by unit, in planes of bytes. */
function decoded(bytes, offset, block) {
  const values = new Uint16Array(N);
  const [strideE, strideT] = [T * M, M];
  let k = offset;
  for (let m = 0; m < M; m++) {
    for (let e = 0; e < E; e++) {
      for (let t = 0; t < T; t++, k++) {
        const node = e * strideE + t * strideT + m;
        const code = block.bytes === 2 ? bytes[k] | (bytes[k + N] << 8) : bytes[k];
        if (!block.delta) {
          values[node] = code;
          continue;
        }
        // The difference to the node before in time, with its sign in the lowest bit.
        const byEpoch = t === 0 || (block.delta === "epoch" && e > 0);
        const before = byEpoch ? (e > 0 ? values[node - strideE] : 0) : values[node - strideT];
        values[node] = before + ((code >>> 1) ^ -(code & 1));
      }
    }
  }
  return values;
}

/** All blocks, in the order in which Python wrote them. */
function blocksOf(bytes) {
  let offset = 0;
  return facts.blocks.map((block) => {
    const values = decoded(bytes, offset, block);
    offset += N * block.bytes;
    return values;
  });
}

/** The slices in the order of the buffers, such that the first of them are spread evenly over epochs and time steps. */
function sliceOrder() {
  return Uint32Array.from({ length: S }, (_, k) => (k * facts.stride) % S);
}

/** Names of an axis or a column: a list, or the rule of evenly spaced whole numbers. */
function nameOf(names, i) {
  return Array.isArray(names) ? names[i] : String(names.start + i * names.step);
}

/** The row of the embedding of a node of this page; they differ where slices are left out. */
function rowOf(node) {
  const slice = Math.floor(node / M);
  return (facts.epochs[Math.floor(slice / T)] * facts.all[1] + facts.timesteps[slice % T]) * M + (node % M);
}

/** The node of this page of a row of the embedding, or -1 where its slice is left out. */
function nodeOf(row) {
  const slice = Math.floor(row / M);
  const epoch = facts.epochs.indexOf(Math.floor(slice / facts.all[1]));
  const timestep = facts.timesteps.indexOf(slice % facts.all[1]);
  return epoch < 0 || timestep < 0 ? -1 : (epoch * T + timestep) * M + (row % M);
}

function placeOf(node) {
  const slice = Math.floor(node / M);
  return { epoch: Math.floor(slice / T), timestep: slice % T, unit: node % M };
}
