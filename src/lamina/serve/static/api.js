// The server, as its HTTP interface describes it. Errors carry what to do about them.

export class ServerError extends Error {
  constructor(message, remedy = "", status = 0) {
    super(message);
    this.remedy = remedy;
    this.status = status;
  }
}

const LOST = ["The server does not answer.", "Look whether lamina still runs, then try again."];
const ENDED = ["done", "failed", "cancelled"];
const AGAIN_MS = 5000;

export const isActive = (job) => !ENDED.includes(job.state);
export const fileUrl = (job, name) => `api/jobs/${encodeURIComponent(job.id)}/files/${encodeURIComponent(name)}`;

function refusal(status, body) {
  const { message, remedy } = body?.error ?? {};
  return new ServerError(message ?? `The server refused (status ${status}).`, remedy ?? "", status);
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new ServerError(...LOST);
  }
  if (answer.ok) return answer;
  throw refusal(answer.status, await answer.json().catch(() => null));
}

const json = async (path, options) => (await ask(path, options)).json();
const jobPath = (id) => `api/jobs/${encodeURIComponent(id)}`;

export const models = () => json("api/models");
export const jobs = () => json("api/jobs");
export const job = (id) => json(jobPath(id));
export const cancel = (id) => json(`${jobPath(id)}/cancel`, { method: "POST" });
export const remove = (id) => ask(jobPath(id), { method: "DELETE" });

// Fetch a file as a Blob and tell how far it has come, 0 to 1.
export async function download(path, onProgress = () => {}) {
  const answer = await ask(path);
  const size = Number(answer.headers.get("Content-Length"));
  const reader = answer.body.getReader();
  const parts = [];
  for (let got = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return new Blob(parts);
    parts.push(value);
    got += value.length;
    if (size) onProgress(Math.min(1, got / size));
  }
}

// Send files, each as the field it names; only XMLHttpRequest tells how far an upload has come.
export function upload(model, pixelSize, files, onProgress) {
  const request = new XMLHttpRequest();
  const form = new FormData();
  for (const { file, path, field } of files) form.append(field ?? "files", file, path);
  const sent = new Promise((resolve, reject) => {
    request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(loaded, total));
    request.addEventListener("load", () => {
      let body = null;
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // a proxy may answer in HTML
      }
      if (request.status === 202 && body) resolve(body);
      else reject(refusal(request.status, body));
    });
    request.addEventListener("error", () => reject(new ServerError("The upload broke off.", LOST[1])));
    request.addEventListener("abort", () => resolve(null));
  });
  const asked = new URLSearchParams({ model, ...(pixelSize && { pixel_size: pixelSize }) });
  request.open("POST", `api/jobs?${asked}`);
  request.send(form);
  return { sent, stop: () => request.abort() };
}

// Hear of a job until it has ended; returns how to stop listening.
export function follow(id, onJob, onLost) {
  let source, timer;
  const listen = () => {
    source = new EventSource(`${jobPath(id)}/events`);
    source.addEventListener("message", ({ data }) => {
      const heard = JSON.parse(data);
      onLost(false);
      if (!isActive(heard)) source.close();
      onJob(heard);
    });
    source.addEventListener("error", () => {
      onLost(true);
      // After a lost connection the browser tries again by itself, after a refusal it never does.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(listen, AGAIN_MS);
    });
  };
  listen();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
