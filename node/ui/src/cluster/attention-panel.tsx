/** What needs a person, with what to do. Said aloud when it changes. */

import { locale, t } from "../texts";
import { attention } from "./attention";
import { cluster, findings, queue } from "./state";

export function AttentionPanel() {
  const [members, counts, found] = [cluster.seen.value.data, queue.seen.value.data, findings.seen.value.data];
  const callouts = attention(members, counts, found, t.value, locale.value);
  const isKnown = members !== null;
  const lacksFindings = findings.seen.value.problem?.refusal === "missing";
  return (
    <section class="panel" aria-labelledby="attention-title">
      <div class="section-head"><h2 id="attention-title">{t.value.attentionTitle}</h2></div>
      <div aria-live="polite">
        {callouts.length === 0 && (
          <p class={isKnown ? "callout ok" : "empty"}>{isKnown ? t.value.attentionNone : t.value.attentionChecking}</p>
        )}
        {callouts.map(({ level, what, fix }) => (
          <div key={what} class={`callout ${level}`}>
            <span class="visually-hidden">{level === "fail" ? t.value.levelFail : t.value.levelWarn}: </span>
            <strong>{what}</strong>
            {fix && <span>{fix}</span>}
          </div>
        ))}
      </div>
      {lacksFindings && <p class="hint">{t.value.findingsMissing}</p>}
    </section>
  );
}
