/** A small picture that opens large. */

import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { artifactUrl } from "../api";
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

interface SourceProps {
  digest: string;
  prompt: string;
  /** It is the mask over it. */
  mask?: boolean;
}

/** What a job began from, small; nothing where it is not kept any more. */
export function SourcePicture({ digest, prompt, mask }: SourceProps) {
  const [lost, setLost] = useState("");
  if (lost === digest) return null;
  const label = mask ? t.value.maskAlt(prompt) : t.value.begunAlt(prompt);
  return (
    <a class="begun" href={artifactUrl(digest)} target="_blank" rel="noopener" title={mask ? t.value.mask : t.value.begun}>
      <img src={artifactUrl(digest)} alt={label} loading="lazy" decoding="async" onError={() => setLost(digest)} />
    </a>
  );
}
