// Elements of the page.
import { say } from "./words.js";

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const PATHS = {
  heart: "M12 20s-7.5-4.6-7.5-10A4.2 4.2 0 0 1 12 7.4 4.2 4.2 0 0 1 19.5 10c0 5.4-7.5 10-7.5 10Z",
  more: "M4 8h9v9H4zM9 8V5h11v11h-7",
  download: "M12 4v11m0 0-4-4m4 4 4-4M5 19h14",
  delete: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A copy of a template's content; `find` looks inside of what it put on the page. */
export function place(name) {
  const view = document.getElementById("view");
  view.replaceChildren(document.getElementById(`t-${name}`).content.cloneNode(true));
  return view;
}

export function dialog(name) {
  const copy = document.getElementById(`t-${name}`).content.cloneNode(true);
  const element = copy.querySelector("dialog");
  document.body.append(element);
  element.addEventListener("close", () => element.remove());
  return element;
}

/** Asks before something is deleted. */
export function ask(title, text, yes) {
  return new Promise((resolve) => {
    const question = dialog("question");
    question.querySelector("h2").textContent = title;
    question.querySelector("p").textContent = text;
    const button = question.querySelector("[data-do=yes]");
    button.textContent = yes;
    let answer = false;
    button.addEventListener("click", () => {
      answer = true;
      question.close();
    });
    question.querySelector("[data-do=no]").addEventListener("click", () => question.close());
    question.addEventListener("close", () => resolve(answer));
    question.showModal();
  });
}

export function speak(text) {
  document.getElementById("spoken").textContent = text;
}

export function showProblem(place_, text) {
  const problem = place_.querySelector(".problem");
  problem.textContent = text;
  problem.hidden = !text;
}

export function showSteps(current) {
  const steps = document.getElementById("steps");
  steps.hidden = !current;
  let isDone = true;
  for (const step of steps.children) {
    const isCurrent = step.dataset.step === current;
    if (isCurrent) isDone = false;
    step.classList.toggle("done", isDone);
    if (isCurrent) step.setAttribute("aria-current", "step");
    else step.removeAttribute("aria-current");
  }
}

/** Heading of the view into the title and into focus, so that screen readers begin there. */
export function settle(view) {
  const heading = view.querySelector("h1");
  document.title = heading?.textContent ? `${heading.textContent} – detex Studio` : "detex Studio";
  if (heading) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
  window.scrollTo(0, 0);
}

export function photoName(index) {
  return say("photo_number", { number: index + 1 });
}
