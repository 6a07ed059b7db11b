// The page: the map, what is under the pointer, and the list beside it.

import { paint } from "./colours.js";
import { csv } from "./csv.js";
import { Exported, Served } from "./data.js";
import { byId, counted, download, make, nameOf, visible } from "./dom.js";
import { inside, Lasso } from "./lasso.js";
import { draw as drawLegend } from "./legend.js";
import { PointMap } from "./map.js";
import { Panel } from "./panel.js";
import { groupsOf, wordOf } from "./schemes.js";
import { follow, theme } from "./theme.js";

const RINGS = 150; // pictures of a selection that get a ring; more would hide each other
const EDGE = 1.1; // of the map, on which the pictures of the set lie within -1..1
const MOST_BYTES = 64 * 2 ** 20; // of a dropped picture; the server refuses more

const data = document.documentElement.dataset.from === "files" ? new Exported() : new Served();
const known = { names: null, coming: null };
const schemes = new Map();
const state = { scheme: null, only: null, chosen: null, marks: [], hovered: -1, pointed: -1, aimed: false, lasso: false, held: false, lost: false, asked: 0 };
let scene, map, panel, lasso;

const say = (text) => (byId("status").textContent = visible(text));

function fail(error) {
  byId("problem").textContent = visible(error.message);
  byId("problem").hidden = false;
}

// What can be put right is forgotten at the next step; that there is no map is not.
const clearProblem = () => state.lost || (byId("problem").hidden = true);

function lose(error) {
  state.lost = true;
  byId("busy").hidden = true;
  fail(new Error(`the map needs WebGL 2, which this browser lacks or has switched off: ${error.message}`));
}

// Colours of the rings, by the theme.
const ring = () => (theme() === "dark" ? [240, 236, 226] : [29, 31, 35]);
const clay = () => (theme() === "dark" ? [255, 150, 100] : [190, 60, 20]);

async function begin() {
  // All at once: what draws takes as long to get ready as the data take to come.
  const places = data.positions();
  known.coming = data.names();
  map = new PointMap(byId("map"), { onMove: moved, onDrawn: drawn, onError: lose });
  scene = await data.scene((what, seconds) => (byId("busy").textContent = `Computing ${what} … ${seconds} s`));
  const first = scene.schemes.find(({ quick }) => quick);
  const colours = first && data.scheme(first.name);
  document.title = `${visible(scene.title)} · Diptych explorer`;
  byId("title").replaceChildren(nameOf(scene.title));
  byId("title").title = visible(scene.title);
  byId("facts").title = byId("facts").textContent = `${counted(scene.count, "picture")} · ${scene.layout}`;
  panel = new Panel(byId("panel"), data, known, scene, { open, point });
  map.fill(await places);
  lasso = new Lasso(byId("overlay"), byId("outline"), (corners) => enclose(corners.map((corner) => map.unproject(corner))));
  follow(byId("theme"), repaint);
  listen();
  start();
  byId("scheme").append(...scene.schemes.map(({ name, title }) => make("option", { value: name }, title)));
  if (first) {
    schemes.set(first.name, { ...first, ...(await colours) });
    byId("scheme").value = first.name;
  }
  await colourBy(first?.name ?? "");
  known.names = await known.coming;
  byId("search").disabled = false;
  document.documentElement.dataset.ready = "";
}

// For whoever measures: when the points were first on the screen, in milliseconds since the page was asked for.
function drawn() {
  const root = document.documentElement;
  root.dataset.drawn ??= String(Math.round(performance.now()));
  byId("busy").hidden = true;
}

function repaint() {
  const only = state.only === null ? null : groupsOf(state.scheme)[state.only];
  map.paint(paint(scene.count, state.scheme, theme(), only, state.chosen));
  drawLegend(byId("legend"), state.scheme, theme(), state.only, (only) => {
    state.only = only;
    repaint();
    byId("legend").querySelector("[aria-pressed=true]")?.focus();
  });
  ringAll();
}

