// One picture, large, with where it comes from.
import { dialog, photoName } from "./elements.js";
import { say, sayTime } from "./words.js";

function asked({ choice }) {
  const borrowed = (name) => (choice[name] === null ? "" : `${say(`borrow_${name}`)}: ${photoName(choice[name])}`);
  const scene = choice.preset ? say(`scene_${choice.preset}`) : "";
  const parts = [scene, choice.scene, borrowed("pose"), borrowed("background")].filter(Boolean);
  return parts.join(" · ") || say("nothing_asked");
}

export function openViewer(pictures, pictureId, actions) {
  const box = dialog("viewer");
  let index = pictures.findIndex((each) => each.picture_id === pictureId);

  function show() {
    const picture = pictures[index];
    const image = box.querySelector("img");
    image.src = `/api/pictures/${picture.picture_id}.png`;
    image.alt = picture.prompt;
    box.querySelector(".prompt").textContent = asked(picture);
    box.querySelector(".time").textContent = sayTime(picture.created);
    box.querySelector(".pixels").textContent = `${picture.width} × ${picture.height}`;
    box.querySelector(".seed").textContent = picture.seed;
    box.querySelector(".actions").replaceChildren(...actions(picture, () => box.close()));
    box.querySelector("[data-do=previous]").disabled = index === 0;
    box.querySelector("[data-do=next]").disabled = index === pictures.length - 1;
  }

  function go(step) {
    const next = index + step;
    if (next < 0 || next >= pictures.length) return;
    index = next;
    show();
  }

  box.querySelector("[data-do=previous]").addEventListener("click", () => go(-1));
  box.querySelector("[data-do=next]").addEventListener("click", () => go(1));
  box.querySelector("[data-do=close]").addEventListener("click", () => box.close());
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") go(-1);
    if (event.key === "ArrowRight") go(1);
  });
  box.addEventListener("click", (event) => {
    if (event.target === box) box.close();
  });
  show();
  box.showModal();
}
