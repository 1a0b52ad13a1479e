/** Every picture of the cluster, with a search over the prompts. */

import { useEffect } from "preact/hooks";
import { count } from "../format";
import { Problem } from "../parts/problem";
import { whileVisible } from "../parts/visible";
import { locale, t } from "../texts";
import { hasMore, loading, looked, more, problem, query, refresh, tiles, total } from "./gallery-state";
import { PictureButton } from "./picture";

/** Others draw too. */
const REFRESH_MS = 15_000;
/** A search goes to the peer when typing has paused. */
const SETTLE_MS = 300;

export function Gallery() {
  useEffect(() => whileVisible(() => void refresh(), REFRESH_MS), []);
  const sought = query.value;
  useEffect(() => {
    const look = () => {
      if (sought !== "" && tiles.value.length === 0 && hasMore.value) void more();
    };
    const timer = setTimeout(look, SETTLE_MS);
    return () => clearTimeout(timer);
  }, [sought]);
  const isEmpty = tiles.value.length === 0 && total.value !== null && !loading.value;
  return (
    <section aria-labelledby="gallery-title">
      <div class="section-head">
        <h2 id="gallery-title">{t.value.galleryTitle}</h2>
        {total.value !== null && <span class="hint">{t.value.galleryTotal(count(total.value, locale.value))}</span>}
        <input type="search" class="search" placeholder={t.value.search} aria-label={t.value.search}
          value={query.value} onInput={(event) => (query.value = event.currentTarget.value)} />
      </div>
      {problem.value && (
        <Problem text={t.value.failedToLoad(problem.value.message)} error={problem.value} retry={() => void refresh()} />
      )}
      {isEmpty && <p class="empty" role="status">{emptyWords(sought)}</p>}
      <ul class="tiles">
        {tiles.value.map((tile) => (
          <li key={`${tile.job.id}-${tile.index}`}><PictureButton tile={tile} /></li>
        ))}
      </ul>
      {hasMore.value && (
        <button type="button" disabled={loading.value} onClick={() => void more()}>
          {loading.value ? t.value.loading : t.value.more}
        </button>
      )}
    </section>
  );
}

function emptyWords(sought: string): string {
  if (sought === "") return t.value.galleryNone;
  return hasMore.value ? t.value.galleryNoMatchYet(count(looked.value, locale.value)) : t.value.galleryNoMatch;
}
