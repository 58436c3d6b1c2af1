// A label map whose values are exchanged for 0, 1, 2, ... in the order of the structures, so that
// any values can be coloured, hidden and found again.

export class Labels {
  // Takes NiiVue's image of the file, and changes it.
  constructor(image, structures) {
    this.image = image;
    this.structures = structures;
    const { dims, scl_slope: slope, scl_inter: inter } = image.hdr;
    const scale = slope || 1;
    this.dims = dims.slice(1, 4).map((size) => Math.max(1, size));
    const places = new Map(structures.map(({ value }, i) => [value, i + 1]));
    const stored = image.img;
    this.indices = new Uint8Array(stored.length);
    for (let i = 0; i < stored.length; i++) {
      this.indices[i] = places.get(Math.round(stored[i] * scale + inter)) ?? 0;
    }
    Object.assign(image.hdr, { datatypeCode: 2, numBitsPerVoxel: 8, scl_slope: 1, scl_inter: 0, intent_code: 1002 });
    image.img = this.indices.slice();
  }

  show(visible) {
    const table = Uint8Array.from([0, ...this.structures.map(({ value }) => visible.has(value))], (on, i) => (on ? i : 0));
    const { img } = this.image;
    for (let i = 0; i < img.length; i++) img[i] = table[this.indices[i]];
  }

  // A colour table for NiiVue, which knows alpha only as none or all.
  colours() {
    const parts = (at) => [0, ...this.structures.map(({ color }) => parseInt(color.slice(at, at + 2), 16) || 0)];
    return {
      R: parts(1),
      G: parts(3),
      B: parts(5),
      A: [0, ...this.structures.map(() => 255)],
      labels: ["", ...this.structures.map(({ name }) => name)],
    };
  }

  // The voxel nearest to the middle of a structure where most of it is seen; null without any.
  middle(structure) {
    const wanted = this.structures.indexOf(structure) + 1;
    const [nx, ny, nz] = this.dims;
    const area = nx * ny;
    let best = { count: 0 };
    for (let z = 0; z < nz; z++) {
      let [count, sx, sy] = [0, 0, 0];
      for (let i = 0; i < area; i++) {
        if (this.indices[z * area + i] !== wanted) continue;
        count++;
        sx += i % nx;
        sy += Math.floor(i / nx);
      }
      if (count > best.count) best = { count, z, x: sx / count, y: sy / count };
    }
    if (!best.count) return null;
    let nearest = { distance: Infinity };
    for (let i = 0; i < area; i++) {
      if (this.indices[best.z * area + i] !== wanted) continue;
      const [x, y] = [i % nx, Math.floor(i / nx)];
      const distance = (x - best.x) ** 2 + (y - best.y) ** 2;
      if (distance < nearest.distance) nearest = { distance, voxel: [x, y, best.z] };
    }
    return nearest.voxel;
  }
}
