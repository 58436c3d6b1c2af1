// Surfaces in a binary glTF file as Lamina writes it: triangles in patient mm, one colour each.

const MAGIC = 0x46546c67;
const NUMBERS = { 5121: Uint8Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array };
const PARTS = { SCALAR: 1, VEC3: 3 };

function chunks(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 20 || view.getUint32(0, true) !== MAGIC) throw new Error("The file of surfaces is damaged.");
  const size = view.getUint32(12, true);
  const tree = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, size)));
  return { tree, start: 20 + size + 8 };
}

export function surfacesIn(buffer) {
  const { tree, start } = chunks(buffer);
  const numbers = (index) => {
    const { bufferView, byteOffset = 0, componentType, count, type } = tree.accessors[index];
    const from = start + (tree.bufferViews[bufferView].byteOffset ?? 0) + byteOffset;
    const Kind = NUMBERS[componentType];
    const length = count * PARTS[type];
    return new Kind(buffer.slice(from, from + length * Kind.BYTES_PER_ELEMENT));
  };
  return tree.meshes.map(({ name, primitives: [{ attributes, indices }] }) => ({
    name,
    points: numbers(attributes.POSITION),
    triangles: Uint32Array.from(numbers(indices)),
  }));
}
