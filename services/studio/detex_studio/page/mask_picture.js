// A photo with its mask: what is not the product is veiled.

export function loadImage(address) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error(address));
    image.src = address;
  });
}

/** A mask, white on black, as a canvas whose alpha is the mask. */
export function maskCanvas(image, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i];
  context.putImageData(pixels, 0, 0);
  return canvas;
}

export function paint(canvas, photo, mask) {
  const { width, height } = canvas;
  const veil = new OffscreenCanvas(width, height);
  const context = veil.getContext("2d");
  context.fillStyle = "rgba(22, 24, 23, 0.74)";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(mask, 0, 0, width, height);
  const target = canvas.getContext("2d");
  target.drawImage(photo, 0, 0, width, height);
  target.drawImage(veil, 0, 0);
}

/** White on black, as PNG. */
export async function maskFile(mask) {
  const canvas = new OffscreenCanvas(mask.width, mask.height);
  const context = canvas.getContext("2d");
  context.fillStyle = "black";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const white = new OffscreenCanvas(mask.width, mask.height);
  const inside = white.getContext("2d");
  inside.drawImage(mask, 0, 0);
  inside.globalCompositeOperation = "source-in";
  inside.fillStyle = "white";
  inside.fillRect(0, 0, white.width, white.height);
  context.drawImage(white, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}
