/** A part of the cluster page: its title, and what there is instead of what could not be asked. */

import type { ComponentChildren } from "preact";
import { age } from "../format";
import { Problem } from "../parts/problem";
import { t } from "../texts";
import { nowMs, type Source } from "./state";

interface Props<T> {
  id: string;
  title: string;
  source: Source<T>;
  /** Beside the title. */
  aside?: ComponentChildren;
  children: (data: T) => ComponentChildren;
}

export function Panel<T>({ id, title, source, aside, children }: Props<T>) {
  const { data, atMs, problem } = source.seen.value;
  return (
    <section class="panel" id={id} aria-labelledby={`${id}-title`}>
      <div class="section-head">
        <h2 id={`${id}-title`}>{title}</h2>
        {data && problem && <span class="bad">{t.value.staleFor(age(nowMs.value - atMs))}</span>}
        {data && aside}
      </div>
      {data && children(data)}
      {!data && problem?.refusal === "missing" && <p class="empty">{t.value.missing}</p>}
      {!data && problem && problem.refusal !== "missing" && (
        <Problem text={t.value.failedToLoad(problem.message)} error={problem} />
      )}
      {!data && !problem && <p class="empty">{t.value.loading}</p>}
    </section>
  );
}

/** A table that scrolls by itself where the page is narrow. */
export function Table({ label, head, children }: { label: string; head: ComponentChildren; children: ComponentChildren }) {
  return (
    <div class="scrolls" role="group" aria-label={label} tabIndex={0}>
      <table>
        <thead><tr>{head}</tr></thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
