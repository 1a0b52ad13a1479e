/** One picture large, with everything that is known of it. */

import { useEffect, useState } from "preact/hooks";
import { clusterNow } from "../api";
import { bytes, moment, span } from "../format";
import { canCopyPictures, CopyButton, copyPicture, copyText } from "../parts/copy";
import { Dialog } from "../parts/dialog";
import { Icon } from "../parts/icon";
import { locale, t } from "../texts";
import { fill } from "./form-state";
import { say } from "./received";
import { tiles, type Tile } from "./gallery-state";
import { begunOf, fromJob, infotext } from "./parameters";
import { opened, SourcePicture } from "./picture";
import { beginFromPicture, beginLike } from "./source";
import { takes } from "./takes";

export function Lightbox() {
  const tile = opened.value;
  return tile && <Open tile={tile} />;
}

/** The tile so many places further on, where there is one. */
function beside(tile: Tile, by: number): Tile | undefined {
  const at = tiles.value.findIndex((one) => one.job.id === tile.job.id && one.index === tile.index);
  return at < 0 ? undefined : tiles.value[at + by];
}

function Open({ tile }: { tile: Tile }) {
  const { job, picture, index } = tile;
  const [previous, next] = [beside(tile, -1), beside(tile, 1)];
  // A job of the model's default size does not name it; the picture does, once it is there.
  const [seen, setSeen] = useState({ url: "", width: 0, height: 0 });
  const sides = seen.url === picture.url ? seen : job;
  useEffect(() => {
    const turn = (event: KeyboardEvent) => {
      const to = event.key === "ArrowLeft" ? previous : event.key === "ArrowRight" ? next : undefined;
      if (to) opened.value = to;
    };
    addEventListener("keydown", turn);
    return () => removeEventListener("keydown", turn);
  });
  const again = () => {
    opened.value = null;
    say("");
    fill(fromJob(job, index), t.value.formFilled);
    void beginLike(job);
  };
  const begin = async () => {
    opened.value = null;
    say("");
    const name = `${job.id}-${index}.png`;
    if (await beginFromPicture(picture.url, name)) say(t.value.sourceTaken(name));
    document.getElementById("prompt")?.focus();
  };
  const begun = begunOf(job);
  return (
    <Dialog title={job.prompt} wide onClose={() => (opened.value = null)}>
      <div class="large">
        <Turn to={previous} name="previous" label={t.value.previous} />
        <img
          src={picture.url}
          alt={job.prompt}
          onLoad={({ currentTarget: { naturalWidth: width, naturalHeight: height } }) =>
            setSeen({ url: picture.url, width, height })
          }
        />
        <Turn to={next} name="next" label={t.value.next} />
      </div>
      <div class="buttons" role="group" aria-label={t.value.pictureActions}>
        <button type="button" class="main" onClick={again}>{t.value.again}</button>
        {takes.value.image && <button type="button" onClick={() => void begin()}>{t.value.beginFromThis}</button>}
        <a class="button" href={picture.url} download={`${job.id}-${index}.png`}>{t.value.download}</a>
        {canCopyPictures && <CopyButton label={t.value.copyPicture} copy={() => copyPicture(picture.url)} />}
        <CopyButton
          label={t.value.copyParameters}
          copy={() => copyText(infotext(job, index, sides.width, sides.height))}
        />
      </div>
      <dl class="facts">
        {begun.image && (
          <>
            <dt>{t.value.begun}</dt>
            <dd class="buttons">
              <SourcePicture digest={begun.image} prompt={job.prompt} />
              {begun.mask && <SourcePicture digest={begun.mask} prompt={job.prompt} mask />}
            </dd>
          </>
        )}
        {begun.strength !== undefined && (<><dt>{t.value.strength}</dt><dd>{begun.strength}</dd></>)}
        {begun.negative_prompt && (<><dt>{t.value.negative}</dt><dd>{begun.negative_prompt}</dd></>)}
        {begun.guidance !== undefined && begun.guidance > 0 && (<><dt>{t.value.guidance}</dt><dd>{begun.guidance}</dd></>)}
        <dt>{t.value.seed}</dt><dd>{picture.seed}</dd>
        {sides.width > 0 && (<><dt>{t.value.size}</dt><dd>{sides.width} × {sides.height}, {bytes(picture.bytes)}</dd></>)}
        {job.steps > 0 && (<><dt>{t.value.steps}</dt><dd>{job.steps}</dd></>)}
        {job.node > 0 && (<><dt>{t.value.drawnBy}</dt><dd>{t.value.nodeName(job.node)}</dd></>)}
        <dt>{t.value.took}</dt><dd>{span(job.finished_ms - job.submitted_ms)}</dd>
        <dt>{t.value.finished}</dt><dd>{moment(job.finished_ms, clusterNow(), locale.value)}</dd>
        <dt>{t.value.jobId}</dt><dd class="code">{job.id}</dd>
      </dl>
    </Dialog>
  );
}

function Turn({ to, name, label }: { to: Tile | undefined; name: "previous" | "next"; label: string }) {
  return (
    <button type="button" class="icon" aria-label={label} title={label} disabled={!to}
      onClick={() => to && (opened.value = to)}>
      <Icon name={name} />
    </button>
  );
}
