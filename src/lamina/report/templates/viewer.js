// Draws pairs of surfaces that turn together: left the reference, right the prediction.
"use strict";
(() => {
  const VERTEX = `
    attribute vec3 place; attribute vec3 normal; attribute float distance;
    uniform mat3 turn; uniform float zoom, aspect;
    varying vec3 facing; varying float far;
    void main() {
      vec3 p = turn * place;
      gl_Position = vec4(p.x * zoom / max(aspect, 1.0), p.y * zoom * min(aspect, 1.0), -p.z * 0.5, 1.0);
      facing = turn * normal; far = distance;
    }`;
  const FRAGMENT = `
    precision mediump float;
    varying vec3 facing; varying float far;
    uniform vec3 colour; uniform bool measured;
    void main() {
      vec3 n = normalize(facing);
      vec3 near = vec3(0.90, 0.90, 0.87), middle = vec3(0.90, 0.62, 0.0), last = vec3(0.42, 0.05, 0.08);
      vec3 ramp = far < 0.5 ? mix(near, middle, far * 2.0) : mix(middle, last, far * 2.0 - 1.0);
      vec3 base = measured ? ramp : colour;
      float light = 0.38 + 0.62 * max(dot(n, normalize(vec3(-0.4, 0.5, 0.8))), 0.0);
      float shine = pow(max(dot(n, normalize(vec3(-0.2, 0.3, 1.0))), 0.0), 30.0);
      gl_FragColor = vec4(base * light + 0.12 * shine, 1.0);
    }`;
  // Seen from the front: the patient's right on the left, the head up.
  const FRONT = [-1, 0, 0, 0, 0, 1, 0, 1, 0];
  const AXES = [["R", 1, 0, 0], ["L", -1, 0, 0], ["A", 0, 1, 0], ["P", 0, -1, 0], ["S", 0, 0, 1], ["I", 0, 0, -1]];

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;

  function normals(places, faces) {
    const sums = new Float32Array(places.length);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [faces[f] * 3, faces[f + 1] * 3, faces[f + 2] * 3];
      const u = [0, 1, 2].map((i) => places[b + i] - places[a + i]);
      const v = [0, 1, 2].map((i) => places[c + i] - places[a + i]);
      const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
      for (const corner of [a, b, c]) for (let i = 0; i < 3; i++) sums[corner + i] += n[i];
    }
    return sums;
  }

  function loaded(gl, surface) {
    const places = Float32Array.from(new Int16Array(bytes(surface.vertices)), (v) => v / 32767);
    const faces = new Uint32Array(bytes(surface.faces));
    const buffer = (kind, data) => {
      const made = gl.createBuffer();
      gl.bindBuffer(kind, made);
      gl.bufferData(kind, data, gl.STATIC_DRAW);
      return made;
    };
    return {
      name: surface.name,
      colour: surface.colour,
      count: faces.length,
      place: buffer(gl.ARRAY_BUFFER, places),
      normal: buffer(gl.ARRAY_BUFFER, normals(places, faces)),
      distance: buffer(gl.ARRAY_BUFFER, Float32Array.from(new Uint8Array(bytes(surface.distances)), (v) => v / 255)),
      faces: buffer(gl.ELEMENT_ARRAY_BUFFER, faces),
    };
  }

  function program(gl) {
    const made = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    gl.useProgram(made);
    return made;
  }

  // Turn by angles about the screen's axes, after what was turned before; columns run down.
  function turned(m, about_up, about_right) {
    const [c, s, d, t] = [Math.cos(about_up), Math.sin(about_up), Math.cos(about_right), Math.sin(about_right)];
    const r = [[c, 0, s], [t * s, d, -t * c], [-d * s, t, d * c]];
    const out = [];
    for (let column = 0; column < 3; column++)
      for (let row = 0; row < 3; row++)
        out.push(r[row].reduce((sum, value, i) => sum + value * m[column * 3 + i], 0));
    return out;
  }

  function show(box, scene) {
    const canvas = box.querySelector("canvas");
    const gl = canvas.getContext("webgl", { alpha: true, antialias: true, preserveDrawingBuffer: true });
    if (!gl || !gl.getExtension("OES_element_index_uint")) {
      box.classList.add("unseen");
      return;
    }
    const shaders = program(gl);
    const sides = [scene.reference, scene.predicted].map((side) => side.map((s) => loaded(gl, s)));
    const uniform = (name) => gl.getUniformLocation(shaders, name);
    const letters = AXES.map(([letter]) => {
      const made = document.createElement("i");
      made.textContent = letter;
      box.querySelector(".axes").append(made);
      return made;
    });
    const article = box.closest("article");
    const measured = article.querySelector("input.measured");
    const hidden = () => [...article.querySelectorAll("input.structure:not(:checked)")].map((input) => input.value);
    let turn = turned(FRONT, 0.45, 0.25), zoom = 1, idle = true, held = null, seen = false;

    const bind = (name, data, size) => {
      const at = gl.getAttribLocation(shaders, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, data);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, size, gl.FLOAT, false, 0, 0);
    };
    function draw() {
      const ratio = window.devicePixelRatio || 1;
      const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.enable(gl.DEPTH_TEST);
      gl.uniformMatrix3fv(uniform("turn"), false, turn);
      gl.uniform1f(uniform("zoom"), zoom);
      gl.uniform1f(uniform("aspect"), width / 2 / height);
      gl.uniform1i(uniform("measured"), measured.checked ? 1 : 0);
      const left_out = hidden();
      sides.forEach((side, number) => {
        gl.viewport((number * width) / 2, 0, width / 2, height);
        for (const surface of side.filter(({ name }) => !left_out.includes(name))) {
          gl.uniform3fv(uniform("colour"), surface.colour);
          bind("place", surface.place, 3);
          bind("normal", surface.normal, 3);
          bind("distance", surface.distance, 1);
          gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, surface.faces);
          gl.drawElements(gl.TRIANGLES, surface.count, gl.UNSIGNED_INT, 0);
        }
      });
      AXES.forEach(([, x, y, z], i) => {
        const at = [0, 1, 2].map((row) => turn[row] * x + turn[3 + row] * y + turn[6 + row] * z);
        letters[i].style.transform = `translate(${at[0] * 24}px, ${-at[1] * 24}px)`;
        letters[i].style.opacity = at[2] < -0.35 ? 0.3 : 1;
      });
    }

    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    let before = 0;
    function tick(now) {
      if (!seen || !idle || still) return;
      turn = turned(turn, Math.min(now - before, 50) * 0.0004, 0);
      before = now;
      draw();
      requestAnimationFrame(tick);
    }
    canvas.addEventListener("pointerdown", (event) => {
      held = [event.clientX, event.clientY];
      idle = false;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held) return;
      turn = turned(turn, (event.clientX - held[0]) * 0.01, (event.clientY - held[1]) * 0.01);
      held = [event.clientX, event.clientY];
      draw();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (held = null));
    canvas.addEventListener("dblclick", () => {
      [turn, zoom] = [FRONT, 1];
      draw();
    });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
      if (step) [idle, turn] = [false, turned(turn, ...step)];
      else if (event.key === "+" || event.key === "-") zoom *= event.key === "+" ? 1.1 : 1 / 1.1;
      else return;
      event.preventDefault();
      draw();
    });
    article.addEventListener("change", draw);
    new ResizeObserver(draw).observe(canvas);
    new IntersectionObserver(([entry]) => {
      seen = entry.isIntersecting;
      if (seen) requestAnimationFrame((now) => { before = now; draw(); tick(now); });
    }).observe(canvas);
  }

  const scenes = JSON.parse(document.getElementById("scenes").textContent);
  document.querySelectorAll(".scene").forEach((box) => show(box, scenes[box.dataset.scene]));

  // A structure that is taken away in the legend is gone from the slices too.
  document.querySelectorAll("input.structure").forEach((input) =>
    input.addEventListener("change", () =>
      input.closest("article").querySelectorAll(`[data-name=${CSS.escape(input.value)}]`).forEach((drawn) => {
        drawn.style.display = input.checked ? "" : "none";
      })));

  // A click on a heading sorts its table.
  document.querySelectorAll("table.sorted th").forEach((head) => {
    const table = head.closest("table"), column = head.cellIndex;
    head.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "ascending" : "descending");
      const key = (row) => {
        const { value } = row.cells[column].dataset;
        return value === undefined ? row.cells[column].textContent : Number(value || "NaN");
      };
      const order = (a, b) =>
        typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : isNaN(a) - isNaN(b) || a - b;
      const rows = [...table.tBodies[0].rows].sort((a, b) => order(key(a), key(b)) * (down ? 1 : -1));
      table.tBodies[0].append(...rows);
    });
  });
})();
