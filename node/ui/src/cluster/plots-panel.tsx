/** Pictures a second, and how long they took, over the time that somebody has looked. */

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { rate, span } from "../format";
import { language, locale, t } from "../texts";
import type { Point } from "./rates";
import { points } from "./state";

const HEIGHT_PX = 130;
/** What the plots begin with, so that the first points do not fill the whole width. */
const SPAN_S = 600;

interface Line {
  label: string;
  /** A variable of style.css. */
  color: string;
  values: (number | null)[];
}

export function PlotsPanel() {
  const known = points.value;
  const last = known.at(-1);
  const lastEnded = known.findLast((point) => point.medianMs !== null);
  const told = last?.picturesPerSecond ?? null;
  const seconds = (pick: (point: Point) => number | null) =>
    known.map((point) => {
      const ms = pick(point);
      return ms === null ? null : ms / 1_000;
    });
  return (
    <section class="panel" aria-labelledby="plots-title">
      <div class="section-head"><h2 id="plots-title">{t.value.plotsTitle}</h2></div>
      <Plot
        title={t.value.plotRate}
        summary={told === null ? t.value.none : `${t.value.now}: ${rate(told, locale.value)}`}
        lines={[{ label: t.value.plotPictures, color: "--accent", values: known.map((p) => p.picturesPerSecond) }]}
      />
      <Plot
        title={t.value.plotLatency}
        summary={
          lastEnded === undefined ? t.value.none
            : `${t.value.plotMedian} ${span(lastEnded.medianMs ?? 0)}, ${t.value.plotHigh} ${span(lastEnded.highMs ?? 0)}`
        }
        lines={[
          { label: t.value.plotMedian, color: "--accent", values: seconds((p) => p.medianMs) },
          { label: t.value.plotHigh, color: "--warn", values: seconds((p) => p.highMs) },
        ]}
      />
      <p class="hint">{t.value.plotsHint}</p>
    </section>
  );
}

function Plot({ title, summary, lines }: { title: string; summary: string; lines: Line[] }) {
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const times = points.value.map((point) => point.atMs / 1_000);
  const data: uPlot.AlignedData = [times, ...lines.map((line) => line.values)];

  useEffect(() => {
    const element = holder.current;
    if (!element) return;
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(optionsOf(element, lines), data, element);
    };
    make();
    // The colours of the canvas do not follow the style sheet by themselves.
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", make);
    const size = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    size.observe(element);
    return () => {
      scheme.removeEventListener("change", make);
      size.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [language.value]);

  useEffect(() => plot.current?.setData(data));

  return (
    <figure class="plot">
      <figcaption><strong>{title}</strong> <span class="hint">{summary}</span></figcaption>
      <div ref={holder} role="img" aria-label={`${title}: ${summary}`} />
    </figure>
  );
}

function optionsOf(element: HTMLElement, lines: Line[]): uPlot.Options {
  const style = getComputedStyle(element);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const axis: uPlot.Axis = {
    stroke: color("--quiet"),
    grid: { stroke: color("--line"), width: 1 },
    ticks: { stroke: color("--line"), width: 1 },
    font: "11px system-ui, sans-serif",
  };
  const clock = (_: uPlot, seconds: number[]) =>
    seconds.map((at) => new Date(at * 1_000).toLocaleTimeString(locale.value, { hour12: false, hour: "2-digit", minute: "2-digit" }));
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: {
        // Both are null where there are no points yet, whatever the types say.
        range: (_, least: number | null, most: number | null) => {
          const end = most ?? Date.now() / 1_000;
          return [Math.min(least ?? end, end - SPAN_S), end];
        },
      },
      y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] },
    },
    axes: [{ ...axis, values: clock, size: 26 }, { ...axis, size: 44 }],
    series: [
      {},
      ...lines.map((line): uPlot.Series => ({
        label: line.label, stroke: color(line.color), width: 1.5, spanGaps: true, points: { show: true, size: 4 },
      })),
    ],
  };
}
