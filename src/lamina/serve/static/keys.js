// Keys, all of which the help lists. They can be switched off, for who dictates to the computer.
import { $, announce, el } from "./dom.js";

const STEP = 8;
const PLANE_KEYS = { "1": "planes", "2": "axial", "3": "coronal", "4": "sagittal", "5": "solid" };

const KEYS = [
  ["1 … 5", "Planes, axial, coronal, sagittal, 3D"],
  ["↑ ↓", "Next or previous slice; turn in 3D"],
  ["← →", "Move the cross left or right; turn in 3D"],
  ["Page ↑ ↓", `${STEP} slices at once`],
  ["+ −", "Zoom"],
  ["O", "Overlay on or off"],
  ["L", "Outline on or off"],
  ["[ ]", "Less or more opacity"],
  ["W", "Next window"],
  ["Shift 1 … 9", "Show or hide a structure"],
  ["0", "Reset"],
  ["F", "Full screen"],
  ["N", "New scan"],
  ["T", "Theme: system, light, dark"],
  ["?", "This help"],
];

const TAKES_LETTERS = "select, textarea, [contenteditable], input:not([type=checkbox], [type=radio], [type=range])";
const TAKES_ARROWS = "input:not([type=checkbox]), [tabindex]:not(canvas, main, h1)";

const click = (id) => {
  const box = $(id);
  if (box && box.offsetParent) box.click();
};

function opacity(by) {
  const slider = $("opacity");
  slider.value = Number(slider.value) + by;
  slider.dispatchEvent(new Event("input"));
  announce(`Opacity ${slider.value} %`);
}

function nextWindow(viewer) {
  if (!viewer.windows.length) return;
  const next = (Number($("window").value) + 1 || 0) % viewer.windows.length;
  viewer.setWindow(next);
  announce(`Window ${viewer.windows[next].name}`);
}

// Cursor keys: which way to go in which view.
function step(viewer, key) {
  const { scene, view } = viewer;
  const by = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowRight: [1, 0], ArrowLeft: [-1, 0], PageUp: [0, STEP], PageDown: [0, -STEP] }[key];
  if (!by || !scene) return false;
  const [across, along] = by;
  if (view === "solid") scene.turn(-10 * across, 10 * Math.sign(along));
  else if (along) scene.move(view === "planes" ? "axial" : view, along);
  else scene.move(view === "sagittal" ? "coronal" : "sagittal", view === "sagittal" ? across : -across);
  if (view !== "solid") announce($("place").textContent);
  return true;
}

function act(event, viewer) {
  const { key, code, shiftKey } = event;
  const digit = /^Digit([1-9])$/.exec(code)?.[1];
  const letters = {
    "?": () => $("help-dialog").showModal(),
    t: () => $("theme").click(),
    n: () => (location.hash = "#/"),
  };
  if (viewer?.scene) {
    Object.assign(letters, {
      o: () => click("overlay"),
      l: () => click("outline"),
      f: () => viewer.fullScreen(),
      w: () => nextWindow(viewer),
      0: () => viewer.reset(),
      "[": () => opacity(-10),
      "]": () => opacity(10),
      "+": () => viewer.scene.zoom(1.2),
      "-": () => viewer.scene.zoom(1 / 1.2),
    });
    if (digit && shiftKey) return announce(viewer.list.toggleAt(digit - 1) ?? "") ?? true;
    if (key in PLANE_KEYS) return viewer.show(PLANE_KEYS[key]) ?? true;
    if (!event.target.matches(TAKES_ARROWS) && step(viewer, key)) return true;
  }
  const found = letters[key.length === 1 ? key.toLowerCase() : key];
  found?.();
  return Boolean(found);
}

export function listenToKeys(viewerNow) {
  const rows = KEYS.map(([keys, what]) => el("tr", {}, el("th", { scope: "row" }, el("kbd", {}, keys)), el("td", {}, what)));
  $("keys").append(el("tbody", {}, ...rows));
  const listener = (event) => {
    // NiiVue has keys of its own, which depend on where the mouse is.
    if (event.target.tagName === "CANVAS") event.stopPropagation();
    const isPlain = !event.ctrlKey && !event.altKey && !event.metaKey;
    if (event.type !== "keydown" || !isPlain || !$("keys-on").checked) return;
    if (event.target.matches(TAKES_LETTERS) || document.querySelector("dialog[open]")) return;
    if (act(event, viewerNow())) event.preventDefault();
  };
  for (const kind of ["keydown", "keyup"]) document.addEventListener(kind, listener, { capture: true });
}
