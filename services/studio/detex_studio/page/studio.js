// Begins here: the page's address says what is shown, so that a reload shows it again.
import { place, settle, showSteps } from "./elements.js";
import { showCheck } from "./check.js";
import { showHome } from "./home.js";
import { showLearning } from "./learning.js";
import { showName } from "./name.js";
import { showPhotos } from "./photos.js";
import { showProduct } from "./product.js";
import { read } from "./server.js";
import { loadTexts, say, sayError } from "./words.js";

const ROUTES = [
  [/^#?\/?$/, null, showHome],
  [/^#\/new$/, "photos", showPhotos],
  [/^#\/sets\/([\w-]+)$/, "check", showCheck],
  [/^#\/sets\/([\w-]+)\/name$/, "name", showName],
  [/^#\/jobs\/([\w-]+)$/, "learn", showLearning],
  [/^#\/products\/([\w-]+)$/, "pictures", showProduct],
];

let leave = () => {};
let turn = 0;

async function show() {
  leave();
  leave = () => {};
  const mine = ++turn;
  const address = location.hash || "#/";
  const [pattern, step, view] = ROUTES.find(([each]) => each.test(address)) ?? ROUTES[0];
  showSteps(step);
  try {
    const onLeave = await view(...(address.match(pattern) ?? []).slice(1), state);
    if (mine === turn) leave = onLeave ?? (() => {});
    else onLeave?.();
  } catch (error) {
    if (mine !== turn) return;
    const page = place("home");
    page.querySelector(".opening").replaceChildren(
      Object.assign(document.createElement("h1"), { textContent: say("error_title") }),
      Object.assign(document.createElement("p"), { className: "lead", textContent: sayError(error) }),
    );
    settle(page);
  }
}

for (const link of document.querySelectorAll("[data-language]")) {
  link.addEventListener("click", () => {
    link.href = `/?language=${link.dataset.language}${location.hash}`;
  });
}

await loadTexts();
const state = await read("/api/state").catch(() => null);
const banner = document.getElementById("banner");
if (state === null) banner.textContent = say("error_unreachable");
else if (!state.trainer && !state.generator) banner.textContent = say("services_away");
else if (!state.trainer) banner.textContent = say("trainer_away");
else if (!state.generator) banner.textContent = say("generator_away");
banner.hidden = !banner.textContent;
if (new URLSearchParams(location.search).has("language")) history.replaceState(null, "", `/${location.hash}`);
window.addEventListener("hashchange", show);
await show();
