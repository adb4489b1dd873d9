// Texts in the reader's language.
import { read } from "./server.js";

export const language = document.documentElement.lang;
let texts = {};

export async function loadTexts() {
  texts = await read(`/api/texts/${language}`);
}

/** A text with its values put in: `{count} pictures`. */
export function say(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** A text where there is one of that key, else another text as it is. */
export function sayOr(key, otherwise, values = {}) {
  return key in texts ? say(key, values) : otherwise;
}

/** What went wrong, for people, with what the service said where that helps. */
export function sayError(error) {
  const known = sayOr(`error_${(error.reason ?? "").toLowerCase()}`, "");
  if (known) return known;
  if (error.status === 0) return say("error_unreachable");
  const fields = (error.fields ?? []).map((each) => each.description).join(" ");
  return [say("error_other"), error.message || fields].filter(Boolean).join(" ");
}

export function sayDuration(seconds) {
  if (seconds < 50) return say("seconds", { count: Math.max(5, Math.round(seconds / 5) * 5) });
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return say(minutes === 1 ? "minute" : "minutes", { count: minutes });
  return say("hours", { count: Math.round(minutes / 60) });
}

export function sayTime(iso) {
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(new Date(iso));
}

export const listed = (items) => new Intl.ListFormat(language, { type: "conjunction" }).format(items);
