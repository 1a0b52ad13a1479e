/** The cluster in one line. */

import { count } from "../format";
import { locale, t } from "../texts";
import { lastIndex, quorumOf } from "./quorum";
import { cluster } from "./state";

export function Summary() {
  const told = cluster.seen.value.data;
  if (!told) return null;
  const { alive, voters, margin } = quorumOf(told.members);
  const known = `${t.value.votersAlive(alive, voters)}${t.value.comma}${margin < 0 ? t.value.noQuorum : t.value.tolerates(margin)}`;
  // Only a leader knows who is alive.
  const votes = told.leader > 0 ? known : `${voters}${t.value.comma}${t.value.unknown}`;
  const leader = told.leader > 0 ? t.value.nodeName(told.leader) : t.value.nobody;
  return (
    <dl class="summary">
      <div><dt>{t.value.clusterTitle}</dt><dd>{told.cluster}</dd></div>
      <div><dt>{t.value.leader}</dt><dd>{leader}</dd></div>
      <div><dt>{t.value.term}</dt><dd>{count(told.term, locale.value)}</dd></div>
      <div><dt>{t.value.voters}</dt><dd>{votes}</dd></div>
      <div><dt>{t.value.logIndex}</dt><dd>{count(lastIndex(told), locale.value)}</dd></div>
      <div><dt>{t.value.version}</dt><dd>{told.version}{t.value.comma}{t.value.featureLevel(told.features)}</dd></div>
    </dl>
  );
}
