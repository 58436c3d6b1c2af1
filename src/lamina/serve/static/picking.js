// Files of a scan: dropped, or chosen one by one or as a folder.

const JUNK = /^(\..*|Thumbs\.db|desktop\.ini|__MACOSX)$/i;

const isJunk = (path) => path.split("/").some((part) => JUNK.test(part));

export function fromInput(input) {
  const picked = [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
  input.value = ""; // so that the same files can be chosen again
  return picked.filter(({ path }) => !isJunk(path));
}

export async function fromDrop(transfer) {
  // Entries must be asked for before the event is over.
  const entries = [...transfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile())
    .filter(Boolean);
  const lists = await Promise.all(entries.map((entry) => walk(entry)));
  return lists.flat().filter(({ path }) => !isJunk(path));
}

async function walk(entry, folder = "") {
  if (entry instanceof File) return [{ file: entry, path: entry.name }];
  const path = folder + entry.name;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // Browsers hand out a hundred or so at a time.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    for (const one of some) found.push(...(await walk(one, `${path}/`)));
  }
  return found;
}

export function describe(files) {
  const size = files.reduce((sum, { file }) => sum + file.size, 0);
  const folders = new Set(files.map(({ path }) => path.split("/").slice(0, -1)[0]));
  const [folder] = folders;
  if (files.length === 1) return { name: files[0].path.split("/").pop(), size };
  return { name: folders.size === 1 && folder ? folder : files.map(({ path }) => path).join(", "), size };
}

const letters = (text) => text.toLowerCase().replace(/[^a-z0-9]/g, "");
const words = (text) => text.toLowerCase().split(/[^a-z0-9]+/);

export const isScan = ({ path }) => /\.(nii|nii\.gz|nrrd|mha|png|tiff?|jpe?g|bmp)$/i.test(path);

export const isPicture = ({ path }) => /\.(png|tiff?|jpe?g|bmp)$/i.test(path);

// Return files in the order of channels: by their names where these tell, else in that of the names.
export function byChannel(channels, files) {
  const sorted = [...files].sort((one, other) => (one.path < other.path ? -1 : 1));
  const named = channels.map((channel) => sorted.filter(({ path }) => words(path.split("/").pop()).includes(letters(channel))));
  const found = named.map(([first]) => first);
  const told = named.every(({ length }) => length === 1) && new Set(found).size === channels.length;
  return told ? found : sorted;
}
