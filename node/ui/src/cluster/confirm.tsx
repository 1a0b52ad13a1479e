/** Asks before an act: what it does, why it is done, and how the command line does the same. */

import { useState } from "preact/hooks";
import { ApiError } from "../api";
import { count } from "../format";
import { CopyButton, copyText } from "../parts/copy";
import { Dialog } from "../parts/dialog";
import { Problem } from "../parts/problem";
import { locale, t } from "../texts";
import type { Setting, SettingValue } from "../wire";
import { asked, type Act } from "./acts";
import { refreshAll } from "./state";

export function Confirmation() {
  const act = asked.value;
  return act && <Asking key={act} act={act} />;
}

function Asking({ act }: { act: Act }) {
  const [why, setWhy] = useState(act.reason);
  const [chosen, setChosen] = useState<SettingValue | null>(act.setting?.value ?? null);
  const [problem, setProblem] = useState<ApiError | null>(null);
  const [isRunning, setRunning] = useState(false);
  const close = () => (asked.value = null);
  const run = async () => {
    setRunning(true);
    setProblem(null);
    try {
      await act.run(why.trim(), chosen);
      close();
    } catch (error) {
      setProblem(error instanceof ApiError ? error : new ApiError("unreachable", String(error)));
    }
    setRunning(false);
    refreshAll();
  };
  return (
    <Dialog title={act.title} onClose={close}>
      <form
        class="confirm"
        onSubmit={(event) => {
          event.preventDefault();
          void run();
        }}
      >
        {act.effects.length > 0 && (
          <ul class="effects" aria-label={t.value.effect}>{act.effects.map((one) => <li key={one}>{one}</li>)}</ul>
        )}
        {act.warnings.map((one) => <p key={one} class="problem">{one}</p>)}
        {act.setting && <SettingField setting={act.setting} chosen={chosen} choose={setChosen} />}
        {act.takesReason && (
          <div class="field">
            <label for="why">{t.value.reason}</label>
            <input id="why" value={why} maxLength={500} autocomplete="off" placeholder={t.value.reasonHint}
              onInput={(event) => setWhy(event.currentTarget.value)} />
          </div>
        )}
        <CommandLine text={act.cli(why, chosen)} />
        {problem && <Problem text={refusal(problem)} error={problem} retry={() => void run()} />}
        <div class="buttons">
          <button type="submit" class="main" disabled={isRunning}>{t.value.confirm}</button>
          <button type="button" onClick={close}>{t.value.close}</button>
        </div>
      </form>
    </Dialog>
  );
}

function refusal(problem: ApiError): string {
  if (problem.refusal === "missing") return t.value.missing;
  if (problem.refusal === "unreachable") return t.value.unreachable;
  const why = t.value.refusedBecause(problem.message);
  return problem.status === 409 ? `${why} ${t.value.changedMeanwhile}` : why;
}

function CommandLine({ text }: { text: string }) {
  return (
    <div class="field">
      <span>{t.value.sameByCli}</span>
      <span class="joined">
        <code class="line" tabIndex={0}>{text}</code>
        <CopyButton label={t.value.copy} copy={() => copyText(text)} />
      </span>
    </div>
  );
}

interface SettingProps {
  setting: Setting;
  chosen: SettingValue | null;
  choose: (value: SettingValue | null) => void;
}

function SettingField({ setting, chosen, choose }: SettingProps) {
  const language = locale.value;
  const shown = chosen ?? setting.default;
  return (
    <>
      <p>{setting.about}</p>
      <div class="field">
        <label for="setting">{setting.key}</label>
        {typeof setting.default === "boolean" ? (
          <select id="setting" value={String(shown)} onChange={(event) => choose(event.currentTarget.value === "true")}>
            <option value="true">{t.value.on}</option>
            <option value="false">{t.value.off}</option>
          </select>
        ) : (
          <>
            <input id="setting" type="number" required min={setting.least} max={setting.most} step={1}
              value={String(shown)} onInput={(event) => choose(Number(event.currentTarget.value))} />
            <span class="hint">
              {t.value.settingRange(count(setting.least, language), count(setting.most, language), setting.unit)}
            </span>
          </>
        )}
      </div>
      <label class="check">
        <input type="checkbox" checked={chosen === null}
          onChange={(event) => choose(event.currentTarget.checked ? null : setting.default)} />
        {t.value.toDefault} ({String(setting.default)})
      </label>
    </>
  );
}
