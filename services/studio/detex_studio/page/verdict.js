// The verdict in plain words.
import { make } from "./elements.js";
import { say, sayOr } from "./words.js";

export function fillVerdict(section, told) {
  section.classList.add(told.verdict);
  section.querySelector(".mark")?.replaceChildren(told.verdict === "fit" ? "✓" : told.verdict === "doubtful" ? "!" : "×");
  section.querySelector("h1, h3").textContent = say(`verdict_${told.verdict}`);
  section.querySelector(".lead").textContent = say(`verdict_${told.verdict}_text`);
  section.querySelector(".findings").replaceChildren(
    ...told.findings.map((each) => make("li", {}, sayOr(`finding_${each.key}`, each.text))),
  );
}
