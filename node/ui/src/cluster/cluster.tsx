/** The page of the cluster: what needs a person on top, then members, queue, plots, configuration, event log. */

import { useEffect } from "preact/hooks";
import { whileVisible } from "../parts/visible";
import { t } from "../texts";
import { AttentionPanel } from "./attention-panel";
import { ConfigPanel, HistoryPanel } from "./config-panel";
import { Confirmation } from "./confirm";
import { MembersPanel } from "./members-panel";
import { PlotsPanel } from "./plots-panel";
import { QueuePanel } from "./queue-panel";
import { everyMs, tick } from "./state";
import { Summary } from "./summary";
import { TrailPanel } from "./trail-panel";

export function ClusterPage() {
  useEffect(() => whileVisible(tick, everyMs), []);
  return (
    <div class="cluster">
      <h1 class="visually-hidden">{t.value.clusterTitle}</h1>
      <Summary />
      <AttentionPanel />
      <MembersPanel />
      <div class="halves">
        <QueuePanel />
        <PlotsPanel />
      </div>
      <ConfigPanel />
      <div class="halves">
        <HistoryPanel />
        <TrailPanel />
      </div>
      <Confirmation />
    </div>
  );
}
