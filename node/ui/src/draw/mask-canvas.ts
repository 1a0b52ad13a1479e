/** Painting on a canvas of the picture's size: what is painted is opaque. */

import { effective, fromBlackAndWhite, isMask, shareOf, toBlackAndWhite, type Act, type Point } from "./mask";
import { blobOf, canvasOf } from "./picture-file";
import type { Mask } from "./source";

/** Seen on pictures of any colour; the style makes it half clear. */
const TINT = "#ff2d78";
/** Shares are told in whole hundredths, so a small copy will do. */
const SAMPLE_SIDE = 128;
/** Acts that can be taken back; older ones become part of what it began with. */
const ACTS_MAX = 200;

export class MaskCanvas {
  private acts: Act[] = [];
  private readonly context: CanvasRenderingContext2D;

  private constructor(
    private readonly canvas: HTMLCanvasElement,
    /** What it began with. */
    private readonly base: CanvasRenderingContext2D,
  ) {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw new Error("no canvas");
    this.context = context;
    this.redraw();
  }

  static async open(canvas: HTMLCanvasElement, mask: Mask | null): Promise<MaskCanvas> {
    const { width, height } = canvas;
    const { context } = canvasOf(width, height);
    if (mask) {
      const bitmap = await createImageBitmap(mask.blob);
      context.drawImage(bitmap, 0, 0, width, height);
      bitmap.close();
      const pixels = context.getImageData(0, 0, width, height);
      fromBlackAndWhite(pixels.data);
      context.putImageData(pixels, 0, 0);
      context.globalCompositeOperation = "source-in";
      context.fillStyle = TINT;
      context.fillRect(0, 0, width, height);
      context.globalCompositeOperation = "source-over";
    }
    return new MaskCanvas(canvas, context);
  }

  get canUndo(): boolean {
    return this.acts.length > 0;
  }

  act(act: Act): void {
    if (this.acts.length >= ACTS_MAX) {
      const [oldest] = this.acts.splice(0, 1);
      if (oldest) paint(this.base, oldest);
    }
    this.acts.push(act);
    paint(this.context, act);
  }

  /** Goes on with the stroke that began last. */
  extend(points: Point[]): void {
    const act = this.acts.at(-1);
    if (act?.kind !== "stroke" || points.length === 0) return;
    const from = act.points.at(-1);
    act.points.push(...points);
    paint(this.context, { ...act, points: from ? [from, ...points] : points });
  }

  undo(): void {
    this.acts.pop();
    this.redraw();
  }

  private redraw(): void {
    const { width, height } = this.canvas;
    this.context.clearRect(0, 0, width, height);
    this.context.drawImage(this.base.canvas, 0, 0);
    for (const act of effective(this.acts)) paint(this.context, act);
  }

  share(): number {
    const { context } = canvasOf(SAMPLE_SIDE, SAMPLE_SIDE);
    context.drawImage(this.canvas, 0, 0, SAMPLE_SIDE, SAMPLE_SIDE);
    return shareOf(context.getImageData(0, 0, SAMPLE_SIDE, SAMPLE_SIDE).data);
  }

  /** What is sent; null where it is the same as none. */
  async mask(): Promise<Mask | null> {
    const share = this.share();
    if (!isMask(share)) return null;
    const { width, height } = this.canvas;
    const { canvas, context } = canvasOf(width, height);
    const pixels = this.context.getImageData(0, 0, width, height);
    toBlackAndWhite(pixels.data);
    context.putImageData(pixels, 0, 0);
    return { blob: await blobOf(canvas, "image/png"), share };
  }
}

function paint(context: CanvasRenderingContext2D, act: Act): void {
  const { width, height } = context.canvas;
  context.fillStyle = context.strokeStyle = TINT;
  switch (act.kind) {
    case "none":
      context.clearRect(0, 0, width, height);
      break;
    case "all":
      context.fillRect(0, 0, width, height);
      break;
    case "invert":
      // What was clear is filled, and what was opaque is cut out of it.
      context.globalCompositeOperation = "source-out";
      context.fillRect(0, 0, width, height);
      break;
    case "stroke":
      context.globalCompositeOperation = act.erases ? "destination-out" : "source-over";
      stroke(context, act.diameter, act.points);
  }
  context.globalCompositeOperation = "source-over";
}

function stroke(context: CanvasRenderingContext2D, diameter: number, points: Point[]): void {
  const [first, ...rest] = points;
  if (!first) return;
  // A line of no length has no ends either.
  context.beginPath();
  context.arc(first.x, first.y, diameter / 2, 0, 2 * Math.PI);
  context.fill();
  if (rest.length === 0) return;
  context.lineWidth = diameter;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(first.x, first.y);
  for (const point of rest) context.lineTo(point.x, point.y);
  context.stroke();
}
