// Brush and eraser over a mask, by mouse, pen, finger or keyboard.
import { dialog, photoName, showProblem } from "./elements.js";
import { maskFile, paint } from "./mask_picture.js";
import { call } from "./server.js";
import { sayError } from "./words.js";

const MOST_UNDO = 30;
const SMALLEST_SIDE = 720;

/** Opens a photo's mask to paint on; resolves to the new training set, or to null where nothing was saved. */
export function openPainter(setId, index, photo, mask) {
  const box = dialog("painter");
  const canvas = box.querySelector("canvas");
  const size = box.querySelector("input[type=range]");
  // Small photos are painted on enlarged, so that the brush is fine enough.
  const scale = Math.max(1, SMALLEST_SIDE / Math.max(mask.width, mask.height));
  const working = new OffscreenCanvas(Math.round(mask.width * scale), Math.round(mask.height * scale));
  const layer = working.getContext("2d", { willReadFrequently: true });
  layer.drawImage(mask, 0, 0, working.width, working.height);
  const past = [];
  let tool = "brush";
  let last = null;
  const cursor = { x: working.width / 2, y: working.height / 2, isShown: false };

  box.querySelector("h2").textContent = photoName(index);
  canvas.width = working.width;
  canvas.height = working.height;

  function redraw() {
    paint(canvas, photo, working);
    if (!cursor.isShown) return;
    const context = canvas.getContext("2d");
    context.lineWidth = 2;
    context.strokeStyle = "white";
    context.beginPath();
    context.arc(cursor.x, cursor.y, size.valueAsNumber / 2, 0, 2 * Math.PI);
    context.stroke();
  }

  function remember() {
    past.push(layer.getImageData(0, 0, working.width, working.height));
    if (past.length > MOST_UNDO) past.shift();
  }

  function stroke(from, to) {
    layer.globalCompositeOperation = tool === "brush" ? "source-over" : "destination-out";
    layer.lineCap = "round";
    layer.lineWidth = size.valueAsNumber;
    layer.strokeStyle = "white";
    layer.beginPath();
    layer.moveTo(from.x, from.y);
    layer.lineTo(to.x + 0.01, to.y);
    layer.stroke();
    redraw();
  }

  function at(event) {
    const frame = canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - frame.left) / frame.width) * canvas.width,
      y: ((event.clientY - frame.top) / frame.height) * canvas.height,
    };
  }

  canvas.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    remember();
    last = at(event);
    stroke(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    Object.assign(cursor, at(event), { isShown: true });
    if (last === null) return redraw();
    const now = at(event);
    stroke(last, now);
    last = now;
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (last = null));
  canvas.addEventListener("pointerleave", () => {
    cursor.isShown = false;
    redraw();
  });

  function choose(name) {
    tool = name;
    for (const button of box.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", button.dataset.tool === name);
    }
  }

  function undo() {
    const before = past.pop();
    if (before) layer.putImageData(before, 0, 0);
    redraw();
  }

  canvas.addEventListener("keydown", (event) => {
    const step = Math.max(4, size.valueAsNumber / 2);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves) {
      cursor.x = Math.min(canvas.width, Math.max(0, cursor.x + moves[event.key][0]));
      cursor.y = Math.min(canvas.height, Math.max(0, cursor.y + moves[event.key][1]));
      cursor.isShown = true;
      redraw();
    } else if (event.key === " ") {
      remember();
      stroke(cursor, cursor);
    } else if (event.key === "b") choose("brush");
    else if (event.key === "e") choose("eraser");
    else if (event.key === "[") size.valueAsNumber -= 6;
    else if (event.key === "]") size.valueAsNumber += 6;
    else return;
    event.preventDefault();
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      undo();
    }
  });
  for (const button of box.querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => choose(button.dataset.tool));
  }
  box.querySelector("[data-do=undo]").addEventListener("click", undo);
  redraw();
  box.showModal();
  return new Promise((resolve) => {
    let saved = null;
    box.querySelector("[data-do=cancel]").addEventListener("click", () => box.close());
    box.querySelector("[data-do=save]").addEventListener("click", async (event) => {
      event.target.disabled = true;
      try {
        saved = await call("PUT", `/api/sets/${setId}/masks/${index}`, await maskFile(working));
        box.close();
      } catch (error) {
        showProblem(box, sayError(error));
      } finally {
        event.target.disabled = false;
      }
    });
    box.addEventListener("close", () => resolve(saved));
  });
}
