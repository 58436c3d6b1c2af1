// Model cards: the part of Markdown that they use, as elements. Nothing in them is taken for HTML.
import { el } from "./dom.js";

const ESCAPED = /\\([\\`*_[\]<>|#-])/g;
const INLINE = /(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s][^*]*\*)/;

const plain = (text) => text.replace(/\uE000(\d+);/g, (_, code) => String.fromCharCode(code));
const guarded = (text) => text.replace(ESCAPED, (_, sign) => `\uE000${sign.charCodeAt(0)};`);

function inline(text) {
  return guarded(text)
    .split(INLINE)
    .filter(Boolean)
    .map((part) => {
      if (/^`.+`$/.test(part)) return el("code", {}, plain(part.slice(1, -1)));
      if (/^\*\*.+\*\*$/.test(part)) return el("strong", {}, plain(part.slice(2, -2)));
      if (/^\*.+\*$/.test(part)) return el("em", {}, plain(part.slice(1, -1)));
      return plain(part);
    });
}

function table(lines) {
  const cells = (line) =>
    guarded(line).trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim()));
  const row = (line, kind) => el("tr", {}, ...cells(line).map((cell) => el(kind, {}, ...cell)));
  const [head, , ...body] = lines;
  const made = el("table", {}, el("thead", {}, row(head, "th")), el("tbody", {}, ...body.map((line) => row(line, "td"))));
  return el("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Table" }, made);
}

// Lines of one block, told by its first.
const KINDS = [
  { is: (line) => /^```/.test(line), fenced: true },
  { is: (line) => /^#{1,6} /.test(line), single: true, make: ([line]) => heading(line) },
  { is: (line) => /^\|/.test(line), make: (lines) => table(lines) },
  { is: (line) => /^[-*] /.test(line), make: (lines) => el("ul", {}, ...lines.map((line) => el("li", {}, ...inline(line.slice(2))))) },
  { is: (line) => /^ {4}/.test(line), make: (lines) => code(lines.map((line) => line.slice(4))) },
];

const code = (lines) => el("pre", { tabindex: "0" }, el("code", {}, lines.join("\n").trimEnd()));

function heading(line) {
  const [, signs, text] = /^(#+) (.*)$/.exec(line);
  return el(`h${Math.min(6, signs.length + 2)}`, {}, ...inline(text));
}

const kindOf = (line) => KINDS.find(({ is }) => is(line));

export function rendered(text) {
  const lines = String(text ?? "").split(/\r?\n/);
  const blocks = [];
  while (lines.length) {
    if (!lines[0].trim()) {
      lines.shift();
      continue;
    }
    const kind = kindOf(lines[0]);
    if (kind?.fenced) {
      lines.shift();
      const end = lines.findIndex((line) => /^```/.test(line));
      const body = lines.splice(0, end < 0 ? lines.length : end);
      lines.shift();
      blocks.push(code(body));
      continue;
    }
    let count = 1;
    while (!kind?.single && count < lines.length && lines[count].trim() && kindOf(lines[count]) === kind) count++;
    const block = lines.splice(0, count);
    blocks.push(kind ? kind.make(block) : el("p", {}, ...inline(block.join(" "))));
  }
  return blocks;
}