async function colourBy(name) {
  clearProblem();
  state.only = null;
  if (name === "") state.scheme = null;
  else {
    const scheme = scene.schemes.find((scheme) => scheme.name === name);
    const stillWanted = () => byId("scheme").value === name; // or was another one chosen in the meantime?
    const told = (what, seconds) => stillWanted() && say(`computing ${what} … ${seconds} s`);
    try {
      if (!schemes.has(name)) {
        told(`the colours by ${scheme.title}`, 0);
        schemes.set(name, { ...scheme, ...(await data.scheme(name, told)) });
      }
    } catch (error) {
      if (!stillWanted()) return;
      fail(error);
      say("");
      byId("scheme").value = state.scheme?.name ?? "";
      return;
    }
    if (!stillWanted()) return;
    state.scheme = schemes.get(name);
    say(`coloured by ${scheme.title}`);
  }
  repaint();
}

function ringAll() {
  map.mark(
    state.marks.map(({ rows, places, strong }) => ({
      places: places ?? rows.map((row) => map.place(row)),
      colour: strong ? clay() : ring(),
      strong,
    })),
  );
}

function mark(...marks) {
  state.marks = marks;
  singleOut(null);
}

/** Let all pictures but `rows` fade, or none for null; few of them get rings too. */
function singleOut(rows) {
  if (rows !== null) {
    state.marks = rows.length > RINGS ? [] : [{ rows, strong: false }];
    const chosen = new Uint8Array(scene.count);
    for (const row of rows) chosen[row] = 1;
    state.chosen = rows.length === 0 ? null : chosen;
    repaint();
  } else if (state.chosen !== null) {
    state.chosen = null;
    repaint();
  } else ringAll();
}

// What is pointed at gets a ring that is no part of the map: to draw that anew takes long where it is large.
function point(row) {
  state.pointed = row;
  const element = byId("ring");
  element.hidden = row < 0;
  if (row < 0) return;
  const [x, y] = map.project(map.place(row));
  const size = 2 * map.radius + 12;
  Object.assign(element.style, { left: `${x}px`, top: `${y}px`, width: `${size}px`, height: `${size}px` });
}

// The list beside the map

function start() {
  const keys = [
    ["arrows", "move the map"],
    ["+ −", "enlarge, shrink"],
    ["0", "show all"],
    ["Enter", "open the picture in the middle"],
    ["/", "search; Enter goes to what was found"],
    ["L", "draw a lasso, or hold Shift and drag"],
    ["V", "choose all that is in view"],
    ["Esc", "clear"],
  ];
  const about = ["Point at a dot to see its picture, click it for its neighbours."];
  if (scene.places) about.push("Drop a picture on the page to find its place.");
  panel.show(
    "The map",
    make("p", { class: "lede" }, about.join(" ")),
    make("dl", { class: "keys" }, ...keys.flatMap(([key, does]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, does)])),
  );
}

async function open(row, centre = true) {
  clearProblem();
  const asked = ++state.asked;
  if (centre) map.centre(map.place(row));
  mark({ rows: [row], strong: true });
  panel.show("Picture", panel.large(row), facts(row), make("p", { class: "lede" }, "Looking for its neighbours …"));
  try {
    const found = await data.neighbours(row);
    if (asked !== state.asked) return;
    panel.show("Picture", panel.large(row), facts(row), ...neighbourList(found));
    mark({ rows: found.rows, strong: false }, { rows: [row], strong: true });
    say(`${panel.name(row)}: ${counted(found.rows.length, "neighbour")}`);
  } catch (error) {
    if (asked === state.asked) fail(error);
  }
}

function neighbourList({ rows, similarities }) {
  if (rows.length === 0) return [make("p", { class: "lede" }, "It is the only one, and has no neighbours.")];
  const title = make("h3", {}, "Nearest neighbours", make("small", {}, " by cosine similarity"));
  return [title, panel.list(rows, similarities.map((similarity) => similarity.toFixed(3).replace("-", "−")))];
}

