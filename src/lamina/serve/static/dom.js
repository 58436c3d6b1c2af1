// Making elements, and putting numbers into words.

export const $ = (id) => document.getElementById(id);

// Text is only ever set as text: names and cards come from other people's files.
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const isColour = (text) => /^#[0-9a-f]{6}$/i.test(text ?? "");

export function swatch(colour) {
  const made = el("i", { class: "swatch", "aria-hidden": "true" });
  if (isColour(colour)) made.style.setProperty("--swatch", colour);
  return made;
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  let at = 0;
  while (count >= 1000 && at < units.length - 1) [count, at] = [count / 1000, at + 1];
  return `${at && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[at]}`;
}

export function amount(size, unit) {
  const whole = unit === "px" || size >= 100;
  return `${whole ? Math.round(size).toLocaleString("en") : size.toPrecision(size >= 10 ? 3 : 2)} ${unit}`;
}

export function span(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const secondsBetween = (from, to) => (new Date(to ?? Date.now()) - new Date(from)) / 1000;

export function ago(time) {
  const seconds = secondsBetween(time);
  if (!(seconds >= 0)) return "";
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(time).toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" });
}

export const counted = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// Say something to who cannot see the page change.
export function announce(text) {
  $("live").textContent = text;
}

export function fault(error, ...actions) {
  return [
    el("p", { class: "strong" }, error.message),
    error.remedy ? el("p", { class: "remedy" }, error.remedy) : null,
    actions.length ? el("p", { class: "buttons" }, ...actions) : null,
  ].filter(Boolean);
}

let shown = null;

// An error that belongs to no part of the page; null takes it away, or only the one that is over.
export function trouble(error, over = shown) {
  if (!error && over !== shown) return;
  shown = error;
  const box = $("trouble");
  box.hidden = !error;
  const close = el("button", { type: "button", class: "plain", onclick: () => trouble(null) }, "Dismiss");
  box.replaceChildren(...(error ? fault(error, close) : []));
}
