/** The settings of the cluster with their defaults, and the history of their changes. */

import { useState } from "preact/hooks";
import { clusterNow } from "../api";
import { count, moment } from "../format";
import { locale, t } from "../texts";
import type { Config, ConfigVersion, Setting, SettingChange, SettingValue } from "../wire";
import { askSetting, askUndo, word } from "./acts";
import { Panel, Table } from "./panel";
import { config, history } from "./state";

export function ConfigPanel() {
  const [onlyChanged, setOnlyChanged] = useState(false);
  const told = config.seen.value.data;
  const aside = (
    <>
      {told && <span class="hint">{t.value.configVersion(told.version)}</span>}
      <label class="check">
        <input type="checkbox" checked={onlyChanged} onChange={(event) => setOnlyChanged(event.currentTarget.checked)} />
        {t.value.onlyChanged}
      </label>
    </>
  );
  return (
    <Panel id="config" title={t.value.configTitle} source={config} aside={aside}>
      {(told) => {
        const shown = told.settings.filter((setting) => !onlyChanged || setting.value !== setting.default);
        if (shown.length === 0) return <p class="empty">{t.value.allDefault}</p>;
        return (
          <Table label={t.value.configTitle} head={<Head />}>
            {shown.map((setting) => <Row key={setting.key} told={told} setting={setting} />)}
          </Table>
        );
      }}
    </Panel>
  );
}

function Head() {
  return (
    <>
      <th scope="col">{t.value.key}</th>
      <th scope="col" class="number">{t.value.value}</th>
      <th scope="col" class="number">{t.value.defaultValue}</th>
      <th scope="col">{t.value.range}</th>
      <th scope="col">{t.value.about}</th>
      <th scope="col">{t.value.actions}</th>
    </>
  );
}

function Row({ told, setting }: { told: Config; setting: Setting }) {
  const isDefault = setting.value === setting.default;
  const isFlag = typeof setting.default === "boolean";
  return (
    <tr>
      <th scope="row" class="code">{setting.key}</th>
      <td class="number fixed">
        {shown(setting.value)} {setting.unit}
        <span class={`tag ${isDefault ? "" : "warn"}`}>{isDefault ? t.value.isDefault : t.value.isChanged}</span>
      </td>
      <td class="number">{shown(setting.default)}</td>
      <td class="fixed">{isFlag ? t.value.none : `${shown(setting.least)} … ${shown(setting.most)}`}</td>
      <td class="about">{setting.about}</td>
      <td class="acts">
        <button type="button" class="quiet" aria-label={`${t.value.change}: ${setting.key}`}
          onClick={() => askSetting(told, setting)}>
          {t.value.change}
        </button>
      </td>
    </tr>
  );
}

function shown(value: SettingValue): string {
  return typeof value === "number" ? count(value, locale.value) : value ? t.value.on : t.value.off;
}

export function HistoryPanel() {
  return (
    <Panel id="history" title={t.value.historyTitle} source={history}>
      {({ versions }) =>
        versions.length === 0 ? (
          <p class="empty">{t.value.historyNone}</p>
        ) : (
          <ol class="versions" aria-label={t.value.historyTitle} tabIndex={0}>{versions.map((one) => <Version key={one.version} one={one} />)}</ol>
        )
      }
    </Panel>
  );
}

function Version({ one }: { one: ConfigVersion }) {
  const told = config.seen.value.data;
  const isLast = told?.version === one.version;
  return (
    <li>
      <div class="section-head">
        <strong>{t.value.configVersion(one.version)}</strong>
        <span class="hint">{moment(one.at_ms, clusterNow(), locale.value)} {one.who}</span>
        {told && isLast && (
          <button type="button" class="quiet" onClick={() => askUndo(told, one)}>{t.value.undo}</button>
        )}
      </div>
      {one.why && <p>{one.why}</p>}
      <ul class="diff" aria-label={t.value.changes}>{one.changes.map((change) => <Diff key={change.key} change={change} />)}</ul>
    </li>
  );
}

function Diff({ change }: { change: SettingChange }) {
  return (
    <li class="code">
      {change.key}: <del>{word(change.before)}</del> → <ins>{word(change.after)}</ins>
    </li>
  );
}
