// Grey windows: the usual ones for CT, what the values suggest for everything else.

const CT = [
  ["Soft tissue", -160, 240],
  ["Mediastinum", -125, 225],
  ["Liver", -45, 105],
  ["Lung", -1350, 150],
  ["Bone", -450, 1050],
  ["Brain", 0, 80],
];

// As elsewhere in Lamina: air that is far below nought, and nothing beyond metal.
const isCT = (image) => image.global_min <= -300 && image.global_max <= 5000;

export function windowsOf(image) {
  const full = ["Whole range", image.global_min, Math.max(image.global_max, image.global_min + 1e-6)];
  const own = ["Automatic", image.robust_min, Math.max(image.robust_max, image.robust_min + 1e-6)];
  const shown = isCT(image) ? [...CT, own, full] : [own, full];
  return shown.map(([name, low, high]) => ({ name, low, high }));
}
