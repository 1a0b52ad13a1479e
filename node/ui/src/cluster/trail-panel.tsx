/** Who did what to the cluster, newest first. */

import { clusterNow } from "../api";
import { moment } from "../format";
import { locale, t } from "../texts";
import { Panel, Table } from "./panel";
import { trail } from "./state";

export function TrailPanel() {
  const head = [t.value.when, t.value.act, t.value.who, t.value.why].map((name) => (
    <th key={name} scope="col">{name}</th>
  ));
  return (
    <Panel id="trail" title={t.value.trailTitle} source={trail}>
      {({ records }) =>
        records.length === 0 ? (
          <p class="empty">{t.value.trailNone}</p>
        ) : (
          <Table label={t.value.trailTitle} head={<>{head}<th scope="col" class="number">{t.value.logIndex}</th></>}>
            {records.map((record) => (
              <tr key={record.log_index}>
                <td class="fixed">{moment(record.at_ms, clusterNow(), locale.value)}</td>
                <td>{record.act}</td>
                <td>{record.who || t.value.none}</td>
                <td>{record.why || t.value.none}</td>
                <td class="number">{record.log_index}</td>
              </tr>
            ))}
          </Table>
        )
      }
    </Panel>
  );
}
