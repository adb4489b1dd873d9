// Calls to Studio's own server; nothing else is ever asked.

/** What went wrong: `reason` for the page's words, `message` as it was told. */
export class CallError extends Error {
  constructor(status, told) {
    super(told.message ?? "");
    this.status = status;
    this.reason = told.reason ?? "UNREACHABLE";
    this.fields = told.fields ?? [];
    this.retrySeconds = told.retry_seconds ?? null;
  }
}

export async function call(method, path, body) {
  const options = { method, headers: {} };
  if (body instanceof Blob) {
    options.body = body;
  } else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new CallError(0, {});
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new CallError(answer.status, told);
  return told;
}

export const read = (path) => call("GET", path);

/** Sends a form and tells how much of it is on its way, 0 to 1. */
export function send(path, form, onShare) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onShare(event.loaded / event.total);
    request.onerror = () => reject(new CallError(0, {}));
    request.onload = () => {
      const told = request.response ?? {};
      if (request.status >= 200 && request.status < 300) resolve(told);
      else reject(new CallError(request.status, told));
    };
    request.send(form);
  });
}

/** Listens to news until they end; returns what stops listening. A broken connection is taken up again. */
export function listen(path, onNews, onEnd = () => {}) {
  const source = new EventSource(path);
  source.onmessage = (event) => onNews(JSON.parse(event.data));
  source.addEventListener("end", () => {
    source.close();
    onEnd();
  });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) onEnd();
  };
  return () => source.close();
}

export function pictureUrl(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
}
