/**
 * From a file of the person's to a picture that peers take: PNG, JPEG or WebP, upright, no side above the largest that
 * can be drawn. What already is one stays as it is, to the byte.
 */

import { SIDE_MAX } from "./parameters";

export const PICTURE_BYTES_MAX = 64 << 20;
/** What is offered in the browser's dialog; others that it can read are made into PNGs. */
export const PICTURE_TYPES = ["image/png", "image/jpeg", "image/webp"];

/** Where the turn of a JPEG stands: in its first segments. */
const HEAD_BYTES = 128 << 10;
const JPEG_QUALITY = 0.95;
/** "Exif" */
const EXIF = 0x45786966;

export interface Prepared {
  blob: Blob;
  width: number;
  height: number;
}

/** The type by the first bytes, since names lie; empty: none that peers take. */
export function typeOf(head: Uint8Array): string {
  const text = String.fromCharCode(...head.subarray(0, 12));
  if (text.startsWith("\x89PNG\r\n\x1a\n")) return "image/png";
  if (text.startsWith("\xff\xd8\xff")) return "image/jpeg";
  return text.startsWith("RIFF") && text.endsWith("WEBP") ? "image/webp" : "";
}

/** The sides within what can be drawn, in proportion. */
export function fitted(width: number, height: number): { width: number; height: number } {
  const scale = Math.min(1, SIDE_MAX / Math.max(width, height));
  const side = (length: number) => Math.max(1, Math.round(length * scale));
  return { width: side(width), height: side(height) };
}

/**
 * How a JPEG is to be turned to stand upright, 1: not at all.
 *
 * Cameras write pixels as the sensor lies and the turn beside them. A peer that heeded only the pixels would draw
 * from a picture that lies on its side, and a mask painted on the upright one would not fit.
 *
 * Source: Exif 2.32, 4.6.4, tag 0x0112.
 */
export function orientationOf(jpeg: Uint8Array): number {
  const view = new DataView(jpeg.buffer, jpeg.byteOffset, jpeg.byteLength);
  let at = 2;
  while (at + 4 <= view.byteLength && view.getUint8(at) === 0xff) {
    const isApp1 = view.getUint8(at + 1) === 0xe1 && at + 18 <= view.byteLength;
    if (isApp1 && view.getUint32(at + 4) === EXIF) return orientationIn(view, at + 10);
    at += 2 + view.getUint16(at + 2);
  }
  return 1;
}

/** Reads the first directory of the TIFF that begins there. */
function orientationIn(view: DataView, tiff: number): number {
  const little = view.getUint16(tiff) === 0x4949;
  const directory = tiff + view.getUint32(tiff + 4, little);
  if (directory + 2 > view.byteLength) return 1;
  const entries = view.getUint16(directory, little);
  for (let index = 0; index < entries; index += 1) {
    const entry = directory + 2 + index * 12;
    if (entry + 12 > view.byteLength) return 1;
    if (view.getUint16(entry, little) === 0x0112) return view.getUint16(entry + 8, little);
  }
  return 1;
}

/** Throws what the browser throws where the file is no picture. */
export async function prepare(file: Blob): Promise<Prepared> {
  const bitmap = await createImageBitmap(file);
  try {
    const head = new Uint8Array(await file.slice(0, HEAD_BYTES).arrayBuffer());
    const type = typeOf(head);
    const isUpright = type !== "image/jpeg" || orientationOf(head) <= 1;
    const sides = fitted(bitmap.width, bitmap.height);
    const fits = sides.width === bitmap.width && sides.height === bitmap.height;
    if (type !== "" && isUpright && fits) return { blob: new Blob([file], { type }), ...sides };
    const written = type === "image/jpeg" ? type : "image/png";
    return { blob: await drawnAnew(bitmap, sides.width, sides.height, written), ...sides };
  } finally {
    bitmap.close();
  }
}

function drawnAnew(bitmap: ImageBitmap, width: number, height: number, type: string): Promise<Blob> {
  const { canvas, context } = canvasOf(width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return blobOf(canvas, type);
}

interface Canvas {
  canvas: HTMLCanvasElement;
  context: CanvasRenderingContext2D;
}

/** A canvas whose pixels are read back. */
export function canvasOf(width: number, height: number): Canvas {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("no canvas");
  return { canvas, context };
}

export function blobOf(canvas: HTMLCanvasElement, type: string): Promise<Blob> {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), type, JPEG_QUALITY);
  });
}
