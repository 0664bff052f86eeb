// The controls beside and below the picture.

const $ = (id) => document.getElementById(id);

function fillControls() {
  $("title").textContent = facts.title;
  $("size").textContent = facts.size;
  colorings.forEach((coloring, i) => $("color-by").append(element("option", { value: i, textContent: coloring.name })));
  $("color-by").value = state.color;
  $("color-by").addEventListener("change", (event) => update({ color: Number(event.target.value), hidden: new Set() }));
  slider("epoch", E, (value) => update({ epoch: value, playing: false }, true));
  slider("trail", E, (value) => update({ trail: value }, true));
  slider("timestep", T, (value) => update({ timestep: value }, true));
  $("play").hidden = E < 2;
  $("time").hidden = E < 2 && T < 2;
  $("play").addEventListener("click", togglePlay);
  $("dimension").hidden = facts.components < 3;
  $("dimension").addEventListener("click", () => update({ flat: !state.flat, camera: firstCamera() }));
  $("reset").addEventListener("click", reset);
  $("theme").addEventListener("click", () => {
    const themes = ["system", "light", "dark"];
    update({ theme: themes[(themes.indexOf(state.theme) + 1) % 3] });
  });
  $("export").addEventListener("click", savePicture);
  $("help").addEventListener("click", toggleHelp);
  $("search").addEventListener("input", showMatches);
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") $("matches").querySelector("button")?.click();
  });
  $("notes").append(...facts.notes.map((note) => element("li", { textContent: note })));
  listeners.push(showState);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => update({ theme: state.theme }));
  showState({ color: state.color, theme: state.theme, hidden: state.hidden });
}

function slider(name, count, change) {
  $(name).max = count - 1;
  $(name).value = state[name];
  $(`${name}-row`).hidden = count < 2;
  $(name).addEventListener("input", () => change(Number($(name).value)));
}

/** Bring the controls in line with the state. */
function showState(changes) {
  if (Object.keys(changes).every((name) => name === "camera")) return;
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  const names = facts.axes;
  for (const name of ["epoch", "trail", "timestep"]) $(name).value = state[name];
  $("epoch-shown").textContent = nameOf(names.epoch, state.epoch);
  $("trail-shown").textContent = state.trail >= E - 1 ? "all" : String(state.trail);
  $("timestep-shown").textContent = state.timestep < 0 ? "all" : nameOf(names.timestep, state.timestep);
  $("epoch").setAttribute("aria-valuetext", nameOf(names.epoch, state.epoch));
  $("trail").setAttribute("aria-valuetext", state.trail >= E - 1 ? "all earlier epochs" : `${state.trail} earlier epochs`);
  $("timestep").setAttribute("aria-valuetext", $("timestep-shown").textContent);
  $("dimension").textContent = state.flat ? "3-D" : "2-D";
  $("dimension").setAttribute("aria-label", state.flat ? "Show three dimensions" : "Show two dimensions");
  $("theme").textContent = { system: "Auto", light: "Light", dark: "Dark" }[state.theme];
  $("theme").setAttribute("aria-label", `Colors of the page: ${{ system: "as the system", light: "light", dark: "dark" }[state.theme]}`);
  $("play").setAttribute("aria-label", state.playing ? "Stop" : "Play the epochs");
  $("play").classList.toggle("playing", state.playing);
  $("play").firstElementChild.firstElementChild.setAttribute("d", state.playing ? "M4 2.5h3v11H4zM9 2.5h3v11H9z" : "M4 2.5v11l9-5.5z");
  if (["color", "theme", "hidden"].some((name) => name in changes)) drawLegend();
  if ("highlighted" in changes) markMatches();
  if (!state.playing) $("status").textContent = sentence();
}

/** What is shown now, in words. */
function sentence() {
  const names = facts.axes;
  const first = Math.max(0, state.epoch - state.trail);
  const epochs = first === state.epoch ? `epoch ${nameOf(names.epoch, state.epoch)}`
    : `epochs ${nameOf(names.epoch, first)} to ${nameOf(names.epoch, state.epoch)}`;
  const steps = state.timestep < 0 ? "all time steps" : `time step ${nameOf(names.timestep, state.timestep)}`;
  const parts = [`Color: ${colorings[state.color].name}`, epochs, steps];
  const units = [...state.highlighted];
  if (units.length) parts.push(units.length > 3 ? `${units.length} units highlighted` : `highlighted: ${units.map((m) => nameOf(names.unit, m)).join(", ")}`);
  if (state.hidden.size) parts.push(`${state.hidden.size} hidden in the legend`);
  return `${parts.join("; ")}.`;
}

function reset() {
  update({
    camera: firstCamera(), epoch: E - 1, trail: E - 1, timestep: -1, highlighted: new Set(), hidden: new Set(), playing: false,
  });
}

function toggleHelp() {
  $("keys").hidden = !$("keys").hidden;
  $("help").setAttribute("aria-expanded", String(!$("keys").hidden));
}

// A whole run plays in about twelve seconds. Where motion should be reduced, an epoch lasts for 0.4 seconds or more.
function togglePlay() {
  if (E < 2) return;
  const playing = !state.playing;
  update({ playing, epoch: playing && state.epoch >= E - 1 ? 0 : state.epoch });
  const least = matchMedia("(prefers-reduced-motion: reduce)").matches ? 400 : 40;
  if (playing) playOn(Math.max(least, Math.min(400, 12000 / E)));
}

function playOn(interval) {
  let last = performance.now();
  const step = (now) => {
    if (!state.playing) return;
    const epochs = Math.floor((now - last) / interval);
    if (epochs > 0) {
      last = now;
      const epoch = Math.min(E - 1, state.epoch + Math.min(epochs, 3));
      update({ epoch, playing: epoch < E - 1 }, true);
    }
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

// ---- units by name

const MOST_MATCHES = 200; // buttons of units

function toggleUnit(unit) {
  const highlighted = new Set(state.highlighted);
  if (!highlighted.delete(unit)) highlighted.add(unit);
  update({ highlighted });
}

function showMatches() {
  const text = $("search").value.trim().toLowerCase();
  const units = [];
  for (let m = 0; text && m < M; m++) {
    if (nameOf(facts.axes.unit, m).toLowerCase().includes(text)) units.push(m);
  }
  const rest = units.length - MOST_MATCHES;
  $("matches").replaceChildren(...units.slice(0, MOST_MATCHES).map(matchButton));
  if (text && !units.length) $("matches").append(element("p", { textContent: "No name of a unit contains this text." }));
  if (rest > 0) $("matches").append(element("p", { textContent: `and ${rest.toLocaleString("en")} more` }));
  markMatches();
}

function matchButton(unit) {
  const name = nameOf(facts.axes.unit, unit);
  const button = element("button", { type: "button", className: "match", dir: "auto", textContent: name, title: name });
  button.dataset.unit = unit;
  button.addEventListener("click", () => toggleUnit(unit));
  return button;
}

function markMatches() {
  for (const button of $("matches").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(state.highlighted.has(Number(button.dataset.unit))));
  }
}