function facts(row) {
  const terms = [...schemes.values()].flatMap((scheme) => {
    return [make("dt", {}, scheme.title), make("dd", {}, nameOf(wordOf(scheme, row)))];
  });
  return make("dl", { class: "facts" }, ...terms);
}

function enclose(corners) {
  setLasso(false);
  choose(inside(map.positions, corners));
}

function choose(rows) {
  clearProblem();
  state.asked++;
  singleOut(rows);
  const save = async () => download("selection.csv", csv(rows, await known.coming, [...schemes.values()]));
  panel.show(
    counted(rows.length, "picture"),
    rows.length === 0
      ? make("p", { class: "lede" }, "No dot lies inside that line.")
      : make("div", {}, make("button", { id: "download", class: "main", type: "button", onclick: save }, "Download CSV"), panel.list(rows)),
  );
  byId("panel-title").focus();
  say(`${counted(rows.length, "picture")} chosen`);
}

// Letters with accents are written in two ways, and file systems do not agree on one.
const plain = (text) => text.normalize("NFC").toLowerCase();

function search(text) {
  clearProblem();
  state.asked++;
  const wanted = plain(text.trim());
  if (wanted === "") return clear();
  const rows = [];
  for (let row = 0; row < scene.count; row++) if (plain(known.names[row]).includes(wanted)) rows.push(row);
  singleOut(rows);
  const title = rows.length === 0 ? "Nothing found" : `${counted(rows.length, "picture")} found`;
  panel.show(title, rows.length === 0 ? make("p", { class: "lede" }, "No name holds these letters.") : panel.list(rows));
  say(title);
}

async function place(file) {
  clearProblem();
  const asked = ++state.asked;
  say("looking for its place …");
  try {
    if (file.size > MOST_BYTES) throw new Error(`${file.name} is larger than ${MOST_BYTES >> 20} MiB: give a smaller picture`);
    const found = await data.place(file);
    if (asked !== state.asked) return;
    const image = make("img", { alt: "the picture that was dropped" });
    image.src = URL.createObjectURL(file);
    image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
    const figure = make("figure", { class: "large" }, image, make("figcaption", {}, nameOf(file.name)));
    const place = [found.x, found.y].map((value) => Math.min(EDGE, Math.max(-EDGE, value)));
    const far = place[0] !== found.x || place[1] !== found.y;
    const beyond = "It lies beyond the edge of this map, as no picture of the set does; the ring is where it left it.";
    panel.show("Your picture", figure, ...(far ? [make("p", { class: "lede" }, beyond)] : []), ...neighbourList(found));
    map.centre(place);
    mark({ rows: found.rows, strong: false }, { places: [place], strong: true });
    say(`${file.name} was placed ${far ? "at the edge of the map" : "among its neighbours"}`);
  } catch (error) {
    if (asked !== state.asked) return;
    fail(error);
    say("");
  }
}

function clear() {
  state.asked++;
  state.only = null;
  clearProblem();
  setLasso(false);
  hideCard();
  byId("search").value = "";
  [state.marks, state.chosen] = [[], null];
  repaint();
  start();
  say("cleared");
}

// What is under the pointer, or in the middle of the map while keys move it

// The card goes to the right of (x, y), or to the left where there is no room or that is asked for.
function hover(row, [x, y], left = false) {
  const card = byId("card");
  if (row !== state.hovered) {
    state.hovered = row;
    if (row < 0) return hideCard();
    const value = state.scheme && make("span", { class: "note" }, nameOf(wordOf(state.scheme, row)));
    card.replaceChildren(...(scene.pictures ? [panel.thumb(row)] : []), make("span", { class: "name" }, nameOf(panel.name(row))), value ?? "");
    card.dataset.row = row;
    card.hidden = false;
    point(row);
  }
  if (row < 0) return;
  const [width, height] = [byId("map").clientWidth, byId("map").clientHeight];
  const before = x - 18 - card.offsetWidth;
  const right = x + 18 + card.offsetWidth > width || (left && before >= 0);
  const low = y + 18 + card.offsetHeight > height;
  card.style.left = `${Math.max(0, right ? before : x + 18)}px`;
  card.style.top = `${Math.max(0, low ? y - 18 - card.offsetHeight : y + 18)}px`;
}

