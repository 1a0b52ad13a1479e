/** A small picture that opens large. */

import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { t } from "../texts";
import type { Tile } from "./gallery-state";

/** What is open large. */
export const opened = signal<Tile | null>(null);

export function PictureButton({ tile }: { tile: Tile }) {
  const [isLost, setLost] = useState(false);
  const { job, picture } = tile;
  return (
    <button type="button" class="tile" aria-label={t.value.openPicture(job.prompt)} title={job.prompt}
      onClick={() => (opened.value = tile)}>
      {isLost ? (
        <span class="hint">{t.value.pictureGone}</span>
      ) : (
        <img src={picture.url} alt="" loading="lazy" decoding="async" onError={() => setLost(true)} />
      )}
    </button>
  );
}
