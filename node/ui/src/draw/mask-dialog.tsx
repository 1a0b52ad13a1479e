/**
 * Painting what is to be drawn anew: with a mouse, a pen, a finger, or the keyboard. What is painted holds at once;
 * closing the dialog in any way loses nothing.
 */

import { useEffect, useRef, useState } from "preact/hooks";
import { BlobPicture } from "../parts/blob-picture";
import { Dialog } from "../parts/dialog";
import { t } from "../texts";
import { diameterOf, shownIn, type Act, type Point } from "./mask";
import { MaskCanvas } from "./mask-canvas";
import { paintMask, type Source } from "./source";

/** Hundredths of the shorter side. */
const SIZE_DEFAULT = 15;
const SIZE_MAX = 60;

const MOVES: Record<string, readonly [number, number]> = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};

export function MaskDialog({ source, onClose }: { source: Source; onClose: () => void }) {
  const [share, setShare] = useState(source.mask?.share ?? 0);
  const [erases, setErases] = useState(false);
  const [size, setSize] = useState(SIZE_DEFAULT);
  const [painting, setPainting] = useState<MaskCanvas | null>(null);
  const element = useRef<HTMLCanvasElement>(null);
  const { width, height } = source;

  useEffect(() => {
    const canvas = element.current;
    if (!canvas) return;
    void MaskCanvas.open(canvas, source.mask).then((opened) => {
      setPainting(opened);
      setShare(opened.share());
    });
  }, []);

  /** Takes over what is painted by now. */
  const settle = () => {
    if (!painting) return;
    setShare(painting.share());
    paintMask(source, painting.mask());
  };
  const act = (one: Act) => {
    painting?.act(one);
    settle();
  };
  const undo = () => {
    painting?.undo();
    settle();
  };
  const choices = [[t.value.maskAll, "all"], [t.value.maskNone, "none"], [t.value.maskInvert, "invert"]] as const;
  return (
    <Dialog title={t.value.maskTitle} wide onClose={onClose}>
      <p class="hint" id="mask-hint">{t.value.maskHint}</p>
      <Stage
        source={source}
        canvas={element}
        diameter={diameterOf(size, width, height)}
        begin={(point, diameter) => painting?.act({ kind: "stroke", erases, diameter, points: [point] })}
        extend={(points) => painting?.extend(points)}
        end={settle}
      />
      <p role="status">{t.value.maskShare(Math.round(share * 100))}</p>
      <div class="buttons mask-tools">
        <span class="buttons" role="group" aria-label={t.value.brush}>
          <button type="button" aria-pressed={!erases} onClick={() => setErases(false)}>{t.value.brushPaint}</button>
          <button type="button" aria-pressed={erases} onClick={() => setErases(true)}>{t.value.brushErase}</button>
        </span>
        <label class="check">
          {t.value.brushSize}
          <input type="range" min={1} max={SIZE_MAX} value={size}
            onInput={(event) => setSize(Number(event.currentTarget.value))} />
        </label>
        <span class="buttons" role="group" aria-label={t.value.maskWhole}>
          {choices.map(([label, kind]) => (
            <button key={kind} type="button" onClick={() => act({ kind })}>{label}</button>
          ))}
          <button type="button" disabled={!painting?.canUndo} onClick={undo}>{t.value.maskUndo}</button>
        </span>
        <button type="button" class="main" onClick={onClose}>{t.value.maskDone}</button>
      </div>
    </Dialog>
  );
}

interface StageProps {
  source: Source;
  canvas: { current: HTMLCanvasElement | null };
  /** Of the brush, in the picture's pixels. */
  diameter: number;
  begin: (point: Point, diameter: number) => void;
  extend: (points: Point[]) => void;
  end: () => void;
}

/** The picture, what is painted over it, and the brush's ring. */
function Stage({ source, canvas, diameter, begin, extend, end }: StageProps) {
  const { width, height } = source;
  const ring = useRef<HTMLSpanElement>(null);
  const at = useRef<Point>({ x: width / 2, y: height / 2 });
  const isDown = useRef(false);

  const shown = () => shownIn(canvas.current?.getBoundingClientRect() ?? new DOMRect(), width, height);
  const toPicture = (event: PointerEvent): Point => {
    const { left, top, scale } = shown();
    return { x: (event.clientX - left) / scale, y: (event.clientY - top) / scale };
  };
  const showRing = (point: Point) => {
    at.current = point;
    const place = canvas.current?.parentElement?.getBoundingClientRect();
    if (!ring.current || !place) return;
    const { left, top, scale } = shown();
    const across = diameter * scale;
    // By the object model: the policy refuses styles in the HTML alone.
    const { style } = ring.current;
    style.width = style.height = `${across}px`;
    style.left = `${left - place.left + point.x * scale - across / 2}px`;
    style.top = `${top - place.top + point.y * scale - across / 2}px`;
  };
  useEffect(() => showRing(at.current), [diameter]);

  const move = (event: PointerEvent) => {
    showRing(toPicture(event));
    if (!isDown.current) return;
    const all = event.getCoalescedEvents?.() ?? [];
    extend((all.length > 0 ? all : [event]).map(toPicture));
  };
  const lift = () => {
    if (!isDown.current) return;
    isDown.current = false;
    end();
  };
  const press = (event: KeyboardEvent) => {
    const by = MOVES[event.key];
    if (!by && event.key !== " ") return;
    event.preventDefault();
    const from = at.current;
    const pace = diameter / 2;
    const within = (value: number, most: number) => Math.min(Math.max(value, 0), most);
    const to = by ? { x: within(from.x + by[0] * pace, width), y: within(from.y + by[1] * pace, height) } : from;
    showRing(to);
    if (by && !event.shiftKey) return;
    begin(from, diameter);
    if (by) extend([to]);
    end();
  };

  return (
    <div class="stage">
      <BlobPicture blob={source.blob} alt="" />
      <canvas
        ref={canvas}
        width={width}
        height={height}
        tabIndex={0}
        role="application"
        aria-label={t.value.maskCanvas(source.name)}
        aria-describedby="mask-hint"
        onPointerDown={(event) => {
          if (event.button !== 0 || isDown.current) return;
          event.currentTarget.setPointerCapture(event.pointerId);
          isDown.current = true;
          showRing(toPicture(event));
          begin(toPicture(event), diameter);
        }}
        onPointerMove={move}
        onPointerUp={lift}
        onPointerCancel={lift}
        onFocus={() => showRing(at.current)}
        onKeyDown={press}
      />
      <span class="ring" ref={ring} aria-hidden="true" />
    </div>
  );
}
