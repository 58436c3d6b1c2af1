// The list of structures: shown or not, colour, size, what is odd about them.
import { $, amount, el, swatch } from "./dom.js";

const ABSENT = "not found";

// Names are long and have no spaces; they may break after an underscore.
const breakable = (name) => name.split(/(?<=_)/).flatMap((part) => [part, el("wbr")]);

export function listStructures(structures, { overlap, onVisible, onGoTo }) {
  const visible = new Set(structures.map(({ value }) => value));
  const boxes = new Map();
  const changed = () => onVisible(new Set(visible));
  const toggle = (value, on) => {
    if (on) visible.add(value);
    else visible.delete(value);
    boxes.get(value).checked = on;
  };
  const rows = structures.map((structure) => {
    const { name, value, color, size, unit, flags } = structure;
    const box = el("input", { type: "checkbox", checked: true, "aria-label": `Show ${name}` });
    box.addEventListener("change", () => {
      toggle(value, box.checked);
      changed();
    });
    boxes.set(value, box);
    const isAbsent = size === 0 || flags.includes(ABSENT);
    const go = el("button", { type: "button", class: "plain name", title: `Go to ${name}`, disabled: isAbsent, onclick: () => onGoTo(structure) }, ...breakable(name));
    return el(
      "li",
      { class: isAbsent ? "absent" : null },
      el("label", { class: "box" }, box, swatch(color)),
      go,
      el("span", { class: "number size" }, isAbsent ? "none found" : amount(size, unit)),
      ...flags.filter((flag) => flag !== ABSENT).map((flag) => el("p", { class: "flag small" }, flag)),
    );
  });
  $("structures").replaceChildren(...rows);
  const every = (on) => {
    structures.forEach(({ value }) => toggle(value, on));
    changed();
  };
  $("all").addEventListener("click", () => every(true));
  $("none").addEventListener("click", () => every(false));
  const total = structures.reduce((sum, { size }) => sum + size, 0);
  $("total").textContent = structures.length > 1 && total && !overlap ? `Together ${amount(total, structures[0].unit)}` : "";
  return {
    toggleAt(index) {
      const structure = structures[index];
      if (!structure) return null;
      toggle(structure.value, !visible.has(structure.value));
      changed();
      return `${structure.name} ${visible.has(structure.value) ? "shown" : "hidden"}`;
    },
  };
}
