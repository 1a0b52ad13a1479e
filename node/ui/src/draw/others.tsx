/** Jobs of others, folded away: whoever came here from a peer that died finds the own ones among them. */

import { useEffect } from "preact/hooks";
import { count } from "../format";
import { whileVisible } from "../parts/visible";
import { locale, t } from "../texts";
import { adopt, lookForOthers, others } from "./jobs";
import { track, words } from "./tracked";

const LOOK_MS = 5_000;

export function Others() {
  useEffect(() => whileVisible(() => void lookForOthers(), LOOK_MS), []);
  const { jobs, total } = others.value;
  if (jobs.length === 0) return null;
  return (
    <details class="others">
      <summary>{t.value.othersTitle(count(total, locale.value))}</summary>
      <p class="hint">{t.value.othersHint}</p>
      <ul>
        {jobs.map((job) => (
          <li key={job.id}>
            <span class="others-prompt">{job.prompt}</span>
            <span class="hint">{words(track(job.id, job), t.value)}</span>
            <button type="button" class="quiet" onClick={() => adopt(job)} aria-label={`${t.value.follow}: ${job.prompt}`}>
              {t.value.follow}
            </button>
          </li>
        ))}
      </ul>
    </details>
  );
}
