// Letters at the borders of slices: which side of the patient each is towards, as radiologists look.
import { el } from "./dom.js";

const PLANES = ["axial", "coronal", "sagittal"];
const BORDERS = ["left", "right", "top", "bottom"];
const LETTERS = { axial: "RLAP", coronal: "RLSI", sagittal: "PASI" };

export function sidesOf(view) {
  const shown = PLANES.filter((plane) => view === "planes" || view === plane);
  const letters = (plane) => BORDERS.map((border, at) => el("span", { class: border }, LETTERS[plane][at]));
  return shown.map((plane) => el("div", { class: `sides ${plane}` }, ...letters(plane)));
}