function hideCard() {
  state.hovered = -1;
  byId("card").hidden = true;
  delete byId("card").dataset.row;
  point(-1);
}

function moved() {
  if (state.pointed >= 0) point(state.pointed);
  if (!state.aimed || !map.count) return;
  const row = map.pickMiddle();
  const at = row < 0 ? map.middle : map.project(map.place(row));
  hover(row, at, at[0] < map.middle[0]); // neither the cross nor the dot may lie under the card
}

function aim(on) {
  state.aimed = on;
  byId("aim").hidden = !on;
  moved();
}

// While Shift is held the pointer draws, and afterwards as it was before.
function holdLasso(on) {
  if (on === state.held || (on && state.lasso)) return;
  state.held = on;
  if (on || !lasso.drawing) setLasso(on);
}

function setLasso(on) {
  state.lasso = on;
  byId("lasso").setAttribute("aria-pressed", String(on));
  lasso.active = on;
  if (on) hideCard();
}

// Pointer and keys

function listen() {
  const stage = byId("map");
  const pixel = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  let pressed = null;
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons) return hideCard();
    if (state.aimed) aim(false);
    hover(map.pick(pixel(event)), pixel(event));
  });
  stage.addEventListener("pointerleave", () => state.aimed || hideCard());
  stage.addEventListener("pointerdown", (event) => (pressed = pixel(event)));
  stage.addEventListener("pointerup", (event) => {
    const here = pixel(event);
    if (pressed === null || event.button !== 0 || Math.hypot(here[0] - pressed[0], here[1] - pressed[1]) > 4) return;
    const row = map.pick(here);
    if (row >= 0) open(row, false);
  });
  stage.addEventListener("blur", () => aim(false));

  byId("scheme").addEventListener("change", (event) => colourBy(event.target.value));
  byId("lasso").addEventListener("click", () => setLasso(!state.lasso));
  byId("fit").addEventListener("click", () => map.fit());
  byId("all").addEventListener("click", () => enclose(map.frame()));
  let waiting;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(event.target.value), 120);
  });
  byId("search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // or it would press the button that gets the focus
    clearTimeout(waiting);
    search(event.target.value);
    byId("panel").querySelector(".pictures button")?.focus();
  });
  addEventListener("keydown", onKey);
  addEventListener("blur", () => holdLasso(false)); // a key that is let go elsewhere is not heard of
  addEventListener("keyup", (event) => event.key === "Shift" && holdLasso(false));
  if (scene.places) listenForPictures();
}

function listenForPictures() {
  const chooser = byId("file");
  byId("choose").hidden = false;
  byId("choose").addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    if (chooser.files.length) place(chooser.files[0]);
    chooser.value = "";
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && (byId("drop").hidden = true));
  addEventListener("drop", (event) => {
    event.preventDefault();
    byId("drop").hidden = true;
    if (event.dataTransfer.files.length) place(event.dataTransfer.files[0]);
  });
}

const STEP = 60; // pixels
const MOVES = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

function onKey(event) {
  if (event.key === "Escape") return clear();
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  if (event.key === "Shift") return event.repeat ? null : holdLasso(true);
  const onMap = event.target === byId("map");
  const does = {
    "+": () => map.zoomBy(0.5),
    "=": () => map.zoomBy(0.5),
    "-": () => map.zoomBy(-0.5),
    0: () => map.fit(),
    "/": () => byId("search").focus(),
    l: () => setLasso(!state.lasso),
    v: () => enclose(map.frame()),
    Enter: onMap && state.hovered >= 0 ? () => open(state.hovered, false) : null,
  }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (onMap && event.key in MOVES) {
    map.panBy(...MOVES[event.key]);
    aim(true);
  } else if (does) {
    does();
    if (onMap && "+=-0".includes(event.key)) aim(true);
  } else return;
  event.preventDefault();
}

begin().catch(fail);
