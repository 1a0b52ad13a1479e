/** What painting a mask computes. Pure. On the canvas what is painted is opaque, and the rest is clear. */

/** One thing that was done, so that it can be taken back. */
export type Act =
  | { kind: "stroke"; erases: boolean; diameter: number; points: Point[] }
  | { kind: "all" | "none" | "invert" };

export interface Point {
  x: number;
  y: number;
}

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** Where a picture of that size is in a box that it is shown in as large as it fits. */
export function shownIn(box: Box, width: number, height: number): Box & { scale: number } {
  const scale = Math.min(box.width / width, box.height / height);
  const [across, down] = [width * scale, height * scale];
  return {
    left: box.left + (box.width - across) / 2,
    top: box.top + (box.height - down) / 2,
    width: across,
    height: down,
    scale,
  };
}

/** A brush's diameter in the picture's pixels; its size is in hundredths of the shorter side. */
export function diameterOf(size: number, width: number, height: number): number {
  return Math.max(1, (Math.min(width, height) * size) / 100);
}

/** Everything before the last act that leaves nothing of what was is of no effect. */
export function effective(acts: Act[]): Act[] {
  const last = acts.findLastIndex(({ kind }) => kind === "all" || kind === "none");
  return last < 0 ? acts : acts.slice(last);
}

/** Makes painted pixels white and others black, without greys: edges would stay half. */
export function toBlackAndWhite(rgba: Uint8ClampedArray): void {
  for (let at = 0; at < rgba.length; at += 4) {
    rgba.fill((rgba[at + 3] ?? 0) >= 128 ? 255 : 0, at, at + 3);
    rgba[at + 3] = 255;
  }
}

/** Makes light pixels painted and others clear; colours are what they will be. */
export function fromBlackAndWhite(rgba: Uint8ClampedArray): void {
  for (let at = 0; at < rgba.length; at += 4) {
    const light = 0.299 * (rgba[at] ?? 0) + 0.587 * (rgba[at + 1] ?? 0) + 0.114 * (rgba[at + 2] ?? 0);
    rgba[at + 3] = light >= 128 ? 255 : 0;
  }
}

/** How much is painted, from 0 to 1. */
export function shareOf(rgba: Uint8ClampedArray): number {
  let painted = 0;
  for (let at = 3; at < rgba.length; at += 4) painted += rgba[at] ?? 0;
  return painted / ((rgba.length / 4) * 255);
}

/** Says whether a mask of that share differs from none: all painted, or nothing, is the whole picture. */
export function isMask(share: number): boolean {
  return share > 0.0005 && share < 0.9995;
}

/** How much a strength leaves of a picture, as a level from 0, nearly all, to 4, nothing. */
export function levelOf(strength: number): number {
  return [0.3, 0.5, 0.75, 0.95].filter((bound) => strength > bound).length;
}
